"""Files that say which process has something: a locked file with its number in it.

The lock is POSIX's: it belongs to one process, not to children that inherit the descriptor, and goes with the process
however it ends. So a number in a file that nobody has locked is an old one, and says nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

#: s between two looks at a lock.
_LOOK_AGAIN = 0.05


class Held(Exception):
    """Another process has it.

    Attributes:
        pid: its number; 0 if it has not written it yet.
    """

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(f"{path} is held by pid {pid or 'unknown'}")
        self.pid = pid


class Unusable(Exception):
    """The file cannot be written, or its file system has no locks; the text names it."""


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold a file for the time of a block, with this process's number in it; it stays there afterwards, unlocked.

    Raises:
        Held: another process has it.
        Unusable: it cannot be made or locked.
    """
    descriptor = _open(path, os.O_RDWR | os.O_CREAT)
    try:
        if not _lock(descriptor, path):
            raise Held(path, _number_in(descriptor))
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def holder_of(path: Path) -> int | None:
    """The number of the process that has a file (0 if it has not written it yet), or None if nobody has.

    Raises:
        Unusable: the file is there and cannot be looked at.
    """
    if not path.exists():
        return None
    descriptor = _open(path, os.O_RDWR)
    try:
        return None if _lock(descriptor, path) else _number_in(descriptor)
    finally:
        os.close(descriptor)


def wait_until_free(path: Path, patience: float) -> bool:
    """Wait until nobody has a file any more, for at most `patience` s; whether that is so."""
    until = time.monotonic() + patience
    while holder_of(path) is not None:
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_AGAIN)  # there is nothing to wait on: a lock does not tell when it becomes free
    return True


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror}.") from error


def _lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise Unusable(f"{path} cannot be locked: {error.strerror}.") from error
        return False
    return True


def _number_in(descriptor: int) -> int:
    text = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else 0
