"""Archives of output files: zip or tar, without compression, written beside their name and renamed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from pilot.util.filehandling import Cancelled

# Read size (bytes): the order to stop is looked at after each block.
_BLOCK = 1024 * 1024
# What an archive needs beside its members (bytes): two headers with a name of up to 255 bytes for each, and its end.
_OVERHEAD_MEMBER, _OVERHEAD = 2048, 65536


def size_of(members: Mapping[str, Path]) -> int:
    """At most so many bytes will an archive of these files have. Raises OSError."""
    return sum(path.stat().st_size + _OVERHEAD_MEMBER for path in members.values()) + _OVERHEAD


def pack(target: Path, members: Mapping[str, Path], *, tar: bool, cancelled: Callable[[], bool]) -> None:
    """Pack files into an archive, in their order, under the names given. What is at `target` is replaced.

    Raises OSError, or Cancelled between two blocks when `cancelled()` says so; then nothing is left of it.
    """
    beside = target.with_name(f".{target.name[:200]}.{uuid.uuid4().hex[:8]}.part")
    try:
        (_tar if tar else _zip)(beside, members, cancelled)
        beside.replace(target)
    finally:
        with suppress(OSError):
            beside.unlink()


def _zip(target: Path, members: Mapping[str, Path], cancelled: Callable[[], bool]) -> None:
    # Needed by few jobs, and memory for all: as with tarfile, below and in pilot.util.filehandling.
    import zipfile

    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as archive:
        for name, path in members.items():
            # A payload may give a file any time; zip knows none before 1980.
            member = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with path.open("rb") as source, archive.open(member, "w") as sink:
                _copy(source, sink, cancelled)


def _tar(target: Path, members: Mapping[str, Path], cancelled: Callable[[], bool]) -> None:
    import tarfile

    with tarfile.open(target, "x") as archive:
        for name, path in members.items():
            # Made by hand: owners and links of this node mean nothing elsewhere.
            member = tarfile.TarInfo(name)
            facts = path.stat()
            member.size, member.mtime, member.mode = facts.st_size, int(facts.st_mtime), facts.st_mode & 0o777
            with path.open("rb") as source:
                archive.addfile(member, _Watched(source, cancelled))


def _copy(source: IO[bytes], sink: IO[bytes], cancelled: Callable[[], bool]) -> None:
    for block in iter(lambda: source.read(_BLOCK), b""):
        if cancelled():
            raise Cancelled
        sink.write(block)


class _Watched:
    """A file that stops being read when it is told to."""

    def __init__(self, source: IO[bytes], cancelled: Callable[[], bool]) -> None:
        self._source = source
        self._cancelled = cancelled

    def read(self, size: int = -1) -> bytes:
        if self._cancelled():
            raise Cancelled
        return self._source.read(size)
