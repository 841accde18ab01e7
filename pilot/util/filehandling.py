"""Files: checksums in one pass, atomic writes, and copies that are verified while they are made."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import stat
import uuid
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Callable

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import FileHandlingFailure, PilotException
from pilot.util.adler import Stopped, adler32_of
from pilot.util.lazynames import lazily

if TYPE_CHECKING:
    from pilot.util.blot import Secrets
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


def open_plain(path: Path) -> IO[bytes]:
    """Open a file that a payload may have replaced: a link is not followed, a pipe not waited for. Raises OSError."""
    descriptor = open_descriptor(path)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return os.fdopen(descriptor, "rb")


def open_descriptor(path: str | Path) -> int:
    """The same for whatever is there, which the caller has to look at. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def tail_bytes(path: Path, size: int) -> bytes:
    """The last `size` bytes of a plain file; empty when there is none, or something else has its name."""
    try:
        with open_plain(path) as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - size))
            return stream.read(size)
    except OSError:
        return b""


def masked_tail(path: Path, size: int, secrets: Secrets) -> bytes:
    """The same without secrets, also without those that the cut goes through."""
    data = tail_bytes(path, size + secrets.reach)
    return secrets.mask(data)[-size:]


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
    for entry in entries_below(path):
        with suppress(OSError):
            total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def entries_below(path: Path) -> Iterator[os.DirEntry[str]]:
    """All that is below a directory but for directories, links not followed; what cannot be read is passed over.

    However deep the tree is: os.walk calls itself for each level, and payloads make trees of thousands.
    """
    folders = [str(path)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield entry


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
    """Remove a directory with all that is in it; return what stood in the way, or None.

    It may be deeper than any path can be long, and its permissions may be taken away. Nothing above it is changed, no
    link is followed, and what is mounted in it stays.
    """
    if path.is_symlink():
        return f"{path}: it is a link, and what it leads to may not be ours"
    problems: list[str] = []
    try:
        path.chmod(0o700)
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _empty(root, problems)
        finally:
            os.close(root)
        path.rmdir()
    except FileNotFoundError:
        return None
    except OSError as exc:
        problems.append(f"{path}: {exc.strerror}")
    return problems[0] if problems else None


def _empty(root: int, problems: list[str]) -> None:
    """Empty an open directory: every directory in it gives its own directories to it, before it goes itself.

    So there is one level at any time, and no path. Raises OSError when `root` cannot be read.
    """
    fresh = (f".{number}" for number in itertools.count())
    device = os.fstat(root).st_dev
    stuck: set[str] = set()
    while True:
        names = [name for name in _clear(root, problems) if name not in stuck]
        if not names:
            return
        for name in names:
            try:
                if os.lstat(name, dir_fd=root).st_dev != device:
                    raise OSError(errno.EBUSY, "something is mounted there")
                os.chmod(name, 0o700, dir_fd=root)
                folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
                try:
                    for below in _clear(folder, problems):
                        os.chmod(below, 0o700, dir_fd=folder)
                        os.rename(below, _unused(root, fresh), src_dir_fd=folder, dst_dir_fd=root)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=root)
            except OSError as exc:
                stuck.add(name)
                problems.append(f"{name}: {exc.strerror}")


def _clear(folder: int, problems: list[str]) -> list[str]:
    """Remove from an open directory all that is no directory; the names of those that are."""
    below: list[str] = []
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if is_directory:
            below.append(name)
            continue
        try:
            os.unlink(name, dir_fd=folder)
        except OSError as exc:
            problems.append(f"{name}: {exc.strerror}")
    return below


def _unused(root: int, fresh: Iterator[str]) -> str:
    """A name that nothing in a directory has."""
    for name in fresh:
        try:
            os.lstat(name, dir_fd=root)
        except FileNotFoundError:
            return name
    raise AssertionError("names do not end")
