"""Copytool of the site's own making: the commands `lsm-get` and `lsm-put` (local site mover).

    lsm-get SOURCE DESTINATION
    lsm-put --size BYTES --checksum ALGORITHM:VALUE [--guid GUID] SOURCE DESTINATION

They are looked for in the queue's `setup` (a directory, or a file that is sourced before) and on the PATH. Exit code 0
means that the file is there as a whole; what else they say is looked through for known messages.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pilot.copytool.common import (
    Transfer,
    find_command,
    has_scheme,
    note_sent,
    output_path,
    take_in,
    user_callable,
    with_setup,
)
from pilot.copytool.errors import Kind, TransferError
from pilot.copytool.runner import bytes_read, bytes_written, growth_of, run_tool
from pilot.info.filespec import FileSpec
from pilot.util.filehandling import Copied, calculate_checksum

# What a site's script can read is the site's own affair; these are the schemes that storages have.
ALLOWED_SCHEMES = ("file", "root", "xroot", "gsiftp", "srm", "dcap", "https", "http", "davs", "dav", "s3", "gs")

_ADVICE = (
    "copytool lsm wants the site's own transfer scripts; put them on the PATH of worker nodes, or name their "
    "directory as the setup of copytool lsm in the queue's settings"
)


def is_valid_for_copy_in(files: list[FileSpec]) -> bool:
    """Whether all files have a source."""
    return has_scheme(files, ALLOWED_SCHEMES)


def is_valid_for_copy_out(files: list[FileSpec]) -> bool:
    """Whether all files have a destination."""
    return has_scheme(files, ALLOWED_SCHEMES)


def check_for_lsm(dst_in: bool = True) -> bool:
    """Whether the command to get files, or else to put them, is on the PATH (a documented name)."""
    return shutil.which("lsm-get" if dst_in else "lsm-put") is not None


@user_callable
def copy_in(files: list[FileSpec], transfer: Transfer) -> None:
    """Bring files in with lsm-get. Raises PilotException, with the kinds of pilot.copytool.errors."""
    get = find_command("lsm-get", transfer, _ADVICE)
    for spec in files:

        def fetch(target: Path, algorithm: str, spec: FileSpec = spec) -> Copied:
            grown = growth_of(target)
            command = with_setup([get, spec.surl, str(target)], transfer)
            # Some scripts load into a place of their own first: what is written counts, wherever that is.
            run_tool(command, spec, transfer, lambda guarded: grown(guarded) + bytes_written(guarded), read=True)
            if not target.is_file():
                text = f"{spec.lfn}, {spec.surl}: lsm-get says that all is well, but has made no file"
                raise TransferError(text, Kind.OTHER, read=True)
            return Copied(target.stat().st_size, calculate_checksum(str(target), algorithm))

        take_in(spec, transfer, fetch)


@user_callable
def copy_out(files: list[FileSpec], transfer: Transfer) -> None:
    """Take files out with lsm-put, which is told size and checksum and vouches for both.

    Raises PilotException, with the kinds of pilot.copytool.errors.
    """
    put = find_command("lsm-put", transfer, _ADVICE)
    for spec in files:
        source, algorithm = output_path(spec, transfer), transfer.checksum_type
        copied = Copied(source.stat().st_size, calculate_checksum(str(source), algorithm))
        about = ["--size", str(copied.size), "--checksum", f"{algorithm}:{copied.checksum}"]
        about += ["--guid", spec.guid] if spec.guid else []
        spec.filesize = copied.size
        run_tool(with_setup([put, *about, str(source), spec.surl], transfer), spec, transfer, bytes_read, read=False)
        note_sent(spec, transfer, copied)
