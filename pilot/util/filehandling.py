"""Files: checksums in one pass, atomic writes, copies that are verified while they are made, and the log tarball."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Callable

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import FileHandlingFailure, LogFileCreationFailure, PilotException
from pilot.util.adler import Stopped, adler32_of
from pilot.util.lazynames import lazily

if TYPE_CHECKING:
    from tarfile import TarFile

    from pilot.util.filesearch import *  # noqa: F403
    from pilot.util.filetools import *  # noqa: F403
    from pilot.util.https import Json
    from pilot.util.tables import *  # noqa: F403
else:
    __getattr__ = lazily(__name__, "pilot.util.filetools", "pilot.util.filesearch", "pilot.util.tables")

# Read size (bytes): large enough that the system call costs nothing beside the checksum, small enough to stay in cache.
_BLOCK = 1024 * 1024
ADLER32, MD5 = "adler32", "md5"
CHECKSUM_TYPES = (ADLER32, MD5)
# What else the field calls them.
_CHECKSUM_NAMES = {"adler": ADLER32, "ad32": ADLER32, "ad": ADLER32, "md5sum": MD5, "md": MD5}


class UnknownChecksumType(PilotException, NotImplementedError):
    """A checksum of another kind than adler32 and md5 is asked for; documented as Python's own exception."""

    default_code = ErrorCodes.UNKNOWNCHECKSUMTYPE


class Checksum:
    """A running checksum: feed it blocks, read its value as lower-case hexadecimal text (8 digits adler32, 32 md5)."""

    def __init__(self, algorithm: str = ADLER32) -> None:
        """Raises UnknownChecksumType for anything but adler32 and md5."""
        if algorithm not in CHECKSUM_TYPES:
            raise UnknownChecksumType(f"checksum type '{algorithm}' is not known")
        self.algorithm = algorithm
        self._adler = 1
        # Not for security: storage systems of the field use it to find damaged files.
        self._md5 = hashlib.md5(usedforsecurity=False) if algorithm == MD5 else None

    def update(self, block: bytes) -> None:
        """Take the next bytes of the file."""
        if self._md5 is not None:
            self._md5.update(block)
        else:
            self._adler = zlib.adler32(block, self._adler)

    @property
    def value(self) -> str:
        """The checksum of all bytes so far."""
        return self._md5.hexdigest() if self._md5 is not None else f"{self._adler & 0xFFFFFFFF:08x}"


def calculate_checksum(filename: str, algorithm: str = ADLER32) -> str:
    """Checksum of a file. algorithm: adler32 (adler, ad32, ad) or md5 (md5sum, md).

    Raises FileHandlingFailure when it cannot be read, UnknownChecksumType.
    """
    try:
        return checksum_of(Path(filename), _CHECKSUM_NAMES.get(algorithm, algorithm), lambda: False).checksum
    except OSError as exc:
        raise FileHandlingFailure(f"{filename} cannot be read for its checksum: {exc.strerror}") from exc


@dataclass(frozen=True)
class Copied:
    """What a copy has moved: bytes, and the checksum computed on the way."""

    size: int
    checksum: str


class Cancelled(Exception):
    """The copy was stopped on request."""


def copy_with_checksum(source: Path, target: Path, algorithm: str, cancelled: Callable[[], bool]) -> Copied:
    """Copy a file and compute its checksum in the same pass. The target must not exist.

    Raises OSError, or Cancelled between two blocks when `cancelled()` says so. The target is left to the caller, who
    knows whether it is of any use.
    """
    checksum = Checksum(algorithm)
    size = 0
    with source.open("rb") as reader, target.open("xb") as writer:
        for block in iter(lambda: reader.read(_BLOCK), b""):
            if cancelled():
                raise Cancelled
            checksum.update(block)
            writer.write(block)
            size += len(block)
        writer.flush()
        os.fsync(writer.fileno())
    return Copied(size, checksum.value)


def checksum_of(path: Path, algorithm: str, cancelled: Callable[[], bool]) -> Copied:
    """Size and checksum of a file that is not copied. Raises OSError, or Cancelled."""
    checksum = Checksum(algorithm)
    if algorithm == ADLER32:
        try:
            size, value = adler32_of(path, cancelled)
        except Stopped:
            raise Cancelled from None
        return Copied(size, f"{value:08x}")
    size = 0
    with path.open("rb") as reader:
        for block in iter(lambda: reader.read(_BLOCK), b""):
            if cancelled():
                raise Cancelled
            checksum.update(block)
            size += len(block)
    return Copied(size, checksum.value)


def write_atomically(path: Path, contents: bytes) -> None:
    """Write a file so that readers see the old or the new one, never half. Raises OSError."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        beside.write_bytes(contents)
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink()


def write_secret(path: Path, contents: bytes) -> None:
    """Write a file that only its owner can read, as write_atomically does, and on disk before it has its name.

    Raises OSError.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(contents)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink()


def write_json(
    filename: str,
    data: Json,
    sort_keys: bool = True,
    indent: int = 4,
    separators: tuple[str, str] = (",", ": "),
) -> bool:
    """Write data as JSON, atomically; True when it is done. Raises FileHandlingFailure."""
    try:
        text = json.dumps(data, indent=indent, sort_keys=sort_keys, separators=separators)
        write_atomically(Path(filename), text.encode())
    except (OSError, TypeError, ValueError) as exc:
        raise FileHandlingFailure(f"{filename} cannot be written: {exc}") from exc
    return True


