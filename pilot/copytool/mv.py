"""Copytool for storage that is mounted on the node: plain files, copied with their checksum in one pass.

A file is written beside its place under a name of its own, verified, and only then renamed: a reader never sees half
of it. The queue may ask for less copying (`copytools: {"mv": {"copy_type": "symlink,mv"}}`): inputs that are links,
outputs that are moved. Both are verified all the same, and done only where they are safe.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import FileHandlingFailure, PilotException, QueuedataNotOK
from pilot.copytool.common import (
    Transfer,
    cancelled_error,
    has_scheme,
    note_sent,
    output_path,
    path_beside,
    remove,
    scheme_of,
    take_in,
    user_callable,
    verify_stored,
)
from pilot.copytool.errors import Kind, TransferError
from pilot.copytool.runner import run_watched
from pilot.info.filespec import FileSpec
from pilot.info.storagedata import StorageData
from pilot.util.filehandling import (
    Cancelled,
    Copied,
    checksum_of,
    copy_with_checksum,
)

ALLOWED_SCHEMES = ("file",)
# What copy_type may ask for, by the names of the field.
_COPY, _LINK, _MOVE = "copy", "symlink", "mv"
_COPY_TYPES = {"copy": _COPY, "cp": _COPY, "symlink": _LINK, "mv": _MOVE, "move": _MOVE}
# The list that tells an ARC computing element what to upload, in the directory where the job was started.
OUTPUT_LIST = "output.list"
# The host of an SRM storage's URL, behind which ARC takes its options.
_SRM_HOST = re.compile(r"srm://[^/]+")


def is_valid_for_copy_in(files: list[FileSpec]) -> bool:
    """Whether all files have a source that is a local path."""
    return has_scheme(files, ALLOWED_SCHEMES)


def is_valid_for_copy_out(files: list[FileSpec]) -> bool:
    """Whether all files have a destination that is a local path."""
    return has_scheme(files, ALLOWED_SCHEMES)


@user_callable
def copy_in(files: list[FileSpec], transfer: Transfer) -> None:
    """Copy files from storage (their surl) into the job's directory, or link them.

    Raises PilotException: MISSINGINPUTFILE, NOLOCALSPACE, STAGEINFAILED, GETADMISMATCH, GETMD5MISMATCH.
    """
    for spec in files:
        source = local_path(spec.surl)

        def fetch(target: Path, algorithm: str, spec: FileSpec = spec, source: Path = source) -> Copied:
            return _watched(
                spec, transfer, lambda stop: _fetch(spec, source, target, algorithm, transfer, stop), read=True
            )

        take_in(spec, transfer, fetch)


def _fetch(
    spec: FileSpec, source: Path, target: Path, algorithm: str, transfer: Transfer, stop: Callable[[], bool]
) -> Copied:
    try:
        if not source.exists():
            _check_mounted(spec, source, transfer, read=True)
            raise TransferError(f"{spec.lfn} is not at {spec.surl}", Kind.MISSING, read=True)
        if not source.is_file():
            # Opening a pipe or a device could wait for ever.
            raise TransferError(f"{spec.surl} is no plain file", Kind.OTHER, read=True)
        if _LINK in _copy_types(transfer):
            if not may_alter(source):
                return _link_with_checksum(source, target, algorithm, stop)
            transfer.log.info("stage-in: %s is copied, since a payload could write through a link", spec.lfn)
        return copy_with_checksum(source, target, algorithm, stop)
    except PermissionError as exc:
        if exc.filename == str(target):
            raise
        raise TransferError(f"{spec.lfn} from {spec.surl}: {exc.strerror}", Kind.DENIED, read=True) from exc


@user_callable
def copy_out(files: list[FileSpec], transfer: Transfer) -> None:
    """Copy or move files from the job's directory into storage (their surl).

    A copy is read back and compared. What is moved is the file itself, read once for its checksum; it leaves the job's
    directory when it has its name in storage, and not before. A link that leads out of that directory is copied.

    A file that is there already is replaced in one step if it can be that of an earlier attempt of the same job.
    Raises PilotException: MISSINGOUTPUTFILE, NOREMOTESPACE, STAGEOUTFAILED, FILEEXISTS, PUTADMISMATCH, PUTMD5MISMATCH.
    """
    for spec in files:
        source, target = output_path(spec, transfer), local_path(spec.surl)

        def store(
            stop: Callable[[], bool], spec: FileSpec = spec, source: Path = source, target: Path = target
        ) -> Copied:
            return _store(spec, source, target, transfer, stop)

        try:
            copied = _watched(spec, transfer, store, read=False)
        except OSError as exc:
            raise _stageout_error(spec, exc, source, target) from exc
        note_sent(spec, transfer, copied)


def opens(spec: FileSpec, transfer: Transfer) -> None:
    """Open a file (its surl) where it lies and read its first byte. Raises PilotException when that does not work."""
    path = local_path(spec.surl)

    def body() -> None:
        if not path.is_file():
            raise TransferError(f"{spec.lfn} is not at {spec.surl}", Kind.MISSING, read=True)
        try:
            with path.open("rb") as stream:
                stream.read(1)
        except OSError as exc:
            kind = Kind.DENIED if isinstance(exc, PermissionError) else Kind.OTHER
            raise TransferError(f"{spec.lfn}, {spec.surl}: {exc.strerror}", kind, read=True) from exc

    # A file system that hangs cannot be told to stop; the thread is left alone then.
    run_watched(spec, transfer, lambda: 0, lambda: None, body, read=True)


def _store(spec: FileSpec, source: Path, target: Path, transfer: Transfer, stop: Callable[[], bool]) -> Copied:
    algorithm, beside = transfer.checksum_type, path_beside(target)
    try:
        _check_mounted(spec, target, transfer, read=False)
        target.parent.mkdir(parents=True, exist_ok=True)
        own = transfer.workdir.resolve() in source.resolve().parents
        moved = own and _MOVE in _copy_types(transfer) and _give_second_name(source, beside)
        if moved:
            copied = stored = checksum_of(beside, algorithm, stop)
        else:
            copied = copy_with_checksum(source, beside, algorithm, stop)
            stored = checksum_of(beside, algorithm, stop)
        verify_stored(spec, copied, stored, algorithm, spec.surl)
        _make_room(spec, target, stored, algorithm, transfer, stop)
        beside.rename(target)
        if moved:
            remove(source.resolve())
        return copied
    finally:
        remove(beside)


def _check_mounted(spec: FileSpec, path: Path, transfer: Transfer, *, read: bool) -> None:
    """Directories are made below that of a storage, but never that itself: on a node where the storage is not mounted a
    file would seem to be stored, and lie on a disk that nobody looks at. Nor is a file there lost for not being seen.

    Raises TransferError(UNREACHABLE).
    """
    storage = transfer.storage_of(spec.ddmendpoint)
    for root in (local_path(url) for url in (storage.roots() if storage else ()) if scheme_of(url) in ALLOWED_SCHEMES):
        if root in path.parents and not root.is_dir():
            way = f"{spec.lfn} {'from' if read else 'to'} {spec.surl}"
            text = f"{way}: storage {spec.ddmendpoint} is not mounted here, there is no {root}"
            raise TransferError(text, Kind.UNREACHABLE, read=read)


def _watched(spec: FileSpec, transfer: Transfer, body: Callable[[Callable[[], bool]], Copied], *, read: bool) -> Copied:
    """Copy under watch: a disk that does not answer any more must not hold up the pilot.

    body: asks between two blocks whether to stop, which is the sign that it goes on.
    """
    blocks, stopped = 0, threading.Event()

    def stop() -> bool:
        nonlocal blocks
        blocks += 1
        return stopped.is_set() or transfer.cancelled()

    try:
        return run_watched(spec, transfer, lambda: blocks, stopped.set, lambda: body(stop), read=read)
    except Cancelled:
        raise cancelled_error(spec, read=read) from None


def _make_room(
    spec: FileSpec, target: Path, stored: Copied, algorithm: str, transfer: Transfer, stop: Callable[[], bool]
) -> None:
    """Look at what is at the destination already. Raises TransferError(EXISTS) when it must not be replaced."""
    if not target.exists():
        return
    if checksum_of(target, algorithm, stop) == stored:
        return
    if not transfer.may_replace:
        text = f"{spec.surl} is there already with other contents, and is not overwritten: give the output another name"
        raise TransferError(text, Kind.EXISTS, read=False)
    transfer.log.warning("stage-out: %s is there already, from an earlier attempt, and is replaced", spec.surl)


def _copy_types(transfer: Transfer) -> set[str]:
    """What the queue asks for. Raises QueuedataNotOK for a word that is not known."""
    words = [word for word in re.split(r"[\s,]+", transfer.options.get("copy_type", "").lower()) if word]
    strange = next((word for word in words if word not in _COPY_TYPES), "")
    if strange:
        known = ", ".join(_COPY_TYPES)
        raise QueuedataNotOK(f"the queue's copytools[mv][copy_type] is '{strange}', which is none of {known}")
    return {_COPY_TYPES[word] for word in words}


def may_alter(path: Path) -> bool:
    """Whether a payload of this user could change a file through a link to it."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return False
    # An owner may give himself the right to write, and root needs none.
    return os.geteuid() in (0, path.stat().st_uid) or os.access(path, os.W_OK, effective_ids=True)


