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
import time
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol as Interface
from typing import TypeVar

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool.errors import Kind, TransferError
from pilot.copytool.pool import Lendable, Pool
from pilot.info.filespec import FileSpec
from pilot.util.filehandling import ADLER32, Copied
from pilot.util.guarded import Launcher
from pilot.util.proxy import read_proxy, verdict
from pilot.util.watch import Limits

# XRootD's own patience, in its library, its commands and gfal2, unless the site has set it: one try to connect, which
# it gives up after 30 s. Its defaults, 5 tries of 120 s, make it ten minutes; the pilot has other places to try, and
# comes back to this one with a pause of its own.
XROOTD_PATIENCE = {"XRD_CONNECTIONRETRY": "1", "XRD_CONNECTIONWINDOW": "20"}
# After these failures of an upload something half-written may lie in storage.
_HALF_WRITTEN = frozenset({Kind.CUT, Kind.STALLED, Kind.CANCELLED, Kind.DAMAGED, Kind.FULL, Kind.OTHER})
# Removing what an upload left must not hold up the pilot's end (s).
_REMOVE_LIMITS = Limits(stall=3.0, fixed=3.0, speed=1.0)
# A disk with less room than this (bytes) is full: file systems keep some blocks for themselves.
_NO_ROOM = 1024 * 1024
# Schemes that always show the proxy, and those that never do.
_WITH_TLS = frozenset({"https", "davs", "roots", "xroots"})
_WITHOUT_PROXY = frozenset({"http", "dav", "file"})
# Lists of directories in which programs, modules and libraries are looked for.
_SEARCH_PATHS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")

T = TypeVar("T", bound=Lendable)


@dataclass(frozen=True)
class Transfer:
    """What a copytool is given beside the files.

    workdir: the job's directory; checksum_type: for outputs; cancelled: asked while bytes move; log: the pilot's log.
    options: the queue's settings for this copytool (`copytools[NAME]`), `setup` among them. limits: when a transfer is
    stopped. launcher, environ: start processes with these and no others. ca: directory of CA certificates, empty for
    the system's. may_replace: whether a file that is at the destination already can be that of an earlier attempt
    of the same job, and may be replaced. pool: keeps what several transfers can use one after the other.
    at_once: how many files a copytool that moves several itself may move at the same time.
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


def safe_search_paths(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with no empty or relative entries in its search paths (`PYTHONPATH=/opt/x:` has an empty one).

    They mean the current directory. Tools run with the pilot's credentials, and that directory is filled by payloads.
    """
    made = dict(environ)
    for name in _SEARCH_PATHS:
        entries = [entry for entry in made.pop(name, "").split(os.pathsep) if entry.startswith("/")]
        if entries:
            made[name] = os.pathsep.join(entries)
    return made


class Way(Interface):
    """How a copytool moves one file, where it has several ways to: with a library, or with commands.

    Each raises TransferError.
    """

    def get(self, spec: FileSpec, transfer: Transfer, target: Path, algorithm: str) -> Copied:
        """Download to a path where nothing is yet."""

    def put(self, spec: FileSpec, transfer: Transfer, source: Path) -> tuple[Copied, Copied]:
        """Upload, and return what was sent and what is stored then, with checksums of the transfer's type."""

    def exists(self, spec: FileSpec, transfer: Transfer) -> bool:
        """Whether the destination is there."""

    def remove(self, spec: FileSpec, transfer: Transfer) -> None:
        """Remove the destination."""


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
        with _credentials_looked_at(spec, transfer, read=True):
            copied = fetch(beside, algorithm)
        if copied.size < spec.filesize:
            _check_room(spec, beside)
        verify_copied(spec, copied, algorithm, spec.surl)
        beside.rename(target)
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(spec) from exc
        raise TransferError(f"{spec.lfn} from {spec.surl}: {exc.strerror}", Kind.OTHER, read=True) from exc
    finally:
        remove(beside)
    note_transferred(spec, copied, algorithm)
    transfer.log.info("stage-in: %s, %d bytes, %s %s", spec.surl, copied.size, algorithm, copied.checksum)


