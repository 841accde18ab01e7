"""The bell: tells the daemon that there is work, so that nothing waits for its period.

On one machine it is a datagram to a Unix socket in the data directory. Where no daemon hears it PostgreSQL tells those
of other machines (LISTEN, NOTIFY). It is a hint and no more: a message that is lost costs the daemon's period, never
the work.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from select import select as select_readable
from typing import Protocol

from sqlalchemy import create_engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from server.db.database import LIBPQ, Database, DatabaseUnavailable

logger = logging.getLogger(__name__)

#: A Unix socket's path has at most 107 bytes and a closing zero (unix(7)).
_PATH_LIMIT = 107
#: Longest message, in bytes: the name of a script.
_MESSAGE = 64


#: The channel of PostgreSQL's by which machines hear each other.
_CHANNEL = "pilotkit"
#: The scripts that are rung for; whoever rings for another adds it.
_RUNG = ("add_main", "setupper", "global_shares")
#: s between two looks whether to go on, and until the next try when the database is away.
_PATIENCE = 5.0


class Bell(Protocol):
    """Something that can wake a daemon."""

    def ring(self, script: str) -> None:
        """Ask for a script of the daemon to be run now. Never waits and never raises."""

    def close(self) -> None:
        """Give back what it needs to ring."""


class SocketBell:
    """Rings by a datagram. Threads may share it."""

    def __init__(self, data: Path, elsewhere: Callable[[str], None] | None = None) -> None:
        """Nothing is opened yet.

        Args:
            elsewhere: rings on other machines; asked if nobody listens on this one.
        """
        self._elsewhere = elsewhere
        self._path = _socket_path(data)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def ring(self, script: str) -> None:
        if not self._ring_here(script) and self._elsewhere is not None:
            self._elsewhere(script)

    def _ring_here(self, script: str) -> bool:
        """Whether a daemon of this machine hears it; one that is busy enough does, too: its period will do."""
        with self._lock:
            try:
                if self._socket is None:
                    self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                self._socket.sendto(script.encode(), self._path)
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            except OSError:
                return True
        return True

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None


def notifier(database: Database) -> Callable[[str], None] | None:
    """Rings for the daemons of other machines; None if the database has no way to do that."""
    if database.is_sqlite:
        return None

    def notify(script: str) -> None:
        with contextlib.suppress(DatabaseUnavailable), database.relaxed() as connection:
            connection.execute(select(func.pg_notify(_CHANNEL, script)))

    return notify


def hear_others(url: str, ring: Callable[[str], None], goes_on: Callable[[], bool]) -> None:
    """Hear what is rung on other machines, until `goes_on` says no, which is asked every few seconds.

    After a loss of the connection all that may have been rung meanwhile counts as rung.

    Args:
        url: of a PostgreSQL.
        ring: told the script.
    """
    import psycopg  # it is there where there is a PostgreSQL

    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=LIBPQ)
    missed: tuple[str, ...] = ()
    while goes_on():
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql(f"LISTEN {_CHANNEL}")
                for script in missed:
                    ring(script)
                missed = ()
                driver = connection.connection.driver_connection.pgconn  # type: ignore[union-attr]  # psycopg's
                while goes_on():
                    if select_readable([driver.socket], [], [], _PATIENCE)[0]:
                        driver.consume_input()
                    while (heard := driver.notifies()) is not None:
                        ring(heard.extra.decode(errors="replace"))
        except (DBAPIError, psycopg.Error) as error:
            logger.warning("other machines are not heard for the moment: %s", " ".join(str(error).split()))
            missed = _RUNG
        if goes_on():
            time.sleep(_PATIENCE)  # the database is away, and does not tell when it is back
    engine.dispose()


class SocketEar:
    """The daemon's end: hears what is rung. If several daemons share a data directory the last to start hears it."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._path = _socket_path(data)
        with _alone(data):
            self._bind()

    def _bind(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            made.bind(self._path)
            os.chmod(self._path, 0o600)
            self._inode = os.stat(self._path).st_ino
        except OSError:
            made.close()
            raise
        self._socket = made

    def fileno(self) -> int:
        """For select()."""
        return self._socket.fileno()

    def keep_path(self) -> None:
        """Bind again if somebody removed the path (a cleaner of old files): nobody could ring any more."""
        if self._owner() is None:
            with contextlib.suppress(OSError), _alone(self._data):  # the whole directory may be gone
                if self._owner() is None:
                    lost = self._socket
                    self._bind()
                    lost.close()

    def heard(self) -> set[str]:
        """The scripts that were asked for since the last call; never waits."""
        scripts: set[str] = set()
        while True:
            try:
                scripts.add(self._socket.recv(_MESSAGE).decode(errors="replace"))
            except BlockingIOError:
                return scripts

    def close(self) -> None:
        """Close the socket and remove its name, unless another daemon has taken it over."""
        with contextlib.suppress(OSError), _alone(self._data):
            if self._owner() == self._inode:  # asked while our socket is open: its inode is nobody else's
                os.unlink(self._path)
        self._socket.close()

    def _owner(self) -> int | None:
        """The inode that is at the path now."""
        try:
            return os.stat(self._path).st_ino
        except FileNotFoundError:
            return None


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Keep other daemons of a data directory from changing the path; a lock on the directory leaves no file behind."""
    directory = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _socket_path(data: Path) -> str:
    """Where the socket of a data directory is: inside it, or in /tmp by its hash if the path is too long for that."""
    path = str(data / "daemon.sock")
    if len(os.fsencode(path)) <= _PATH_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:20]
    # Not tempfile.gettempdir(): TMPDIR may be as long as the path that did not fit.
    return f"/tmp/pilotkit-{os.getuid()}-{digest}.sock"
