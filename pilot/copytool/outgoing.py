"""A file on its way out over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pilot.util.filehandling import Checksum

# Read size (bytes): progress and an order to stop are looked at between two reads.
BLOCK = 128 * 1024


class Outgoing:
    """A file as requests wants it: with a length, and with its checksum computed while it is read."""

    def __init__(self, path: Path, algorithm: str) -> None:
        self._size = path.stat().st_size
        self._stream = path.open("rb")
        self._algorithm = algorithm
        self.checksum = Checksum(algorithm)
        self.moved = 0

    def __enter__(self) -> Outgoing:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        """requests takes what can be iterated over for a stream, and then rewinds it for another server."""
        return iter(lambda: self.read(BLOCK), b"")

    def read(self, size: int = -1) -> bytes:
        """The next bytes, never more than the file had when it was opened."""
        left = self._size - self.moved
        block = self._stream.read(left if size < 0 else min(size, left))
        self.checksum.update(block)
        self.moved += len(block)
        return block

    def tell(self) -> int:
        """requests notes the position, to come back to it when it is sent to another server."""
        return self.moved

    def seek(self, position: int, whence: int = 0) -> int:
        """Only back to the beginning."""
        if position or whence:
            raise OSError(f"an upload cannot go on at {position}")
        self._stream.seek(0)
        self.checksum, self.moved = Checksum(self._algorithm), 0
        return 0
