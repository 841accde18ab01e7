"""What all copytools share: their arguments, and the steps that are the same whatever moves the bytes.

A copytool is a module with `ALLOWED_SCHEMES`, `is_valid_for_copy_in(files)`, `is_valid_for_copy_out(files)`,
`copy_in(files, transfer)` and `copy_out(files, transfer)`. The two copy functions move the files one after the other,
set `status`, `filesize` and `checksum` of each, and raise a PilotException for the first that fails. Nothing
half-written is left under a file's name. docs/copytools.md says how to add one.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface
from typing import TypeVar

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool.errors import Kind, TransferError
from pilot.copytool.pool import Lendable, Pool
from pilot.copytool.reasons import credentials_looked_at
from pilot.copytool.results import get_copysetup as get_copysetup
from pilot.copytool.results import get_error_info as get_error_info
from pilot.copytool.results import get_timeout as get_timeout
from pilot.copytool.results import merge_destinations as merge_destinations
from pilot.copytool.results import output_line_scan as output_line_scan
from pilot.copytool.results import resolve_common_transfer_errors as resolve_common_transfer_errors
from pilot.copytool.results import verify_catalog_checksum as verify_catalog_checksum
from pilot.info.filespec import FileSpec
from pilot.info.storagedata import StorageData
from pilot.util import config
from pilot.util.blot import location_of
from pilot.util.credentials import ca_directory, tool_environment
from pilot.util.filehandling import ADLER32, Copied
from pilot.util.guarded import Launcher
from pilot.util.watch import Limits

# A disk with less room than this (bytes) is full: file systems keep some blocks for themselves.
_NO_ROOM = 1024 * 1024
T = TypeVar("T", bound=Lendable)
# (name of the public key, name of the private key) -> both keys.
KeyPairs = Callable[[str, str], tuple[str, str]]


@dataclass(frozen=True)
class Transfer:
    """What a copytool is given beside the files.

    workdir: the job's directory; checksum_type: for outputs; cancelled: asked while bytes move; log: the pilot's log.
    options: the queue's settings for this copytool (`copytools[NAME]`), `setup` among them. limits: when a transfer is
    stopped. launcher, environ: start processes with these and no others. ca: directory of CA certificates, empty for
    the system's. may_replace: whether a file that is at the destination already can be that of an earlier attempt
    of the same job, and may be replaced. pool: keeps what several transfers can use one after the other.
    at_once: how many files a copytool that moves several itself may move at the same time. storage_of: the description
    of a storage by its name, None where there is none. key_pair: asks the dispatcher for the keys of these two names
    (public, private); raises PilotException.
    """

    workdir: Path
    checksum_type: str
    cancelled: Callable[[], bool]
    log: logging.Logger
    options: Mapping[str, str]
    limits: Limits
    launcher: Launcher
    environ: Mapping[str, str]
    ca: str = ""
    may_replace: bool = False
    pool: Pool | None = None
    at_once: int = 1
    storage_of: Callable[[str], StorageData | None] = lambda name: None
    key_pair: KeyPairs | None = None

    @contextmanager
    def lend(self, key: Hashable, make: Callable[[], T]) -> Iterator[T]:
        """Something of the pool for the time of a block; without a pool it is closed thereafter (see Pool.lend)."""
        pool = self.pool or Pool()
        try:
            with pool.lend(key, make) as lent:
                yield lent
        finally:
            if self.pool is None:
                pool.close()


class CopyTool(Interface):
    """The contract, for type checkers."""

    ALLOWED_SCHEMES: tuple[str, ...]

    def is_valid_for_copy_in(self, files: list[FileSpec]) -> bool: ...

    def is_valid_for_copy_out(self, files: list[FileSpec]) -> bool: ...

    def copy_in(self, files: list[FileSpec], transfer: Transfer) -> None: ...

    def copy_out(self, files: list[FileSpec], transfer: Transfer) -> None: ...


class Copy(Interface):
    """What `user_callable` makes of a copytool's copy_in or copy_out."""

    def __call__(self, files: list[FileSpec], transfer: Transfer | None = None, **kwargs: object) -> list[FileSpec]: ...


