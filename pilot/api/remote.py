"""Whether files that a payload is to read where they lie can be opened there, found out before it starts.

Each is opened by the copytool that speaks its scheme (`OPENERS` in pilot.copytool.tools), several at a time and each
within a time limit. Files of other schemes are taken as they are.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool import tools as copytools
from pilot.copytool.common import Transfer, scheme_of
from pilot.copytool.errors import Kind, kind_of
from pilot.info.filespec import FileSpec
from pilot.util.parallel import in_parallel
from pilot.util.watch import Limits

# What stands for a copytool in the table of attempts when nothing was copied.
REMOTE_IO_TOOL = "remote_io"


@dataclass(frozen=True)
class Opening:
    """What came of one file. seconds: how long it took; error: None when it opens, or could not be looked at."""

    spec: FileSpec
    seconds: float
    error: PilotException | None


def open_files(
    specs: Sequence[FileSpec],
    transfer_for: Callable[[str], Transfer],
    limit: float,
    at_once: int,
    log: logging.Logger,
) -> list[Opening]:
    """Try to open files at their turl. transfer_for: makes what a copytool is given; limit: s for each file.

    at_once: how many are tried at the same time. Raises the error of a file when the work was cancelled.
    """
    found: dict[str, Opening] = {}

    def look(spec: FileSpec) -> None:
        tool, error, started = copytools.OPENERS.get(scheme_of(spec.turl)), None, time.monotonic()
        if tool is None:
            log.info("%s is not opened for a test: no copytool here opens %s", spec.lfn, spec.turl)
        else:
            transfer = replace(transfer_for(tool), limits=Limits(limit, limit, 1.0))
            try:
                # A size would lengthen the limit.
                copytools.load_opens(tool)(replace(spec, surl=spec.turl, filesize=0), transfer)
            except PilotException as exc:
                if kind_of(exc) is Kind.CANCELLED:
                    raise
                error = exc
        found[spec.lfn] = Opening(spec, time.monotonic() - started, error)

    in_parallel(specs, look, at_once, "remote-open")
    return [found[spec.lfn] for spec in specs]


def open_error(openings: Sequence[Opening]) -> PilotException | None:
    """The error that tells of all files that do not open, or None: 1368 when no server answers in time, else 1361."""
    failed = [(one.spec, one.error) for one in openings if one.error is not None]
    if not failed:
        return None
    late = all(kind_of(error) is Kind.STALLED for _, error in failed)
    code = ErrorCodes.REMOTEFILEOPENTIMEDOUT if late else ErrorCodes.REMOTEFILECOULDNOTBEOPENED
    reasons = "; ".join(error.diag for _, error in failed)
    return PilotException(f"{len(failed)} of {len(openings)} remote files do not open: {reasons}", code=code)
