"""Copytool for storage that is mounted on the node: plain files, copied with their checksum in one pass.

A file is written beside its place under a name of its own, verified, and only then renamed: a reader never sees half
of it.
"""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool.common import Transfer, expected_algorithm, verify_copied, verify_stored
from pilot.info.filespec import FileSpec
from pilot.util.filehandling import Cancelled, Copied, calculate_checksum, copy_with_checksum

ALLOWED_SCHEMES = ("file",)


def is_valid_for_copy_in(files: list[FileSpec]) -> bool:
    """Whether all files have a source that is a local path."""
    return all(_is_local(spec.surl) for spec in files)


def is_valid_for_copy_out(files: list[FileSpec]) -> bool:
    """Whether all files have a destination that is a local path."""
    return all(_is_local(spec.surl) for spec in files)


def copy_in(files: list[FileSpec], transfer: Transfer) -> None:
    """Copy files from storage (their surl) into the job's directory.

    Raises PilotException: MISSINGINPUTFILE, NOLOCALSPACE, STAGEINFAILED, GETADMISMATCH, GETMD5MISMATCH.
    """
    for spec in files:
        algorithm = expected_algorithm(spec, transfer.checksum_type)
        source, target = local_path(spec.surl), transfer.workdir / spec.lfn
        beside = target.with_name(f".{spec.lfn[:200]}.{uuid.uuid4().hex[:8]}.part")
        try:
            if source.exists() and not source.is_file():
                # Opening a pipe or a device could wait for ever.
                raise PilotException(f"{spec.surl} is no plain file", code=ErrorCodes.STAGEINFAILED)
            copied = copy_with_checksum(source, beside, algorithm, transfer.cancelled)
            verify_copied(spec, copied, algorithm, spec.surl)
            beside.rename(target)
        except Cancelled:
            raise PilotException(f"stage-in of {spec.lfn} was cancelled", code=ErrorCodes.STAGEINFAILED) from None
        except OSError as exc:
            raise _stagein_error(spec, exc, source) from exc
        finally:
            _remove(beside)
        spec.filesize, spec.checksum, spec.turl, spec.status = (
            copied.size,
            {algorithm: copied.checksum},
            spec.surl,
            "transferred",
        )
        transfer.log.info("stage-in: %s, %d bytes, %s %s", spec.surl, copied.size, algorithm, copied.checksum)


def copy_out(files: list[FileSpec], transfer: Transfer) -> None:
    """Copy files from the job's directory into storage (their surl); what was stored is read back and compared.

    A file that is there already is replaced in one step: it can only be that of an earlier attempt of the same job.
    Raises PilotException: MISSINGOUTPUTFILE, NOREMOTESPACE, STAGEOUTFAILED, PUTADMISMATCH, PUTMD5MISMATCH.
    """
    algorithm = transfer.checksum_type
    for spec in files:
        source, target = transfer.workdir / spec.lfn, local_path(spec.surl)
        beside = target.with_name(f".{spec.lfn[:200]}.{uuid.uuid4().hex[:8]}.part")
        try:
            if not source.is_file():
                raise PilotException(f"output file {spec.lfn} is not there", code=ErrorCodes.MISSINGOUTPUTFILE)
            target.parent.mkdir(parents=True, exist_ok=True)
            copied = copy_with_checksum(source, beside, algorithm, transfer.cancelled)
            stored = Copied(beside.stat().st_size, calculate_checksum(str(beside), algorithm))
            verify_stored(spec, copied, stored, algorithm, spec.surl)
            _make_room(spec, target, stored, algorithm, transfer)
            beside.rename(target)
        except Cancelled:
            raise PilotException(f"stage-out of {spec.lfn} was cancelled", code=ErrorCodes.STAGEOUTFAILED) from None
        except OSError as exc:
            raise _stageout_error(spec, exc, target) from exc
        finally:
            _remove(beside)
        spec.filesize, spec.checksum, spec.turl, spec.status = (
            copied.size,
            {algorithm: copied.checksum},
            spec.surl,
            "transferred",
        )
        transfer.log.info("stage-out: %s, %d bytes, %s %s", spec.surl, copied.size, algorithm, copied.checksum)


def _make_room(spec: FileSpec, target: Path, stored: Copied, algorithm: str, transfer: Transfer) -> None:
    """Look at what is at the destination already. Raises PilotException(FILEEXISTS) when it must not be replaced."""
    if not target.exists():
        return
    if (target.stat().st_size, calculate_checksum(str(target), algorithm)) == (stored.size, stored.checksum):
        return
    if not transfer.may_replace:
        text = f"{spec.surl} is there already with other contents, and is not overwritten: give the output another name"
        raise PilotException(text, code=ErrorCodes.FILEEXISTS)
    transfer.log.warning("stage-out: %s is there already, from an earlier attempt, and is replaced", spec.surl)


def local_path(surl: str) -> Path:
    """file://host/path, file:///path or /path -> /path."""
    _, scheme, rest = surl.partition("://")
    # Not by urlsplit: names may have a # in them, and what follows one is a part of the name here.
    return Path("/" + rest.partition("/")[2].lstrip("/") if scheme else surl)


def _is_local(surl: str) -> bool:
    return bool(surl) and (urlsplit(surl).scheme or "file") in ALLOWED_SCHEMES


def _remove(path: Path) -> None:
    with suppress(OSError):
        os.unlink(path)


def _stagein_error(spec: FileSpec, exc: OSError, source: Path) -> PilotException:
    if exc.errno == errno.ENOENT and not source.exists():
        return PilotException(f"{spec.lfn} is not at {spec.surl}", code=ErrorCodes.MISSINGINPUTFILE)
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"no space in the job's directory for {spec.lfn} ({spec.filesize} bytes)"
        return PilotException(text, code=ErrorCodes.NOLOCALSPACE)
    return PilotException(f"{spec.lfn} from {spec.surl}: {exc.strerror}", code=ErrorCodes.STAGEINFAILED)


def _stageout_error(spec: FileSpec, exc: OSError, target: Path) -> PilotException:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"no space at {target.parent} for {spec.lfn} ({spec.filesize} bytes)"
        return PilotException(text, code=ErrorCodes.NOREMOTESPACE)
    return PilotException(f"{spec.lfn} to {spec.surl}: {exc.strerror} ({exc.filename})", code=ErrorCodes.STAGEOUTFAILED)