def _link_with_checksum(source: Path, target: Path, algorithm: str, cancelled: Callable[[], bool]) -> Copied:
    read = checksum_of(source, algorithm, cancelled)
    target.symlink_to(os.path.realpath(source))
    return read


def _give_second_name(source: Path, beside: Path) -> bool:
    """Put a file into storage without copying it; False where that is another disk, or one without hard links."""
    try:
        os.link(os.path.realpath(source), beside)
    except OSError as exc:
        if exc.errno in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            return False
        raise
    _to_disk(beside)
    return True


def _to_disk(path: Path) -> None:
    """Have a file that nobody copied written out: a job that is finished is finished after a power cut, too."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def local_path(surl: str) -> Path:
    """file://host/path, file:///path or /path -> /path."""
    _, scheme, rest = surl.partition("://")
    # Not by urlsplit: names may have a # in them, and what follows one is a part of the name here.
    return Path("/" + rest.partition("/")[2].lstrip("/") if scheme else surl)


def _stageout_error(spec: FileSpec, exc: OSError, source: Path, target: Path) -> TransferError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"no space at {target.parent} for {spec.lfn} ({spec.filesize} bytes)"
        return TransferError(text, Kind.FULL, read=False)
    kind = Kind.DENIED if isinstance(exc, PermissionError) and exc.filename != str(source) else Kind.OTHER
    return TransferError(f"{spec.lfn} to {spec.surl}: {exc.strerror} ({exc.filename})", kind, read=False)


