"""Is something of this job too large? Sizes of output, directory and files, space on the disk, and what a job said it
would need."""

from __future__ import annotations

from collections.abc import Mapping

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException

_MB = 2**20


def stdout_verdict(size: int, limit_kb: int) -> PilotException | None:
    """size: bytes of the payload's stdout and stderr; limit_kb: kB."""
    if size <= limit_kb * 1024:
        return None
    text = f"the payload's stdout and stderr have {size} bytes, {limit_kb * 1024} are allowed"
    return PilotException(text, code=ErrorCodes.STDOUTTOOBIG)


def workdir_verdict(size: int, limit_mb: int) -> PilotException | None:
    """size: bytes of the job's directory; limit_mb: MB, 0 for no limit."""
    if limit_mb == 0 or size <= limit_mb * _MB:
        return None
    text = f"the job's directory has {size} bytes, the queue allows {limit_mb * _MB}"
    return PilotException(text, code=ErrorCodes.USERDIRTOOLARGE)


def space_verdict(free: int, least: int) -> PilotException | None:
    """free: bytes left on the work disk; least: bytes needed to go on."""
    if free >= least:
        return None
    text = f"only {free} bytes are left on the work disk, {least} are needed to go on"
    return PilotException(text, code=ErrorCodes.NOLOCALSPACE)


def output_verdict(sizes: Mapping[str, int], limit: int) -> PilotException | None:
    """sizes: bytes of each output file that is there; limit: bytes of one."""
    for name, size in sizes.items():
        if size > limit:
            text = f"output file {name} has {size} bytes already, {limit} are allowed"
            return PilotException(text, code=ErrorCodes.OUTPUTFILETOOLARGE)
    return None


def exceeded_requests(
    *, disk: int, maxdiskcount: int, cpu: float, maxcpucount: int, wall: float, maxwalltime: int
) -> dict[str, str]:
    """What of its own requests a job has used up, by the field's name, with a sentence; 0 means not asked for.

    disk: bytes; maxdiskcount: MB; the others: seconds. These requests placed the job, as an estimate does: going beyond
    them harms nobody as long as the queue's limits, the disk and the slot hold, so they are told and never enforced.
    """
    checks = {
        "maxDiskCount": (disk / _MB, maxdiskcount, "MB of disk"),
        "maxCpuCount": (cpu, maxcpucount, "s of CPU time"),
        "maxWalltime": (wall, maxwalltime, "s of wall time"),
    }
    return {
        name: f"the payload has used {used:.0f} {unit}, it had asked for {asked} ({name})"
        for name, (used, asked, unit) in checks.items()
        if asked > 0 and used > asked
    }
