"""What copytools share that have several ways to move a file, with a library or with commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol as Interface

from pilot.common.exception import PilotException
from pilot.copytool.common import Transfer, check_room, note_sent, output_path, take_in, verify_stored
from pilot.copytool.errors import HALF_WRITTEN, Kind, TransferError
from pilot.copytool.reasons import credentials_looked_at
from pilot.copytool.runner import for_removal
from pilot.info.filespec import FileSpec
from pilot.util.filehandling import Copied

# XRootD's own patience, in its library, its commands and gfal2, unless the site has set it: one try to connect, which
# it gives up after 30 s. Its defaults, 5 tries of 120 s, make it ten minutes; the pilot has other places to try, and
# comes back to this one with a pause of its own.
XROOTD_PATIENCE = {"XRD_CONNECTIONRETRY": "1", "XRD_CONNECTIONWINDOW": "20"}


class Way(Interface):
    """How a copytool moves one file.

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


def bring_all(files: Sequence[FileSpec], transfer: Transfer, way: Way) -> None:
    """Stage-in of files, one after the other. Raises PilotException: what the way and take_in raise."""
    for spec in files:
        take_in(spec, transfer, partial(way.get, spec, transfer))


def send_all(files: Sequence[FileSpec], transfer: Transfer, way: Way) -> None:
    """Stage-out of files, one after the other. Raises as send_out."""
    for spec in files:
        send_out(spec, transfer, way)


def send_out(spec: FileSpec, transfer: Transfer, way: Way) -> None:
    """One stage-out: send a file, compare it with what lies in storage then, and leave nothing of a failed upload.

    Raises PilotException: what the way raises, MISSINGOUTPUTFILE, FILEEXISTS, PUTADMISMATCH, PUTMD5MISMATCH.
    """
    source = output_path(spec, transfer)
    spec.filesize = source.stat().st_size
    # Looked at before, so that what is removed after a failure is never what somebody else has stored.
    with credentials_looked_at(spec.surl, transfer.environ, read=False):
        there = not transfer.may_replace and way.exists(spec, transfer)
    if there:
        text = f"{spec.surl} is there already, and is not overwritten: give the output another name"
        raise TransferError(text, Kind.EXISTS, read=False)
    with credentials_looked_at(spec.surl, transfer.environ, read=False):
        # In here: whatever the reason is found to be, a connection that was cut leaves its half.
        try:
            sent, stored = way.put(spec, transfer, source)
            verify_stored(spec, sent, stored, transfer.checksum_type, spec.surl)
        except TransferError as exc:
            if exc.kind in HALF_WRITTEN:
                clean_up(exc, spec, transfer, lambda brief: way.remove(spec, brief))
            raise
    note_sent(spec, transfer, sent)


def clean_up(error: TransferError, spec: FileSpec, transfer: Transfer, remove: Callable[[Transfer], object]) -> None:
    """Remove what a failed upload may have left; where that fails, too, the upload's error says so (`leftover`).

    remove: does it, and raises PilotException when it cannot.
    """
    try:
        remove(for_removal(transfer))
    except PilotException as exc:
        if not (isinstance(exc, TransferError) and exc.kind is Kind.MISSING):
            error.leftover = True
            transfer.log.warning("%s may be left half-written: %s", spec.surl, exc.diag)


def check_whole(spec: FileSpec, target: Path, size: int) -> None:
    """Compare a file that has come in with the size (bytes) that it has where it comes from.

    XRootD's programs and library, in gfal2 too, do not look at how much of a block could be written, and compute
    checksums from memory: a file that ends where the disk was full is a success to them.
    Raises TransferError(FULL or CUT).
    """
    came = target.stat().st_size
    if came < size:
        check_room(spec, target)
    if came != size:
        raise TransferError(f"{spec.lfn}, {spec.surl}: {came} of {size} bytes have arrived", Kind.CUT, read=True)


def check_arrived(spec: FileSpec, algorithm: str, checksum: str, told: str) -> None:
    """Compare a file that no catalogue has a checksum for with what its server tells, if it tells anything.

    Raises TransferError(DAMAGED).
    """
    if told and told != checksum:
        text = f"{spec.lfn} arrived with {algorithm} {checksum}, {spec.surl} has {told}"
        raise TransferError(text, Kind.DAMAGED, read=True)