def user_callable(copy: Callable[[list[FileSpec], Transfer], None]) -> Copy:
    """Let users call a copy function as the field's interface has it: copy_in(files, workdir=...), which returns files.

    The pilot gives it a Transfer; without one it is made from the keyword arguments (see transfer_of).
    """

    def call(files: list[FileSpec], transfer: Transfer | None = None, **kwargs: object) -> list[FileSpec]:
        copy(files, transfer or transfer_of(files, kwargs))
        return files

    # functools.wraps would show the arguments of the inner function to whoever asks for help.
    call.__module__, call.__qualname__, call.__name__ = copy.__module__, copy.__qualname__, copy.__name__
    call.__doc__ = copy.__doc__
    return call


def transfer_of(files: Sequence[FileSpec], arguments: Mapping[str, object]) -> Transfer:
    """What a copytool needs beside the files, for a caller that has no pilot.

    arguments: workdir (default: the current directory); texts and numbers of other names become options of the
    copytool, as a queue would give them. Limits come from default.cfg, credentials from the environment. A file
    without a surl has its place in its turl.
    """
    settings = config.read().file
    for spec in files:
        spec.surl = spec.surl or spec.turl
    options = {name: str(value) for name, value in arguments.items() if isinstance(value, (str, int, float))}
    return Transfer(
        Path(str(arguments.get("workdir") or Path.cwd())),
        settings.checksum_type,
        lambda: False,
        logging.getLogger(__name__),
        options,
        Limits(settings.transfer_stall, settings.transfer_limit, settings.transfer_speed_min),
        Launcher(),
        tool_environment(os.environ),
        ca_directory(os.environ),
    )


def has_scheme(files: Sequence[FileSpec], schemes: Sequence[str]) -> bool:
    """Whether the surl of every file has one of these schemes; a bare path counts as `file`."""
    return all(spec.surl and scheme_of(spec.surl) in schemes for spec in files)


def scheme_of(surl: str) -> str:
    """The scheme of a URL; a bare path is a local file."""
    return surl.partition("://")[0].lower() if "://" in surl else "file"


