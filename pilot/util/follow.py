"""Follows a file that somebody else writes, piece by piece, cut where no secret and no character can be cut in two.

The file itself is the buffer: what is not read yet lies on disk and takes no memory, and what is too much is skipped
and counted. The writer is not trusted: no link is followed, nothing but a plain file below the folder is opened, and
opening never waits.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Pieces end behind one of these, lines where there is one: no URL and no secret in a URL has blanks in it.
_BLANKS = b" \t\r\v\f\n"
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a FIFO in the place of the file would hold the reader for ever.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Piece:
    """Bytes of a file from an offset on, and how many bytes before them were left out."""

    name: str
    offset: int
    data: bytes
    dropped: int = 0


class Follower:
    """One file. root: folder below which it must lie; name: its path in there. For one thread at a time."""

    def __init__(self, root: Path, name: str) -> None:
        """Raises ValueError when the name leads out of the folder."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name:
            raise ValueError(f"'{name}' is not the name of a file below a folder")
        self.name = name
        self._root = root
        self._parts = parts
        self._file = -1
        self._offset = 0
        self._dropped = 0
        # Whether the next bytes are the rest of a word whose beginning was left out.
        self._in_word = False
        self._size_before = -1

    def open(self) -> None:
        """Open the file if it is there and is not open yet; a file that is open is read to its end wherever it goes."""
        if self._file >= 0:
            return
        with suppress(OSError):
            folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for part in self._parts[:-1]:
                    below = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
                    os.close(folder)
                    folder = below
                found = os.open(self._parts[-1], _FILE_FLAGS, dir_fd=folder)
            finally:
                os.close(folder)
            if stat.S_ISREG(os.fstat(found).st_mode):
                self._file = found
            else:
                os.close(found)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, limit: int, backlog: int, *, final: bool = False) -> Piece | None:
        """The next piece, at most `limit` bytes, or None when there is nothing to send yet.

        backlog: of what was written and not read no more than this is kept; older bytes are left out. final: nobody
        writes any more, so that the last word is whole. A line without an end is waited for until the next call.
        """
        self.open()
        if self._file < 0:
            return None
        size = os.fstat(self._file).st_size
        if size < self._offset:  # its writer has begun anew
            self._offset, self._in_word = 0, False
        if size - self._offset > backlog:
            self._leave_out(size - backlog - self._offset)
        data = os.pread(self._file, limit, self._offset)
        if self._in_word:
            data = self._without_rest_of_word(data)
        at_end = self._offset + len(data) >= size
        standing = at_end and size == self._size_before
        self._size_before = size
        length = len(data) if final and at_end else _end_of_piece(data, whole_lines=at_end and not standing)
        if not length and len(data) >= limit:
            # One word as long as a piece: no place to cut it where nothing could be cut in two.
            self._leave_out(len(data))
        if not length:
            return self._rest() if final and at_end else None
        piece = Piece(self.name, self._offset, data[:length], self._dropped)
        self._offset += length
        self._dropped = 0
        return piece

    def unread(self) -> int:
        """Bytes that were written, or left out, and in no piece yet."""
        size = os.fstat(self._file).st_size if self._file >= 0 else 0
        return max(size - self._offset, 0) + self._dropped

    def _rest(self) -> Piece | None:
        """At the end: what tells that something was left out, when nothing comes after it."""
        dropped, self._dropped = self._dropped, 0
        return Piece(self.name, self._offset, b"", dropped) if dropped else None

    def _leave_out(self, count: int) -> None:
        self._offset += count
        self._dropped += count
        self._in_word = True

    def _without_rest_of_word(self, data: bytes) -> bytes:
        """What comes behind the first end of a line, else the first blank; all that is before it is left out too."""
        count = data.find(b"\n") + 1 or next((n for n, sign in enumerate(data, 1) if sign in _BLANKS), 0)
        self._in_word = not count
        count = count or len(data)
        self._offset += count
        self._dropped += count
        return data[count:]


def _end_of_piece(data: bytes, *, whole_lines: bool) -> int:
    """How many bytes make a piece: up to the last end of a line, else to the last blank unless a line is waited for."""
    line = data.rfind(b"\n") + 1
    if line or whole_lines:
        return line
    return max(data.rfind(sign) for sign in (b" ", b"\t", b"\r", b"\v", b"\f")) + 1
