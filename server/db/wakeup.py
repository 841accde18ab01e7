"""The bell: tells the daemon that there is work, so that nothing waits for its period.

On one machine it is a datagram to a Unix socket in the data directory. It is a hint and no more: a message that is
lost costs the daemon's period, never the work.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

#: A Unix socket's path has at most 107 bytes and a closing zero (unix(7)).
_PATH_LIMIT = 107
#: Longest message, in bytes: the name of a script.
_MESSAGE = 64


class Bell(Protocol):
    """Something that can wake a daemon."""

    def ring(self, script: str) -> None:
        """Ask for a script of the daemon to be run now. Never waits and never raises."""

    def close(self) -> None:
        """Give back what it needs to ring."""


class SocketBell:
    """Rings by a datagram. Threads may share it."""

    def __init__(self, data: Path) -> None:
        self._path = _socket_path(data)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def ring(self, script: str) -> None:
        with self._lock, contextlib.suppress(OSError):  # no daemon, or one that is busy enough: its period will do
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._socket.sendto(script.encode(), self._path)

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None


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
