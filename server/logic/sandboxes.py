"""The sandbox cache: files that users upload and their jobs fetch. Names come from outside: they are checked here."""

from __future__ import annotations

import gzip
import os
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import IO

from server.db import sandboxes
from server.db.sandboxes import CacheFile
from server.logic.context import Context, Identity
from server.logic.errors import BadField, Conflict, NotFound
from server.logic.names import complaint_about_file, shown

#: A name that ends like this may be written again (client.md 1.2).
_OVERWRITABLE = ".__ow__"
#: What a sandbox's name ends with if jobs unpack it.
_ARCHIVES = (".tar.gz", ".tgz")
_CHUNK = 1024 * 1024
#: The last 8 bytes of gzip: CRC32 and size of what was packed, both little-endian (RFC 1952).
_GZIP_FOOTER = 8


def cache_directory(context: Context) -> Path:
    """Where the files lie."""
    return context.settings.data_path() / "cache"


def store_sandbox(
    context: Context, name: str, content: IO[bytes], identity: Identity, *, replaces: bool = False
) -> CacheFile:
    """Store an uploaded file.

    Args:
        replaces: it takes the place of the caller's own file of that name.

    Raises:
        BadField: its name cannot be used, it is too large, or it is not what its name says.
        Conflict: there is another file of that name.
    """
    if complaint := complaint_about_file(name):
        raise BadField("file", f"cannot be stored: {complaint}")
    directory = cache_directory(context)
    directory.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(dir=directory, prefix=".upload-")
    try:
        with os.fdopen(handle, "wb") as file:
            size, checksum = _copy(content, file, context.settings.sandbox_limit)
            os.fsync(file.fileno())
        if name.endswith(_ARCHIVES) and not _is_archive(Path(path)):
            raise BadField("file", f"{shown(name)} is no gzip'd tar archive; make one with `tar czf box.tar.gz FILES`")
        stored = CacheFile(name, identity.name, size, checksum)
        _enter(context, stored, Path(path), directory / name, replaces=replaces)
    finally:
        Path(path).unlink(missing_ok=True)
    return stored


def _copy(content: IO[bytes], file: IO[bytes], limit: int) -> tuple[int, int]:
    """Copy an upload; returns its size and panda-client's checksum of it."""
    size, crc, tail, head = 0, 0, b"", b""
    while chunk := content.read(_CHUNK):
        size += len(chunk)
        if size > limit:
            raise BadField("file", f"is larger than the {limit} bytes allowed here")
        file.write(chunk)
        crc = zlib.crc32(chunk, crc)
        head = head or chunk[:2]
        tail = (tail + chunk)[-_GZIP_FOOTER:]
    file.flush()
    is_gzip = head == b"\x1f\x8b" and len(tail) == _GZIP_FOOTER
    return size, int.from_bytes(tail[:4], "little") if is_gzip else crc


def _is_archive(path: Path) -> bool:
    """Whether a file begins as a gzip'd tar; only the first header is looked at, so that no bomb goes off here."""
    try:
        with gzip.open(path) as file:
            header = file.read(tarfile.BLOCKSIZE)
        tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return header == bytes(tarfile.BLOCKSIZE)  # an archive without members begins with its end
    except (OSError, EOFError, zlib.error):
        return False
    return True


def _enter(context: Context, stored: CacheFile, upload: Path, target: Path, *, replaces: bool) -> None:
    """Give an upload its name, unless the name is taken by something else."""
    now = context.clock()
    with context.database.durable() as connection:
        before = sandboxes.find_cache_file(connection, stored.name)
        own = replaces and before is not None and before.owner == stored.owner
        overwrite = own or stored.name.endswith(_OVERWRITABLE)
        if before is not None and not overwrite:
            if (before.size, before.checksum) == (stored.size, stored.checksum):
                return  # the same file once more: an answer was lost
            raise Conflict(f"There is another file {shown(stored.name)} here already; give yours another name.")
        if before is not None:
            sandboxes.remove_cache_files(connection, [stored.name])
        if not sandboxes.add_cache_file(connection, stored, now):
            raise Conflict(f"{shown(stored.name)} is being uploaded by somebody else.")
        os.replace(upload, target)


def find_sandbox(context: Context, size: int, checksum: int, identity: Identity) -> CacheFile:
    """A file the caller uploaded before, by its size in bytes and panda-client's checksum.

    Raises:
        NotFound: there is none.
    """
    with context.database.relaxed() as connection:
        found = sandboxes.find_same_file(connection, identity.name, size, checksum)
        if found is None or not (cache_directory(context) / found.name).is_file():
            raise NotFound("NOTFOUND")
        sandboxes.mark_used(connection, found.name, context.clock())
    return found


def fetch_sandbox(context: Context, name: str) -> Path:
    """The path of a file, for handing it out.

    Raises:
        NotFound: there is none of that name.
    """
    path = cache_directory(context) / name
    if complaint_about_file(name) or not path.is_file():
        raise NotFound(f"There is no file {shown(name)} here.")
    with context.database.relaxed() as connection:
        sandboxes.mark_used(connection, name, context.clock())
    return path


def remove_sandbox(context: Context, name: str, identity: Identity) -> None:
    """Remove a file of the caller's. One that is not there is removed already.

    Raises:
        Conflict: it is somebody else's.
    """
    with context.database.durable() as connection:
        before = sandboxes.find_cache_file(connection, name)
        if before is None:
            return
        if not identity.may_act_for(before.owner):
            raise Conflict(f"The file {shown(name)} is somebody else's.")
        sandboxes.remove_cache_files(connection, [name])
    (cache_directory(context) / name).unlink(missing_ok=True)


def sweep_sandboxes(context: Context) -> int:
    """Remove files nobody wanted for sandbox_days, and uploads that were never finished; returns how many."""
    now = context.clock()
    directory = cache_directory(context)
    with context.database.durable() as connection:
        unused = sandboxes.find_unused(connection, now - context.settings.sandbox_days * 86400, 1000)
        sandboxes.remove_cache_files(connection, unused)
    for name in unused:
        (directory / name).unlink(missing_ok=True)
    stale = [path for path in directory.glob(".upload-*") if path.stat().st_mtime < now - 86400]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(unused) + len(stale)
