"""What all copytools share: their arguments, and the comparison of what arrived with what was expected.

A copytool is a module with `is_valid_for_copy_in(files)`, `is_valid_for_copy_out(files)`, `copy_in(files, transfer)`
and
`copy_out(files, transfer)`. The two copy functions move the files one after the other, set `status`, `filesize` and
`checksum` of each, and raise a PilotException for the first that fails. Nothing half-written is left under a file's
name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.info.filespec import FileSpec
from pilot.util.filehandling import ADLER32, Copied


@dataclass(frozen=True)
class Transfer:
    """workdir: the job's directory; checksum_type: for outputs; cancelled: asked between blocks; log: the pilot's log.

    options: the queue's setting for this copytool (`copytools[NAME]`). may_replace: whether a file that is at the
    destination already can be that of an earlier attempt of the same job, and may be replaced.
    """

    workdir: Path
    checksum_type: str
    cancelled: Callable[[], bool]
    log: logging.Logger
    options: dict[str, str]
    may_replace: bool = False


class CopyTool(Interface):
    """The contract, for type checkers."""

    def is_valid_for_copy_in(self, files: list[FileSpec]) -> bool: ...

    def is_valid_for_copy_out(self, files: list[FileSpec]) -> bool: ...

    def copy_in(self, files: list[FileSpec], transfer: Transfer) -> None: ...

    def copy_out(self, files: list[FileSpec], transfer: Transfer) -> None: ...


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
        raise PilotException(text, code=ErrorCodes.STAGEINFAILED)
    expected = spec.checksum.get(algorithm)
    if expected and copied.checksum != expected:
        text = f"{spec.lfn} from {where} has {algorithm} {copied.checksum}, the catalogue says {expected}"
        code = ErrorCodes.GETADMISMATCH if algorithm == ADLER32 else ErrorCodes.GETMD5MISMATCH
        raise PilotException(text, code=code)


def verify_stored(spec: FileSpec, copied: Copied, stored: Copied, algorithm: str, where: str) -> None:
    """Compare what lies in storage with what was sent. Raises PilotException(PUTADMISMATCH or PUTMD5MISMATCH)."""
    if copied != stored:
        text = (
            f"{spec.lfn} was sent with {copied.size} bytes and {algorithm} {copied.checksum}, "
            f"but {where} has {stored.size} bytes and {stored.checksum}"
        )
        raise PilotException(text, code=ErrorCodes.PUTADMISMATCH if algorithm == ADLER32 else ErrorCodes.PUTMD5MISMATCH)
