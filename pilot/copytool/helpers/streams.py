"""Files as the libraries of object stores want them: counted and summed while their bytes go by."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from pilot.copytool.helpers.channel import Moved
from pilot.util.filehandling import Checksum

# Bytes read at a time where a file is read for its checksum alone.
_BLOCK = 1024 * 1024


class Sum(Protocol):
    """A running checksum."""

    def update(self, block: bytes, /) -> object: ...


class Sink:
    """A new file that is written once, from its beginning to its end. sums: get every byte."""

    def __init__(self, path: str, sums: Sequence[Sum], moved: Moved) -> None:
        self._stream = open(path, "xb", buffering=0)  # noqa: SIM115  # closed by __exit__
        self._sums, self._moved = sums, moved
        self.size = 0

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: object, trace: TracebackType | None) -> None:
        with self._stream:
            if kind is None:
                os.fsync(self._stream.fileno())

    def write(self, block: bytes) -> int:
        """Take the next bytes, all of them."""
        left = memoryview(block)
        while left:
            left = left[self._stream.write(left) :]
        for one in self._sums:
            one.update(block)
        self.size += len(block)
        self._moved(self.size)
        return len(block)


class Source:
    """A piece of a file for an upload. sums: get every byte once, however often it is read.

    Libraries read a piece twice when they sign it, and go back to its beginning when they send it again.
    """

    def __init__(self, path: str, start: int, size: int, sums: Sequence[Sum], moved: Moved) -> None:
        self._stream = open(path, "rb", buffering=0)  # noqa: SIM115  # closed by __exit__
        self._start, self._size, self._sums, self._moved = start, size, sums, moved
        self._position = self._summed = self._read = 0

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        """The next bytes of the piece."""
        left = max(0, self._size - self._position)
        block = os.pread(self._stream.fileno(), left if size < 0 else min(size, left), self._start + self._position)
        fresh = block[max(0, self._summed - self._position) :]
        if fresh:
            for one in self._sums:
                one.update(fresh)
        self._position += len(block)
        self._summed = max(self._summed, self._position)
        self._read += len(block)
        self._moved(self._start + self._read)
        return block

    def tell(self) -> int:
        """The position in the piece."""
        return self._position

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Go to another position of what was read already, or to the end to see how long it is."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + position
        return self._position

    def seekable(self) -> bool:
        """Some libraries ask before they try."""
        return True


def checksum_of(path: str, algorithm: str, moved: Moved) -> tuple[int, str]:
    """Size and checksum of a file, with its progress."""
    checksum, size = Checksum(algorithm), os.stat(path).st_size
    with Source(path, 0, size, [checksum], moved) as source:
        while source.read(_BLOCK):
            pass
    return size, checksum.value
