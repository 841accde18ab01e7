"""A real ActiveMQ for tests: one broker on loopback that keeps nothing, its files in a folder of its own."""

from __future__ import annotations

import glob
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pilot.util.stomp import Broker, Connection, Frame
from tests.components import free_port, listens, logs, missing, require_programs, stop

# The Debian packages; .ci/suite.py installs them where it may.
PACKAGES = ("activemq", "default-jre-headless")
_HOME = "/usr/share/activemq"
_JAR = f"{_HOME}/bin/activemq.jar"
USER, PASSWORD = "pilot", "canary-passcode"
# Another program may take a free port before the broker has it.
_ATTEMPTS = 5

_CONFIGURATION = """
<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:schemaLocation="http://www.springframework.org/schema/beans
  http://www.springframework.org/schema/beans/spring-beans.xsd
  http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
 <broker xmlns="http://activemq.apache.org/schema/core" brokerName="test" dataDirectory="{base}/data"
  persistent="false" useJmx="false" useShutdownHook="true" schedulerSupport="false">
  <plugins><simpleAuthenticationPlugin><users>
   <authenticationUser username="{user}" password="{password}" groups="users"/>
  </users></simpleAuthenticationPlugin></plugins>
  {tls}
  <transportConnectors><transportConnector name="stomp" uri="{scheme}://127.0.0.1:{port}"/></transportConnectors>
 </broker>
</beans>
"""
_TLS = (
    '<sslContext><sslContext keyStore="file:{store}" keyStorePassword="{password}" keyStoreType="PKCS12"/></sslContext>'
)


def require_activemq() -> None:
    """Skip where ActiveMQ is not installed, and fail where CI=true promises that it is."""
    require_programs(["java"], PACKAGES)
    if not glob.glob(_JAR):
        missing("activemq", f"Debian: apt-get install {' '.join(PACKAGES)}")


@dataclass
class ActiveMQ:
    """port: where it speaks STOMP. store: PKCS12 file with certificate and key, for TLS."""

    base: Path
    port: int = 0
    store: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    def broker(self, **changes: object) -> Broker:
        """How a client finds it."""
        values = {"host": "127.0.0.1", "port": self.port, "login": USER, "passcode": PASSWORD, **changes}
        return Broker(**values)  # type: ignore[arg-type]

    def start(self) -> None:
        """Start it, on the port it had before if it had one."""
        for _ in range(_ATTEMPTS):
            port = self.port or free_port()
            self._configure(port)
            options = [f"-Dactivemq.{name}={value}" for name, value in self._places().items()]
            memory = ["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Djava.io.tmpdir={self.base}/tmp"]
            with (self.base / "output.log").open("wb") as said:
                self.process = subprocess.Popen(
                    ["java", *memory, *options, "-jar", _JAR, "start", f"xbean:file:{self.base}/conf/activemq.xml"],
                    cwd=self.base, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                )  # fmt: skip
            if listens(self.process, port):
                self.port = port
                return
            self.stop()
        raise RuntimeError(f"ActiveMQ did not start:\n{logs(self.base)}")

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            stop(self.process)
            self.process = None

    def send(self, destination: str, body: str | bytes, **headers: str) -> None:
        """Send a message as a server would."""
        connection = Connection(self.broker())
        data = body.encode() if isinstance(body, str) else body
        connection.send_with_receipt("SEND", {"destination": destination, **headers}, data)
        connection.close(farewell=True)

    def drain(self, destination: str, number: int, timeout: float = 10.0) -> list[Frame]:
        """Take up to `number` messages from a queue."""
        connection = Connection(self.broker())
        connection.send_with_receipt("SUBSCRIBE", {"id": "0", "destination": destination, "ack": "auto"})
        deadline = time.monotonic() + timeout
        found: list[Frame] = []
        while len(found) < number and time.monotonic() < deadline:
            frame = connection.receive(deadline - time.monotonic())
            if frame is not None:
                found.append(frame)
        connection.close(farewell=True)
        return found

    def _places(self) -> dict[str, str]:
        base = str(self.base)
        return {
            "home": _HOME,
            "base": base,
            "conf": f"{base}/conf",
            "data": f"{base}/data",
            "classpath": f"{base}/conf",
        }

    def _configure(self, port: int) -> None:
        for name in ("conf", "data", "tmp"):
            (self.base / name).mkdir(exist_ok=True)
        values = {"base": self.base, "port": port, "user": USER, "password": PASSWORD}
        tls = _TLS.format(store=self.store, password=PASSWORD) if self.store else ""
        text = _CONFIGURATION.format(tls=tls, scheme="stomp+ssl" if self.store else "stomp", **values)
        (self.base / "conf" / "activemq.xml").write_text(text)


@contextmanager
def running_activemq(store: str = "") -> Iterator[ActiveMQ]:
    """A broker for the time of a block, with one account. store: see ActiveMQ."""
    require_activemq()
    with tempfile.TemporaryDirectory(prefix="pilotkit-activemq-", dir="/tmp") as folder:
        made = ActiveMQ(Path(folder), store=store)
        try:
            made.start()
            yield made
        finally:
            made.stop()
