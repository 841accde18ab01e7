"""The bell: tells the daemon that there is work, so that nothing waits for its period.

On one machine it is a datagram to a Unix socket in the data directory. It is a hint and no more: a message that is
lost costs the daemon's period, never the work.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
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
        self._path = _socket_path(data)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self._path)
        os.chmod(self._path, 0o600)
        self._inode = os.stat(self._path).st_ino

    def fileno(self) -> int:
        """For select()."""
        return self._socket.fileno()

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
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)


def _socket_path(data: Path) -> str:
    """Where the socket of a data directory is: inside it, or in /tmp by its hash if the path is too long for that."""
    path = str(data / "daemon.sock")
    if len(os.fsencode(path)) <= _PATH_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:20]
    # Not tempfile.gettempdir(): TMPDIR may be as long as the path that did not fit.
    return f"/tmp/pilotkit-{os.getuid()}-{digest}.sock"