def create_output_list(files: Sequence[FileSpec], init_dir: str, ddmconf: Mapping[str, StorageData]) -> None:
    """Add files to the list that tells an ARC computing element what to upload where.

    A line is `LFN URL:checksumtype=adler32:checksumvalue=0a1b2c3d`. The URL is the file's surl, in the storage that
    `ddmconf` describes under its endpoint: the space token of an SRM storage is named in it. init_dir: where the list
    is. Raises PilotException: FILEHANDLINGFAILURE, NOSTORAGE, QUEUEDATANOTOK.
    """
    lines = []
    for spec in files:
        if spec.ddmendpoint not in ddmconf:
            text = f"storage {spec.ddmendpoint or '(none)'} of {spec.lfn} has no description"
            raise PilotException(text, code=ErrorCodes.NOSTORAGE)
        url, token = spec.surl, ddmconf[spec.ddmendpoint].token
        if not url or len(url.split()) > 1:
            raise QueuedataNotOK(f"storage {spec.ddmendpoint}: {url!r} is no URL that ARC could upload {spec.lfn} to")
        host = _SRM_HOST.match(url)
        if token and host:
            url = f"{host.group()};spacetoken={token}{url[host.end() :]}"
        sums = "".join(f":checksumtype={kind}:checksumvalue={value}" for kind, value in spec.checksum.items())
        lines.append(f"{spec.lfn} {url}{sums}\n")
    path = os.path.join(init_dir, OUTPUT_LIST)
    try:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write("".join(lines))
    except OSError as exc:
        raise FileHandlingFailure(f"{path} cannot be written: {exc.strerror}") from exc


def copy(source: str, destination: str) -> tuple[int, str, str]:
    """Copy one file, without comparing anything; exit code, stdout and stderr as a command would give them."""
    return _as_command(lambda: shutil.copyfile(source, destination))


def move(source: str, destination: str) -> tuple[int, str, str]:
    """The same for moving it."""
    return _as_command(lambda: shutil.move(source, destination))


def symlink(source: str, destination: str) -> tuple[int, str, str]:
    """The same for a symbolic link."""
    return _as_command(lambda: os.symlink(source, destination))


def _as_command(action: Callable[[], object]) -> tuple[int, str, str]:
    try:
        action()
    except OSError as exc:
        return exc.errno or 1, "", str(exc)
    return 0, "", ""
