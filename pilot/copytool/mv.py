"""Copytool for storage that is mounted on the node: plain files, copied with their checksum in one pass.

A file is written beside its place under a name of its own, verified, and only then renamed: a reader never sees half
of it.
"""

from __future__ import annotations

import errno
from pathlib import Path

from pilot.copytool.common import (
    Transfer,
    cancelled_error,
    has_scheme,
    note_sent,
    output_path,
    path_beside,
    remove,
    take_in,
    verify_stored,
)
from pilot.copytool.errors import Kind, TransferError
from pilot.info.filespec import FileSpec
from pilot.util.filehandling import Cancelled, Copied, calculate_checksum, copy_with_checksum

ALLOWED_SCHEMES = ("file",)


def is_valid_for_copy_in(files: list[FileSpec]) -> bool:
    """Whether all files have a source that is a local path."""
    return has_scheme(files, ALLOWED_SCHEMES)


def is_valid_for_copy_out(files: list[FileSpec]) -> bool:
    """Whether all files have a destination that is a local path."""
    return has_scheme(files, ALLOWED_SCHEMES)


def copy_in(files: list[FileSpec], transfer: Transfer) -> None:
    """Copy files from storage (their surl) into the job's directory.

    Raises PilotException: MISSINGINPUTFILE, NOLOCALSPACE, STAGEINFAILED, GETADMISMATCH, GETMD5MISMATCH.
    """
    for spec in files:
        source = local_path(spec.surl)

        def fetch(target: Path, algorithm: str, spec: FileSpec = spec, source: Path = source) -> Copied:
            if not source.exists():
                raise TransferError(f"{spec.lfn} is not at {spec.surl}", Kind.MISSING, read=True)
            if not source.is_file():
                # Opening a pipe or a device could wait for ever.
                raise TransferError(f"{spec.surl} is no plain file", Kind.OTHER, read=True)
            return copy_with_checksum(source, target, algorithm, transfer.cancelled)

        take_in(spec, transfer, fetch)


def copy_out(files: list[FileSpec], transfer: Transfer) -> None:
    """Copy files from the job's directory into storage (their surl); what was stored is read back and compared.

    A file that is there already is replaced in one step if it can be that of an earlier attempt of the same job.
    Raises PilotException: MISSINGOUTPUTFILE, NOREMOTESPACE, STAGEOUTFAILED, FILEEXISTS, PUTADMISMATCH, PUTMD5MISMATCH.
    """
    algorithm = transfer.checksum_type
    for spec in files:
        target = local_path(spec.surl)
        beside = path_beside(target)
        try:
            source = output_path(spec, transfer)
            target.parent.mkdir(parents=True, exist_ok=True)
            copied = copy_with_checksum(source, beside, algorithm, transfer.cancelled)
            stored = Copied(beside.stat().st_size, calculate_checksum(str(beside), algorithm))
            verify_stored(spec, copied, stored, algorithm, spec.surl)
            _make_room(spec, target, stored, algorithm, transfer)
            beside.rename(target)
        except Cancelled:
            raise cancelled_error(spec, read=False) from None
        except OSError as exc:
            raise _stageout_error(spec, exc, target) from exc
        finally:
            remove(beside)
        note_sent(spec, transfer, copied)


def _make_room(spec: FileSpec, target: Path, stored: Copied, algorithm: str, transfer: Transfer) -> None:
    """Look at what is at the destination already. Raises TransferError(EXISTS) when it must not be replaced."""
    if not target.exists():
        return
    if (target.stat().st_size, calculate_checksum(str(target), algorithm)) == (stored.size, stored.checksum):
        return
    if not transfer.may_replace:
        text = f"{spec.surl} is there already with other contents, and is not overwritten: give the output another name"
        raise TransferError(text, Kind.EXISTS, read=False)
    transfer.log.warning("stage-out: %s is there already, from an earlier attempt, and is replaced", spec.surl)


def local_path(surl: str) -> Path:
    """file://host/path, file:///path or /path -> /path."""
    _, scheme, rest = surl.partition("://")
    # Not by urlsplit: names may have a # in them, and what follows one is a part of the name here.
    return Path("/" + rest.partition("/")[2].lstrip("/") if scheme else surl)


def _stageout_error(spec: FileSpec, exc: OSError, target: Path) -> TransferError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"no space at {target.parent} for {spec.lfn} ({spec.filesize} bytes)"
        return TransferError(text, Kind.FULL, read=False)
    return TransferError(f"{spec.lfn} to {spec.surl}: {exc.strerror} ({exc.filename})", Kind.OTHER, read=False)
