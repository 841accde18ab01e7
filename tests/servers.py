"""A real server for tests: `server.serving` in a process of its own, on a free port, with its data in a folder."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from server.db import information
from server.db.database import Database
from server.db.information import ConfigValue
from server.db.migrate import migrate
from server.logic.parameters import APPLICATION
from server.settings import Settings

#: s a server may take to say that it serves, and to stop; far more than it needs, on a machine that is busy.
_PATIENCE = 60

_ROOT = Path(__file__).resolve().parent.parent
_PROGRAM = """
import sys
from server.serving import serve
from server.settings import Settings, ConfigurationError
try:
    sys.exit(serve(Settings.from_environment()))
except ConfigurationError as error:
    sys.exit(f"refused: {error}")
"""


@dataclass
class RunningServer:
    """A server that answers.

    Attributes:
        url: http://127.0.0.1:PORT.
        port: its port.
        pid: of the process that runs gunicorn's master.
        data: its data directory; the SQLite database is data/pilotkit.db.
        output: what it printed so far.
    """

    url: str
    port: int
    data: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[str]
    output: list[str] = field(default_factory=list)
    _reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it with a signal, wait until it has gone, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        if self._reader is not None:
            self._reader.join(_PATIENCE)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def kill(self) -> None:
        """Kill its first process with -9; the others leave by themselves."""
        self.stop(signal.SIGKILL)

    def restart(self) -> RunningServer:
        """Start another server on the same data and port; this one must have ended."""
        return start_server(self.data, port=self.port, environment=self.environment)


def pause_no_nodes(data: Path) -> None:
    """Make a server's database before it starts, with no pauses for nodes on which jobs only fail.

    A server that runs takes up to half a minute to hear of it in all of its processes.
    """
    data.mkdir(parents=True, exist_ok=True)
    url = Settings(data=str(data)).database_url()
    migrate(url)
    with closing(Database(url)) as database, database.durable() as connection:
        never = ConfigValue(APPLICATION, "dispatch", "NODE_FAILURES", "", "0", "int", None)
        information.store_config(connection, never)


def start_server(
    data: Path, *, port: int = 0, environment: Mapping[str, str] | None = None, program: list[str] | None = None
) -> RunningServer:
    """Start a server and wait until it serves.

    Args:
        data: its data directory.
        port: 0 takes a free one.
        environment: more PILOTKIT_* variables, for example {"PILOTKIT_LOST_HEARTBEAT": "2"}.
        program: command to start instead of server.serving, for example ["pilotkit", "serve"]; it gets its settings by
            the environment.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("PILOTKIT_")}
    # Tests compare what a server says, and on a busy machine any request may be slow.
    defaults = {"PILOTKIT_WORKERS": "2", "PILOTKIT_SLOW_REQUEST": "0"}
    settings = {"PILOTKIT_DATA": str(data), "PILOTKIT_PORT": str(port), **defaults, **(environment or {})}
    path = os.pathsep.join(filter(None, [str(_ROOT), own.get("PYTHONPATH")]))
    process = subprocess.Popen(
        program or [sys.executable, "-c", _PROGRAM],
        env={**own, **settings, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output: list[str] = []
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, output, lines), daemon=True)
    reader.start()
    while True:
        try:
            line = lines.get(timeout=_PATIENCE)
        except queue.Empty:
            process.kill()
            line = ""
        if line.startswith("pilotkit: serving "):
            url = line.split()[-1]
            number = int(url.rpartition(":")[2])
            return RunningServer(url, number, data, environment or {}, process, output, reader)
        if not line:
            process.wait()
            reader.join()
            assert process.stdout is not None
            process.stdout.close()
            raise RuntimeError(f"the server did not start:\n{''.join(output)}")


def _read(process: subprocess.Popen[str], output: list[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        output.append(line)
        lines.put(line)
    lines.put("")


@contextmanager
def running_server(
    data: Path, *, port: int = 0, environment: Mapping[str, str] | None = None, program: list[str] | None = None
) -> Iterator[RunningServer]:
    """A server for the time of a block; it is stopped at the end unless the block has done so."""
    server = start_server(data, port=port, environment=environment, program=program)
    try:
        yield server
    finally:
        server.stop()
