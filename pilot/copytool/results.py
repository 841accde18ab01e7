"""The documented helpers for copytools of one's own: what a tool's words mean, how long it may take, what arrived.

pilot.copytool.common has them under their documented names. The pilot's own copytools raise TransferError instead, and
use the same table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pilot.common.exception import ConversionFailure
from pilot.copytool.errors import CODES, Kind, classify, raw_words
from pilot.info.filespec import FileSpec
from pilot.util import config
from pilot.util.filehandling import ADLER32, calculate_checksum
from pilot.util.https import Json
from pilot.util.watch import Limits

# What Rucio's traces call a kind of failure (clientState).
STATES = {
    Kind.MISSING: "NO_FILE",
    Kind.DENIED: "PERMISSION_DENIED",
    Kind.DAMAGED: "AD_MISMATCH",
    Kind.SIZE: "FS_MISMATCH",
    Kind.FULL: "NO_SPACE",
    Kind.EXISTS: "FILE_EXISTS",
    Kind.UNREACHABLE: "SERVICE_UNAVAILABLE",
    Kind.STALLED: "TIMEOUT",
    Kind.CUT: "COPY_ERROR",
    Kind.MIDDLEWARE: "NO_MIDDLEWARE",
    Kind.CANCELLED: "CANCELLED",
    Kind.OTHER: "COPY_ERROR",
}


def get_copysetup(copytools: Mapping[str, Json], copytool_name: str) -> str:
    """The `setup` that a queue's `copytools` have for one of them; empty when there is none."""
    options = copytools.get(copytool_name)
    setup = options.get("setup") if isinstance(options, dict) else None
    return setup if isinstance(setup, str) else ""


def get_error_info(rcode: int, state: str, error_msg: str) -> dict[str, int | str]:
    """The dictionary in which errors of transfers are passed on."""
    return {"rcode": rcode, "state": state, "error": error_msg}


def output_line_scan(ret: Mapping[str, int | str], output: str) -> dict[str, int | str]:
    """An error dictionary with the last words of a tool's output as its text; one without words keeps what it has."""
    return {**ret, "error": raw_words(output) or ret["error"]}


def resolve_common_transfer_errors(output: str, is_stagein: bool = True) -> dict[str, int | str]:
    """What a transfer tool's output means: pilot error code, state for traces, and text."""
    rule = classify(output)
    code = CODES[rule.kind][0 if is_stagein else 1]
    return output_line_scan(get_error_info(code, STATES[rule.kind], rule.words), output)


def get_timeout(filesize: int, add: int = 0) -> int:
    """The longest that a transfer of so many bytes may take (s), and `add` seconds more."""
    settings = config.read().file
    limits = Limits(settings.transfer_stall, settings.transfer_limit, settings.transfer_speed_min)
    return int(limits.total(filesize)) + add


def merge_destinations(files: Sequence[Mapping[str, Json]]) -> dict[str, list[Mapping[str, Json]]]:
    """Files, each with a `destination`, by destination.

    Raises ConversionFailure for a file without one.
    """
    merged: dict[str, list[Mapping[str, Json]]] = {}
    for one in files:
        destination = one.get("destination")
        if not isinstance(destination, str):
            raise ConversionFailure(f"file {one.get('name')} has no destination")
        merged.setdefault(destination, []).append(one)
    return merged


def verify_catalog_checksum(fspec: FileSpec, path: str) -> tuple[str, str]:
    """Compare a local file with the checksum that the catalogue has for it: state and diagnostics, both empty if good.

    A file without a checksum gets the one that was computed. Raises OSError.
    """
    algorithm = next(iter(fspec.checksum), ADLER32)
    found, expected = calculate_checksum(path, algorithm), fspec.checksum.get(algorithm)
    if expected in (None, found):
        fspec.checksum = {algorithm: found}
        return "", ""
    fspec.status = "failed"
    state = "AD_MISMATCH" if algorithm == ADLER32 else "MD_MISMATCH"
    return state, f"{fspec.lfn}: {algorithm} of {path} is {found}, the catalogue says {expected}"
