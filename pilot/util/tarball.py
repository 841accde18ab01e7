"""The log tarball: what a job has left in its directory, clean, bounded, and without anybody's secrets.

The payload has chosen what lies there, so nothing is taken for granted: only plain files go in, opened so that no link
is followed and no pipe is waited for, with flat memory. What is cut or left out is listed in the tarball, with why.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import LogFileCreationFailure, PilotException
from pilot.util.blot import Secrets
from pilot.util.filehandling import open_descriptor, remove_tree

if TYPE_CHECKING:
    from tarfile import TarFile

# The member that lists what is not in the tarball, or not as a whole.
LEFT_OUT = "pilot_left_out.txt"
# More lines of it than this help nobody; the rest is counted.
_MOST_LINES = 1000
# Directories below directories: deeper ones are a mistake of a program, or an attack on those that walk through them.
_DEEPEST = 60
# Read size (bytes): large enough that looking for secrets around each piece costs nothing beside the piece.
_BLOCK = 1024 * 1024
# A private key is looked for in the beginning of a file (bytes): files of credentials are small.
_HEAD = 65536
# What a member costs besides its contents (bytes): its header, its name in another one, and padding.
_MEMBER = 2048
# Of what is added, so much (bytes) goes even on a disk that has no room for more.
_LEAST_EXTRA = 65536
# The type of an ELF file (its bytes 16 and 17, in the machine's own order) that is a core dump.
_ELF, _ET_CORE = b"\x7fELF", (b"\x04\x00", b"\x00\x04")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# Ways in which one file cannot be had that say all there is to say.
_GONE = (errno.ENOENT, errno.ESTALE)


@dataclass(frozen=True)
class Content:
    """What goes into a tarball.

    directory: what is packed. skip: names directly in it that are left out and not listed; first: those that go in
    before others. extra: further members (name, contents). whole: paths of core dumps, relative to the directory, that
    are to be in it; others are not. secrets: what becomes asterisks in all files.
    """

    directory: Path
    skip: Collection[str] = ()
    first: Sequence[str] = ()
    extra: Sequence[tuple[str, bytes]] = ()
    whole: Collection[str] = ()
    secrets: Secrets = field(default_factory=Secrets)


@dataclass(frozen=True)
class Bounds:
    """level: of gzip, 1 to 9. file: larger files (bytes) are cut to their first and last half. total: contents of all
    files together (bytes); files: how many there may be.
    """

    level: int
    file: int
    total: int
    files: int


def tar_directory(content: Content, tarball: Path, root: str, bounds: Bounds) -> list[str]:
    """Make a compressed tarball of a directory, its files below the name `root`; return what is left out or cut.

    Only plain files go in: links could lead out of the directory, sockets, pipes and devices hold nothing. When the
    disk is full, the members of `extra` go alone, and if need be their ends.

    Raises LogFileCreationFailure, or PilotException(NOLOCALSPACE) when there is no room for anything.
    """
    # A megabyte that is only needed once the payload has ended.
    import tarfile

    def made(whole: bool) -> list[str]:
        with tarfile.open(beside, "x:gz", compresslevel=bounds.level) as archive:
            archive.copybufsize = _BLOCK  # type: ignore[attr-defined]  # an argument that the stubs do not know
            return _Packing(archive, content, root, bounds, (tarball.name, beside.name)).pack(whole=whole)

    beside = tarball.with_name(f".{tarball.name[:200]}.part")
    try:
        _make_room_for(beside)
        _make_room_for(tarball)
        try:
            lines = made(whole=True)
        except OSError as exc:
            if exc.errno not in _NO_SPACE:
                raise
            _make_room_for(beside)
            lines = made(whole=False)
        beside.replace(tarball)
    except OSError as exc:
        with suppress(OSError):
            beside.unlink()
        if exc.errno in _NO_SPACE:
            raise PilotException(f"no space for the log tarball {tarball}", code=ErrorCodes.NOLOCALSPACE) from exc
        raise LogFileCreationFailure(f"log tarball {tarball} cannot be made: {exc}") from exc
    return lines


def is_core(head: bytes) -> bool:
    """Whether a file that begins like this is a core dump (ELF)."""
    return head.startswith(_ELF) and head[16:18] in _ET_CORE


def _make_room_for(path: Path) -> None:
    """Whatever the payload has put there: a link's target is not ours to write, and a directory takes no file's place.

    Raises OSError.
    """
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


class _Packing:
    """Fills one archive. own: names of the tarball itself."""

    def __init__(self, archive: TarFile, content: Content, root: str, bounds: Bounds, own: Sequence[str]) -> None:
        self._archive = archive
        self._content = content
        self._skip = {*content.skip, *own}
        self._root = root
        self._bounds = bounds
        self._room = bounds.total
        self._files_left = bounds.files
        self._lines: list[str] = []
        self._untold = 0

    def pack(self, *, whole: bool) -> list[str]:
        """Add everything, or only the ends of what is extra; return what is left out."""
        for name, contents in self._content.extra:
            self._add(name, contents if whole else contents[-_LEAST_EXTRA:])
        if whole:
            for path, name in self._walk():
                self._add_file(path, name)
        else:
            self._leave_out("everything but the pilot's log", "the disk is full")
        if self._untold:
            self._lines.append(f"and {self._untold} more")
        if self._lines:
            self._add(LEFT_OUT, "".join(f"{line}\n" for line in self._lines).encode("utf-8", "backslashreplace"))
        return self._lines

    def _walk(self) -> Iterator[tuple[str, str]]:
        """Plain files by path and name in the tarball, those of a directory before those of the ones below it."""
        folders = [(str(self._content.directory), "")]
        while folders:
            folder, inside = folders.pop(0)
            below: list[tuple[str, str]] = []
            for entry in self._entries(folder, inside):
                name = os.path.join(inside, entry.name)
                if not inside and entry.name in self._skip:
                    continue
                try:
                    mode = entry.stat(follow_symlinks=False).st_mode
                except OSError as exc:
                    self._leave_out(name, _why(exc))
                    continue
                if stat.S_ISDIR(mode):
                    below.append((entry.path, name))
                elif stat.S_ISREG(mode):
                    yield entry.path, name
                else:
                    self._leave_out(name, "a link" if stat.S_ISLNK(mode) else "a socket, pipe or device")
            folders[:0] = below

    def _entries(self, folder: str, inside: str) -> list[os.DirEntry[str]]:
        """What is in a directory, sorted, and no more of it than can go in."""
        if inside.count(os.sep) >= _DEEPEST:
            self._leave_out(inside, f"a directory below {_DEEPEST} others")
            return []
        try:
            with os.scandir(folder) as entries:
                found = list(islice(entries, self._bounds.files + len(self._skip) + 1))
                if next(entries, None) is not None:
                    text = f"it has more than {self._bounds.files} entries, and not all were looked at"
                    self._leave_out(inside or ".", text)
        except OSError as exc:
            self._leave_out(inside or ".", _why(exc))
            return []
        ahead = {name: place for place, name in enumerate(self._content.first)} if not inside else {}
        return sorted(found, key=lambda entry: (ahead.get(entry.name, len(ahead)), entry.name))

    def _add_file(self, path: str, name: str) -> None:
        try:
            # A pipe may have taken the file's place since, or a link.
            descriptor = open_descriptor(path)
        except OSError as exc:
            self._leave_out(name, _why(exc))
            return
        try:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode):
                self._add_open_file(descriptor, name, found)
        finally:
            os.close(descriptor)

    def _add_open_file(self, descriptor: int, name: str, found: os.stat_result) -> None:
        size, limit = found.st_size, self._bounds.file
        try:
            head = os.pread(descriptor, _HEAD, 0)
        except OSError as exc:
            self._leave_out(name, _why(exc))
            return
        core = is_core(head)
        cut = size > limit
        needed = min(size, limit) + _MEMBER
        reason = (
            "it holds a private key" if b"PRIVATE KEY-----" in head
            else "a core dump" if core and (name not in self._content.whole or cut)
            else "there are too many files" if self._files_left <= 0
            else f"the tarball would be too large: {size} bytes" if needed > self._room
            else ""
        )  # fmt: skip
        if reason:
            self._leave_out(name, reason)
            return
        self._files_left -= 1
        source = _Masked(descriptor, self._content.secrets)
        if cut:
            half = limit // 2
            mark = f"\n[... {size - 2 * half} bytes left out by the pilot ...]\n".encode()
            source.pieces = [(0, half), mark, (size - half, half)]
            self._leave_out(name, f"only its first and last {half} bytes: it has {size}")
            size = 2 * half + len(mark)
        else:
            source.pieces = [(0, size)]
        self._write(name, size, found.st_mtime, found.st_mode, source)
        if source.lost:
            self._leave_out(name, f"{source.lost} bytes of it could not be read, and are blanks")

    def _add(self, name: str, contents: bytes) -> None:
        self._write(name, len(contents), time.time(), 0o644, BytesIO(contents))

    def _write(self, name: str, size: int, mtime: float, mode: int, source: IO[bytes] | _Masked) -> None:
        """One member. Its owner is left out: names and numbers of this node mean nothing elsewhere."""
        from tarfile import TarInfo

        # A payload may call a file like a secret, too.
        masked = os.fsdecode(self._content.secrets.mask(os.fsencode(name)))
        member = TarInfo(os.path.join(self._root, masked))
        member.size, member.mtime, member.mode = size, int(mtime), stat.S_IMODE(mode)
        self._archive.addfile(member, source)  # type: ignore[arg-type]  # all that is asked of it is read(size)
        # The archive would remember every member to the end.
        self._archive.members.clear()  # type: ignore[attr-defined]  # as the library's manual has it for many members
        self._room -= size + _MEMBER

    def _leave_out(self, name: str, why: str) -> None:
        if len(self._lines) >= _MOST_LINES:
            self._untold += 1
            return
        name = self._content.secrets.blot(name)[:500]
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
        self._lines.append(f"{shown}: {why}")


class _Masked:
    """Pieces of an open file (position, size) and texts, read one after the other to exactly those sizes, with the
    secrets in them masked wherever a read begins and ends.

    A log that still grows or was cut meanwhile must not spoil the tarball: missing bytes are blanks. lost: how many of
    them there are.
    """

    def __init__(self, descriptor: int, secrets: Secrets) -> None:
        self._descriptor = descriptor
        self._secrets = secrets
        self._reach = secrets.reach
        self.pieces: list[tuple[int, int] | bytes] = []
        self.lost = 0

    def read(self, size: int) -> bytes:
        """The next bytes."""
        found = b""
        while self.pieces and len(found) < size:
            piece, wanted = self.pieces.pop(0), size - len(found)
            if isinstance(piece, bytes):
                found += piece[:wanted]
                left: tuple[int, int] | bytes | None = piece[wanted:] or None
            else:
                position, length = piece
                wanted = min(wanted, length)
                found += self._block(position, wanted)
                left = (position + wanted, length - wanted) if wanted < length else None
            if left is not None:
                self.pieces.insert(0, left)
        return found

    def _block(self, position: int, size: int) -> bytes:
        begin = max(0, position - self._reach)
        data = self._secrets.mask(self._pread(begin, position + size + self._reach - begin))
        block = data[position - begin : position - begin + size]
        self.lost += size - len(block)
        return block + b" " * (size - len(block))

    def _pread(self, position: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            try:
                part = os.pread(self._descriptor, size, position)
            except OSError:
                break
            if not part:
                break
            parts.append(part)
            position, size = position + len(part), size - len(part)
        return b"".join(parts)


def _why(exc: OSError) -> str:
    if exc.errno in _GONE:
        return "it has vanished"
    return f"it cannot be read: {exc.strerror}"