def check_whole(spec: FileSpec, target: Path, size: int) -> None:
    """Compare a file that has come in with the size (bytes) that it has where it comes from.

    XRootD's programs and library, in gfal2 too, do not look at how much of a block could be written, and compute
    checksums from memory: a file that ends where the disk was full is a success to them.
    Raises TransferError(FULL or CUT).
    """
    came = target.stat().st_size
    if came < size:
        _check_room(spec, target)
    if came != size:
        raise TransferError(f"{spec.lfn}, {spec.surl}: {came} of {size} bytes have arrived", Kind.CUT, read=True)


def check_arrived(spec: FileSpec, algorithm: str, checksum: str, told: str) -> None:
    """Compare a file that no catalogue has a checksum for with what its server tells, if it tells anything.

    Raises TransferError(DAMAGED).
    """
    if told and told != checksum:
        text = f"{spec.lfn} arrived with {algorithm} {checksum}, {spec.surl} has {told}"
        raise TransferError(text, Kind.DAMAGED, read=True)


def _check_room(spec: FileSpec, target: Path) -> None:
    """Raise TransferError(FULL) if that is why a file is too short."""
    if shutil.disk_usage(target.parent).free < _NO_ROOM:
        raise _no_room(spec)


def _no_room(spec: FileSpec) -> TransferError:
    size = f" ({spec.filesize} bytes)" if spec.filesize else ""
    return TransferError(f"no space in the job's directory for {spec.lfn}{size}", Kind.FULL, read=True)


def send_out(spec: FileSpec, transfer: Transfer, way: Way) -> None:
    """One stage-out: send a file, compare it with what lies in storage then, and leave nothing of a failed upload.

    Raises PilotException: what the way raises, MISSINGOUTPUTFILE, FILEEXISTS, PUTADMISMATCH, PUTMD5MISMATCH.
    """
    source = output_path(spec, transfer)
    spec.filesize = source.stat().st_size
    # Looked at before, so that what is removed after a failure is never what somebody else has stored.
    with _credentials_looked_at(spec, transfer, read=False):
        there = not transfer.may_replace and way.exists(spec, transfer)
    if there:
        text = f"{spec.surl} is there already, and is not overwritten: give the output another name"
        raise TransferError(text, Kind.EXISTS, read=False)
    try:
        with _credentials_looked_at(spec, transfer, read=False):
            sent, stored = way.put(spec, transfer, source)
        verify_stored(spec, sent, stored, transfer.checksum_type, spec.surl)
    except TransferError as exc:
        if exc.kind in _HALF_WRITTEN:
            _clean_up(spec, transfer, way)
        raise
    note_sent(spec, transfer, sent)


@contextmanager
def _credentials_looked_at(spec: FileSpec, transfer: Transfer, *, read: bool) -> Iterator[None]:
    """Give failures inside the block the reason that the tool may not have seen: a proxy that has ended.

    A server that is shown one closes the connection at once, and it is a matter of luck what the tool says then.
    """
    try:
        yield
    except TransferError as exc:
        suspects = {Kind.DENIED, Kind.CUT, Kind.OTHER} if scheme_of(spec.surl) in _WITH_TLS else {Kind.DENIED}
        if exc.kind not in suspects or scheme_of(spec.surl) in _WITHOUT_PROXY:
            raise
        ended = None
        with suppress(PilotException):
            ended = verdict(read_proxy(transfer.environ.get("X509_USER_PROXY", "")), time.time())
        if ended is None:
            raise
        raise TransferError(f"the credentials have expired, {ended.diag}: {exc.diag}", Kind.DENIED, read=read) from exc


def _clean_up(spec: FileSpec, transfer: Transfer, way: Way) -> None:
    try:
        way.remove(spec, replace(transfer, limits=_REMOVE_LIMITS, cancelled=lambda: False))
    except PilotException as exc:
        if not (isinstance(exc, TransferError) and exc.kind is Kind.MISSING):
            transfer.log.warning("%s may be left half-written: %s", spec.surl, exc.diag)


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
    transfer.log.info("stage-out: %s, %d bytes, %s %s", spec.surl, copied.size, algorithm, copied.checksum)


def note_transferred(spec: FileSpec, copied: Copied, algorithm: str) -> None:
    """Write down what is known of a file now."""
    spec.filesize, spec.checksum, spec.turl = copied.size, {algorithm: copied.checksum}, spec.surl
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
