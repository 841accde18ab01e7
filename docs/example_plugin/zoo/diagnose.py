"""What the zoo's programs mean by their exit codes."""

from __future__ import annotations

from pilot.common.errorcodes import ErrorCodes
from pilot.info.jobdata import JobData

# The feeding program ends so when there is no food on the node's disk.
_NO_FOOD = 42


def interpret(job: JobData, exit_code: int, stderr: str) -> tuple[int, str]:
    """Exit code 42 is the node's fault, and the job can be run elsewhere."""
    if exit_code == _NO_FOOD:
        return ErrorCodes.NOLOCALSPACE, "there is no food on this node's disk"
    return 0, ""
