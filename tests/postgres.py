"""A real PostgreSQL for tests: a cluster of its own in a folder of its own, on loopback, for the time of a block."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from tests.components import PATIENCE, listens, missing, running_daemon

# The Debian package; .ci/suite.py installs it where it may.
PACKAGE = "postgresql-15"
PROGRAMS = Path("/usr/lib/postgresql/15/bin")
# It refuses to run as root: then it is "nobody", on every system that tests run on.
_UID = 65534
# No disk is lost when a process is killed, so nothing needs to be forced there; background work would only be noise.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "autovacuum": "off",
    "max_parallel_workers": "0",
    "shared_buffers": "32MB",
    "log_min_messages": "fatal",
}


@dataclass(frozen=True)
class Postgres:
    """A server that answers whoever asks from this machine.

    port: its port.
    data: its data directory.
    command: what starts it.
    """

    port: int
    data: Path
    command: Sequence[str | os.PathLike[str]]
    _successors: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Make an empty database; its URL."""
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        return self.url(database)

    def has(self, database: str) -> bool:
        """Whether there is a database."""
        with self.connect() as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database])
            return found.fetchone() is not None

    @contextmanager
    def connect(self, database: str = "postgres") -> Iterator[psycopg.Connection]:
        """A connection without transactions, for the time of a block."""
        connection = psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            dbname=database,
            autocommit=True,
            connect_timeout=PATIENCE,
        )
        try:
            yield connection
        finally:
            connection.close()

    def crash(self) -> None:
        """End its first process with kill -9, start another on what is on disk, and wait until that one answers.

        What only the first one's memory had is lost: transactions that were not told to be on disk.
        """
        first = self.pid()
        os.kill(first, signal.SIGKILL)
        with suppress(ChildProcessError):  # waited for by a Popen meanwhile
            os.waitpid(first, 0)
        deadline = time.monotonic() + PATIENCE
        while True:  # its other processes leave by themselves, and until they have nobody else may start
            process = subprocess.Popen(
                self.command, cwd=self.data.parent, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            if listens(process, self.port):
                self._successors.append(process)
                break
            process.wait()
            assert time.monotonic() < deadline, "PostgreSQL does not start again"
        _wait_for(self)

    def pid(self) -> int:
        """Of its first process."""
        return int((self.data / "postmaster.pid").read_text().split("\n")[0])

    def end(self) -> None:
        """Ask for the fast shutdown, and wait for what `crash` has started.

        TERM, which ends every server of the tests, would wait until the last client has left.
        """
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self.pid(), signal.SIGINT)
        for process in self._successors:
            process.wait(PATIENCE)

    def backends(self, database: str) -> list[int]:
        """The pids of the processes that serve the clients of a database, those at work first."""
        with self.connect() as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = %s ORDER BY state = 'active' DESC, pid", [database]
            )
            return [int(row[0]) for row in rows]


def is_installed() -> bool:
    """Whether the programs of the Debian package are there."""
    return (PROGRAMS / "postgres").exists() and (PROGRAMS / "initdb").exists()


def require_postgres() -> None:
    """Skip unless PostgreSQL is installed, or fail where CI=true."""
    if not is_installed():
        missing("PostgreSQL 15 is", f"Debian: apt-get install {PACKAGE}")


@contextmanager
def running_postgres(settings: Mapping[str, str] | None = None) -> Iterator[Postgres]:
    """A server for the time of a block; ended by its pid, with all that is connected to it.

    Args:
        settings: of its own, in place of those of tests; None leaves them.
    """
    # Its own folder in /tmp: another user must get there.
    with tempfile.TemporaryDirectory(prefix="pilotkit-postgres-", dir="/tmp") as place:
        folder = Path(place)
        if os.geteuid() == 0:
            os.chown(folder, _UID, _UID)
        data = folder / "data"
        options = ["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run(
            [*_as_nobody(), PROGRAMS / "initdb", "-D", data, *options],
            cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
        )  # fmt: skip
        if made.returncode != 0:
            raise RuntimeError(f"PostgreSQL's initdb failed:\n{made.stdout}{made.stderr}")
        chosen = {**_SETTINGS, **(settings or {})}.items()
        arguments = [part for name, value in chosen for part in ("-c", f"{name}={value}")]

        def command(port: int) -> Sequence[str | os.PathLike[str]]:
            return [*_as_nobody(), PROGRAMS / "postgres", "-D", data, "-p", str(port), *arguments]

        with running_daemon("PostgreSQL", command, folder) as port:
            server = Postgres(port, data, command(port))
            try:
                _wait_for(server)
                yield server
            finally:
                server.end()


def _as_nobody() -> list[str]:
    """What a command begins with to be run by an ordinary user; setpriv becomes the command and keeps its pid."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        missing("setpriv is", "Debian: apt-get install util-linux")
    return ["setpriv", f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups"]


def _wait_for(server: Postgres) -> None:
    """It listens before it is ready, and tells nobody when that is over."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with server.connect():
                return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)
