"""What the real servers of the tests have in common: is it there, start on a free port, end by pid, tell why not."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
# s a server may take to listen, and to stop; far more than it needs.
PATIENCE = 30
# A free port may be taken by somebody else before the server has it: outgoing connections use the same range.
_ATTEMPTS = 5
# Bytes of each log that an error shows: its end, which says why.
_SHOWN = 2000


def missing(what: str, advice: str) -> NoReturn:
    """Skip the test, and fail where CI=true promises that everything is there."""
    text = f"{what} not installed ({advice})"
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


def require_programs(programs: Sequence[str], packages: Sequence[str]) -> None:
    """Skip unless all programs are on the PATH, or fail where CI=true."""
    absent = [name for name in programs if shutil.which(name) is None]
    if absent:
        missing(", ".join(absent), f"Debian: apt-get install {' '.join(packages)}")


def environment_of_the_suite(name: str) -> Path:
    """The virtual environment .venvs/NAME that .ci/suite.py makes. Skip if it is not there, or fail where CI=true."""
    directory = ROOT / ".venvs" / name
    if not (directory / ".ready").exists():
        missing(f".venvs/{name} is", "make test makes it")
    return directory


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def running_daemon(
    name: str,
    command: Callable[[int], Sequence[str | os.PathLike[str]]],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """A server for the time of a block, which gets its port; ended by its pid.

    Args:
        name: of the server, for the error.
        command: port -> command that serves there and stays in the foreground.
        folder: its working directory. Its output goes to *.log there, and to every error: so does any other *.log.
        environment: of the command instead of this process's.

    Raises:
        RuntimeError: it does not start; with the end of its logs.
    """
    for _ in range(_ATTEMPTS):
        port = free_port()
        with (folder / "output.log").open("wb") as log:
            process = subprocess.Popen(
                command(port), cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            if listens(process, port):
                yield port
                return
        finally:
            stop(process)
    raise RuntimeError(f"the {name} server did not start:\n{logs(folder)}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process with TERM, or with KILL if it does not obey, and wait for it."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether this very process, and no stranger, comes to listen on the port."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            for connection in psutil.Process(process.pid).net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return True
        time.sleep(0.02)  # a server that is not there yet cannot be waited on
    return False


def logs(folder: Path) -> str:
    """The end of every log below a folder."""
    found = sorted(path for path in folder.rglob("*.log") if path.is_file())
    return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-_SHOWN:]}" for path in found)
