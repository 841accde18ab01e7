"""Generic experiment: what a payload's exit code means beyond the pilot's own tables."""

from __future__ import annotations

import posixpath
import re

from pilot.common.errorcodes import ErrorCodes
from pilot.info.jobdata import JobData

# Transformations that fetch the user's sandbox, and how they end when they cannot (EX_UNAVAILABLE of sysexits.h).
_FETCHES_SANDBOX = re.compile(r"(?:run|build)(?:Gen|Merge|Athena)\b")
_NO_SANDBOX = 69


def interpret(job: JobData, exit_code: int, stderr: str) -> tuple[int, str]:
    """Error code and text of a payload's end (or that of a command around it); (0, "") leaves it to the pilot's tables.

    exit_code: as a shell would say it. stderr: the last 64 KiB. A user's sandbox that runGen and its like could not
    fetch is no failure of the user's program (1246).
    """
    said = [line.strip() for line in stderr.splitlines() if "sandbox" in line]
    if exit_code == _NO_SANDBOX and said and _FETCHES_SANDBOX.match(posixpath.basename(job.transformation)):
        return ErrorCodes.NOUSERTARBALL, "".join(c if c.isprintable() else "?" for c in said[-1][:300])
    return 0, ""
