"""A real XRootD server for tests: root:// and http:// on one free port of the loopback interface, ended by its pid."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# The Debian packages that these tests need; .ci/suite.py installs them where it may.
PACKAGES = ("xrootd-server", "xrootd-client", "xrootd-server-plugins")
# s a server may take to listen, and to stop; far more than it needs.
_PATIENCE = 30
# A free port may be taken by somebody else before the server has it.
_ATTEMPTS = 5

_CONFIGURATION = """
all.role server
all.export /data
oss.localroot {base}
all.adminpath {base}/admin
all.pidpath {base}/run
xrd.port {port}
xrd.network nodnr
xrd.allow host 127.0.0.1
xrd.allow host localhost
xrootd.chksum max 4 adler32 md5
xrootd.async off
xrd.protocol http:{port} libXrdHttp.so
http.selfhttps2http no
"""


@dataclass(frozen=True)
class XRootD:
    """A server that answers. data: the directory behind /data."""

    port: int
    data: Path

    def root(self, name: str) -> str:
        """URL of a file for XRootD."""
        return f"root://127.0.0.1:{self.port}//data/{name}"

    def http(self, name: str) -> str:
        """URL of the same file for WebDAV."""
        return f"dav://127.0.0.1:{self.port}/data/{name}"

    def put(self, name: str, contents: bytes, mode: int = 0o644) -> None:
        """A file in storage, in directories that the server may write to."""
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.parents:
            if folder == self.data:
                break
            if os.geteuid() == 0:
                shutil.chown(folder, "daemon")
        path.write_bytes(contents)
        path.chmod(mode)

    def files(self) -> list[str]:
        """The names of all files in storage."""
        return sorted(str(path.relative_to(self.data)) for path in self.data.rglob("*") if path.is_file())


def require_xrootd() -> None:
    """Skip where server and client are not installed, and fail where CI=true promises that they are."""
    missing = [name for name in ("xrootd", "xrdcp", "xrdfs") if shutil.which(name) is None]
    if not missing:
        return
    text = f"{', '.join(missing)} not installed (Debian: apt-get install {' '.join(PACKAGES)})"
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


@contextmanager
def running_xrootd() -> Iterator[XRootD]:
    """A server for the time of a block. As root it runs as the user daemon, since it refuses to run as root."""
    # Not below pytest's own folder, which only root may enter.
    with tempfile.TemporaryDirectory(prefix="pilotkit-xrootd-", dir="/tmp") as folder:
        base = Path(folder)
        for path in (base, *(base / name for name in ("data", "admin", "run", "log"))):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
            if os.geteuid() == 0:
                shutil.chown(path, "daemon")
        for _ in range(_ATTEMPTS):
            process, port = _start(base)
            try:
                if _listens(process, port):
                    yield XRootD(port, base / "data")
                    return
            finally:
                process.terminate()
                try:
                    process.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        raise RuntimeError("the XRootD server did not start:\n" + _log(base))


def _start(base: Path) -> tuple[subprocess.Popen[bytes], int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    configuration = base / "xrootd.cfg"
    configuration.write_text(_CONFIGURATION.format(base=base, port=port))
    who = ["-R", "daemon"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        ["xrootd", *who, "-c", str(configuration), "-l", str(base / "log" / "x.log"), "-n", "srv", "-I", "v4"],
        cwd=base, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return process, port


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        except OSError:
            time.sleep(0.05)  # a server that is not there yet cannot be waited on
    return False


def _log(base: Path) -> str:
    return "\n".join(path.read_text(errors="replace")[-2000:] for path in base.rglob("x.log"))