def read_json(filename: str) -> Json:
    """Read a JSON file.

    Raises FileHandlingFailure when it cannot be read, or is no JSON.
    """
    # Helpers of copytools use this module under Pythons that have no requests.
    from pilot.util.https import parse_json

    try:
        return parse_json(Path(filename).read_bytes())
    except OSError as exc:
        raise FileHandlingFailure(f"{filename} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise FileHandlingFailure(f"{filename} is not valid JSON: {exc}") from exc


def tail_bytes(path: Path, size: int) -> bytes:
    """The last `size` bytes of a file; empty when there is no such file."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - size))
            return stream.read(size)
    except OSError:
        return b""


def is_made(path: Path) -> bool:
    """Whether a file is there and holds something."""
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def get_guid() -> str:
    """A new GUID in the field's form: upper case, with hyphens."""
    return str(uuid.uuid4()).upper()


def directory_size(path: Path) -> int:
    """Bytes on disk below a directory, links not followed; files that vanish meanwhile do not count."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def try_lock(path: Path) -> IO[str] | None:
    """The file, opened and locked until it is closed; None when another process has the lock or it cannot be opened.

    The kernel gives the lock back however its owner ends.
    """
    try:
        stream = path.open("a", encoding="utf-8")
    except OSError:
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        return None
    return stream


def remove_tree(path: Path) -> str | None:
    """Remove a directory with all that is in it; return what stood in the way, or None."""
    if path.is_symlink():
        return f"{path}: it is a link, and what it leads to may not be ours"
    shutil.rmtree(path, ignore_errors=True)
    if not os.path.lexists(path):
        return None
    # A payload may have taken its directories' permissions away. What is above the tree is not ours to change.
    with suppress(OSError):
        path.chmod(0o700)
    for folder, folders, _ in os.walk(path):
        for name in folders:
            below = Path(folder, name)
            with suppress(OSError):
                if not below.is_symlink():
                    below.chmod(0o700)
    problems: list[str] = []

    def note(_: object, name: str, error: tuple[object, BaseException, object]) -> None:
        problems.append(f"{name}: {getattr(error[1], 'strerror', error[1])}")

    shutil.rmtree(path, onerror=note)
    return problems[0] if problems else None


def tar_directory(
    directory: Path,
    tarball: Path,
    root: str,
    *,
    skip: Iterable[str],
    extra: Iterable[tuple[str, bytes]],
    level: int,
    limit: int,
) -> None:
    """Make a compressed tarball of a directory.

    directory: what is packed, below the name `root`; skip: names directly in it that are left out; extra: further
    members (name, contents); level: gzip level; limit: files larger than this (bytes) are cut to their first and last
    half. Only plain files and directories go in: links could point out of the directory, sockets and pipes hold
    nothing. Raises LogFileCreationFailure, or PilotException(NOLOCALSPACE) on a full disk.
    """
    # A megabyte that is only needed once the payload has ended.
    import tarfile

    left_out = set(skip)
    beside = tarball.with_name(f".{tarball.name}.part")
    try:
        # The payload may have put a link there, and what it leads to is not ours to write.
        with suppress(FileNotFoundError):
            beside.unlink()
        with tarfile.open(beside, "x:gz", compresslevel=level) as archive:
            for folder, folders, names in os.walk(directory):
                inside = os.path.relpath(folder, directory)
                if inside == ".":
                    names = [name for name in names if name not in left_out and not name.startswith(f".{tarball.name}")]
                    folders[:] = [name for name in folders if name not in left_out]
                for name in sorted(names):
                    _add_file(archive, Path(folder, name), os.path.normpath(os.path.join(root, inside, name)), limit)
            for name, contents in extra:
                member = tarfile.TarInfo(os.path.join(root, name))
                member.size = len(contents)
                member.mode = 0o644
                member.mtime = int(time.time())
                archive.addfile(member, BytesIO(contents))
        beside.replace(tarball)
    except OSError as exc:
        with suppress(OSError):
            beside.unlink()
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PilotException(f"no space for the log tarball {tarball}", code=ErrorCodes.NOLOCALSPACE) from exc
        raise LogFileCreationFailure(f"log tarball {tarball} cannot be made: {exc}") from exc


def _add_file(archive: TarFile, path: Path, name: str, limit: int) -> None:
    """Add one plain file; what is no plain file, vanishes or may not be read is left out."""
    if path.is_symlink() or not path.is_file():
        return
    try:
        stream = path.open("rb")
    except OSError:
        return
    with stream:
        member = archive.gettarinfo(arcname=name, fileobj=stream)
        # Owners and numbers of this node mean nothing elsewhere.
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        if member.size > limit:
            half = limit // 2
            cut = f"\n[... {member.size - 2 * half} bytes left out by the pilot ...]\n".encode()
            end = member.size - half
            member.size = 2 * half + len(cut)
            archive.addfile(member, _Steady((stream, 0, half), (BytesIO(cut), 0, len(cut)), (stream, end, half)))
        else:
            archive.addfile(member, _Steady((stream, 0, member.size)))


class _Steady:
    """Pieces of files (file, position, size), read one after the other to exactly those sizes: a log that still grows
    or was cut meanwhile must not spoil the tarball. Missing bytes are blanks."""

    def __init__(self, *pieces: tuple[BinaryIO, int, int]) -> None:
        self._pieces = list(pieces)

    def read(self, size: int = -1) -> bytes:
        found = b""
        while self._pieces and (size < 0 or len(found) < size):
            stream, position, left = self._pieces.pop(0)
            wanted = left if size < 0 else min(size - len(found), left)
            stream.seek(position)
            block = stream.read(wanted)
            found += block + b" " * (wanted - len(block))
            if wanted < left:
                self._pieces.insert(0, (stream, position + wanted, left - wanted))
        return found