def is_on(options: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """Whether an option of a queue's copytool is switched on."""
    return options.get(name, str(default)).strip().lower() in ("true", "yes", "1")


def take_in(spec: FileSpec, transfer: Transfer, fetch: Callable[[Path, str], Copied]) -> None:
    """One stage-in: fetch beside the file's name, compare with the catalogue, rename.

    fetch(path, algorithm) makes the file and says what it has got. Raises PilotException: what `fetch` raises,
    NOLOCALSPACE, STAGEINFAILED, GETADMISMATCH, GETMD5MISMATCH.
    """
    algorithm = expected_algorithm(spec, transfer.checksum_type)
    target = transfer.workdir / spec.lfn
    beside = path_beside(target)
    try:
        with credentials_looked_at(spec.surl, transfer.environ, read=True):
            copied = fetch(beside, algorithm)
        if copied.size < spec.filesize:
            check_room(spec, beside)
        verify_copied(spec, copied, algorithm, spec.surl)
        beside.rename(target)
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(spec) from exc
        raise TransferError(f"{spec.lfn} from {spec.surl}: {exc.strerror}", Kind.OTHER, read=True) from exc
    finally:
        remove(beside)
    note_transferred(spec, copied, algorithm)
    transfer.log.info("stage-in: %s, %d bytes, %s %s", spec.turl, copied.size, algorithm, copied.checksum)


def check_room(spec: FileSpec, target: Path) -> None:
    """Raise TransferError(FULL) if that is why a file is too short."""
    if shutil.disk_usage(target.parent).free < _NO_ROOM:
        raise _no_room(spec)


def _no_room(spec: FileSpec) -> TransferError:
    size = f" ({spec.filesize} bytes)" if spec.filesize else ""
    return TransferError(f"no space in the job's directory for {spec.lfn}{size}", Kind.FULL, read=True)


def output_path(spec: FileSpec, transfer: Transfer) -> Path:
    """The local path of an output. Raises PilotException(MISSINGOUTPUTFILE) when it is not there."""
    path = transfer.workdir / spec.lfn
    if not path.is_file():
        raise PilotException(f"output file {spec.lfn} is not there", code=ErrorCodes.MISSINGOUTPUTFILE)
    return path


def note_sent(spec: FileSpec, transfer: Transfer, copied: Copied) -> None:
    """The end of a stage-out that was verified."""
    note_transferred(spec, copied, transfer.checksum_type)
    algorithm = transfer.checksum_type
    transfer.log.info("stage-out: %s, %d bytes, %s %s", spec.turl, copied.size, algorithm, copied.checksum)


def note_transferred(spec: FileSpec, copied: Copied, algorithm: str) -> None:
    """Write down what is known of a file now."""
    spec.filesize, spec.checksum, spec.turl = copied.size, {algorithm: copied.checksum}, location_of(spec.surl)
    spec.status = "transferred"


def path_beside(target: Path) -> Path:
    """A name in the same directory that nobody takes for the file itself."""
    return target.with_name(f".{target.name[:200]}.{uuid.uuid4().hex[:8]}.part")


def remove(path: Path) -> None:
    """Remove a file if it is there."""
    with suppress(OSError):
        os.unlink(path)


def cancelled_error(spec: FileSpec, *, read: bool) -> TransferError:
    """The error of a transfer that was stopped on request."""
    return TransferError(f"stage-{'in' if read else 'out'} of {spec.lfn} was cancelled", Kind.CANCELLED, read=read)


def expected_algorithm(spec: FileSpec, default: str = ADLER32) -> str:
    """The checksum type by which a file is compared: the one the catalogue has."""
    return next(iter(spec.checksum), default)


def verify_copied(spec: FileSpec, copied: Copied, algorithm: str, where: str) -> None:
    """Compare a copy with the size and checksum that the catalogue has for the file, as far as it has them.

    Raises PilotException: STAGEINFAILED for a wrong size, GETADMISMATCH or GETMD5MISMATCH for a wrong checksum; both
    values are in the text.
    """
    if spec.filesize and copied.size != spec.filesize:
        text = f"{spec.lfn} from {where} has {copied.size} bytes, the catalogue says {spec.filesize}"
        raise TransferError(text, Kind.SIZE, read=True)
    expected = spec.checksum.get(algorithm)
    if expected and copied.checksum != expected:
        text = f"{spec.lfn} from {where} has {algorithm} {copied.checksum}, the catalogue says {expected}"
        code = ErrorCodes.GETADMISMATCH if algorithm == ADLER32 else ErrorCodes.GETMD5MISMATCH
        raise TransferError(text, Kind.DAMAGED, read=True, code=code)


def verify_stored(spec: FileSpec, copied: Copied, stored: Copied, algorithm: str, where: str) -> None:
    """Compare what lies in storage with what was sent. A stored checksum that is empty is not known.

    Raises PilotException(PUTADMISMATCH or PUTMD5MISMATCH), for a wrong size too.
    """
    if copied.size != stored.size or (stored.checksum and copied.checksum != stored.checksum):
        text = (
            f"{spec.lfn} was sent with {copied.size} bytes and {algorithm} {copied.checksum}, "
            f"but {where} has {stored.size} bytes and {stored.checksum or 'no known checksum'}"
        )
        code = ErrorCodes.PUTADMISMATCH if algorithm == ADLER32 else ErrorCodes.PUTMD5MISMATCH
        raise TransferError(text, Kind.DAMAGED, read=False, code=code)


def find_command(name: str, transfer: Transfer, advice: str) -> str:
    """The path of a command: in the queue's `setup` when that is a directory, else on the PATH.

    Raises PilotException(MIDDLEWAREIMPORTFAILURE) with the advice what to install. A `setup` that is a file is sourced
    before, and may change the PATH: then the name alone is returned.
    """
    setup = transfer.options.get("setup", "")
    if setup and Path(setup).is_file():
        return name
    path = transfer.environ.get("PATH", os.defpath)
    found = shutil.which(name, path=os.pathsep.join(filter(None, (setup, path))))
    if found is None:
        where = f"neither in {setup} (the queue's setup) nor on the PATH" if setup else "not on the PATH"
        text = f"command {name} is {where}: {advice}"
        raise TransferError(text, Kind.MIDDLEWARE, read=True)
    return found


def with_setup(command: Sequence[str], transfer: Transfer) -> list[str]:
    """The command, started by a shell that first reads the site's own setup file, when the queue names one.

    The arguments reach that shell as parameters, which it does not look into (promise S6).
    """
    setup = transfer.options.get("setup", "")
    if setup and Path(setup).is_file():
        return ["/bin/sh", "-c", 'setup=$1; shift; . "$setup" >&2 && exec "$@"', "sh", setup, *command]
    return list(command)
