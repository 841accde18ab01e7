"""When a batch system will end this slot, as far as it tells: from its variables, its files, or one of its commands.

Slurm was tried for real; the outputs of the others are examples from their manuals (tests/golden/batch).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

# hh:mm:ss or dd:hh:mm:ss or plain seconds, as PBS and SGE write durations.
_PARTS = (1, 60, 3600, 86400)
# A ClassAd line with a plain number; expressions cannot be evaluated here.
_CLASSAD = re.compile(r"\s*(\w+)\s*=\s*\"?(\d+(?:\.\d+)?)\"?\s*$")
# What HTCondor's descriptions may say: (attribute with a length, seconds in its unit), counted from when.
_CONDOR_LENGTHS = (
    ("AllowedJobDuration", 1, ("JobCurrentStartDate", "ShadowBday")),
    ("AllowedExecuteDuration", 1, ("JobCurrentStartExecutingDate", "JobCurrentStartDate", "ShadowBday")),
    # HTCondor-CE's, in minutes: routes turn it into a limit.
    ("maxWallTime", 60, ("JobCurrentStartDate", "ShadowBday")),
)
# In the machine's description, seconds since 1970: when a glidein will be gone, and its jobs with it.
_CONDOR_END = "GLIDEIN_ToDie"


def query(system: str, batch_id: str) -> list[str]:
    """The command that tells the limit of a batch job; empty where none is needed or known."""
    commands = {
        "Slurm": ["scontrol", "show", "job", batch_id],
        "SGE": ["qstat", "-j", batch_id],
        "PBS": ["qstat", "-f", batch_id],
        "LSF": ["bjobs", "-noheader", "-o", "time_left", batch_id],
    }
    return commands.get(system, [])


def end_from_environment(environ: Mapping[str, str], started: float) -> float | None:
    """Seconds since 1970, from variables alone. started: when the pilot was, which is a little after its slot."""
    end = _number(environ.get("SLURM_JOB_END_TIME", ""))
    if end:
        return end
    length = _number(environ.get("PBS_WALLTIME", ""))
    return started + length if length else None


def end_from_output(system: str, output: str, now: float, started: float) -> float | None:
    """Seconds since 1970, from what the command of `query` said at `now`; None when it names no limit."""
    if system == "Slurm":
        return _slurm(output)
    if system == "SGE":
        return _sge(output, now, started)
    if system == "PBS":
        return _pbs(output, now, started)
    if system == "LSF":
        return _lsf(output, now)
    return None


def end_from_condor(environ: Mapping[str, str]) -> float | None:
    """Seconds since 1970, from the descriptions of job and machine that HTCondor leaves in the slot."""
    job, machine = (_classad(environ.get(name, "")) for name in ("_CONDOR_JOB_AD", "_CONDOR_MACHINE_AD"))
    ends = [machine[_CONDOR_END]] if machine.get(_CONDOR_END) else []
    for attribute, unit, starts in _CONDOR_LENGTHS:
        begun = next((job[name] for name in starts if job.get(name)), 0.0)
        if job.get(attribute) and begun:
            ends.append(begun + job[attribute] * unit)
    return min(ends, default=None)


def is_preempted(system: str, output: str) -> bool:
    """Whether what the command of `query` said means that the job is being ended for another one.

    Slurm sets PreemptTime when a job's grace begins. Other batch systems do not tell those whom they end.
    """
    fields = dict(re.findall(r"(\S+?)=(\S*)", output)) if system == "Slurm" else {}
    return fields.get("JobState") == "PREEMPTED" or fields.get("PreemptTime", "None") not in ("None", "N/A", "")


def _slurm(output: str) -> float | None:
    """scontrol show job: EndTime is in the node's own time zone. A job without a limit has an EndTime too."""
    fields = dict(re.findall(r"(\S+?)=(\S*)", output))
    if fields.get("TimeLimit") in ("UNLIMITED", None):
        return None
    with suppress(ValueError, OverflowError):
        return time.mktime(time.strptime(fields.get("EndTime", ""), "%Y-%m-%dT%H:%M:%S"))
    return None


def _sge(output: str, now: float, started: float) -> float | None:
    """qstat -j: the hard limits that were asked for; s_rt comes with SIGUSR1, h_rt with SIGKILL."""
    asked = re.search(r"^hard resource_list:\s*(.*)$", output, re.MULTILINE)
    limits = re.findall(r"\b[sh]_rt=([\d:]+)", asked.group(1)) if asked else []
    lengths = [length for length in map(_duration, limits) if length]
    used = re.search(r"^usage\s+\d+:.*\bwallclock=([\d:]+)", output, re.MULTILINE)
    begun = now - (_duration(used.group(1)) or 0.0) if used else started
    return begun + min(lengths) if lengths else None


def _pbs(output: str, now: float, started: float) -> float | None:
    """qstat -f: Torque tells what is left, PBS what was asked for and what is used."""
    fields = dict(re.findall(r"^\s*([\w.]+) = (.*)$", output, re.MULTILINE))
    left = _number(fields.get("Walltime.Remaining", ""))
    if left:
        return now + left
    asked, used = (_duration(fields.get(f"{name}.walltime", "")) for name in ("Resource_List", "resources_used"))
    if not asked:
        return None
    return now + asked - used if used else started + asked


def _lsf(output: str, now: float) -> float | None:
    """bjobs -o time_left: hours:minutes, and L where this is the run limit (E and X are estimates of the user's)."""
    found = re.search(r"^\s*(\d+):(\d+) L\s*$", output, re.MULTILINE)
    return now + int(found.group(1)) * 3600 + int(found.group(2)) * 60 if found else None


def _duration(text: str) -> float | None:
    """Seconds of a duration; None when it is none."""
    with suppress(ValueError):
        parts = [int(part) for part in reversed(text.strip().split(":"))]
        if len(parts) <= len(_PARTS):
            return float(sum(part * unit for part, unit in zip(parts, _PARTS)))
    return None


def _number(text: str) -> float | None:
    with suppress(ValueError):
        return float(int(text.strip()))
    return None


def _classad(path: str) -> dict[str, float]:
    """The plain numbers of a description file; ClassAd names have no case, ours are as documented."""
    found: dict[str, float] = {}
    wanted = {name.lower(): name for row in _CONDOR_LENGTHS for name in (row[0], *row[2])}
    wanted[_CONDOR_END.lower()] = _CONDOR_END
    if path:
        with suppress(OSError):
            for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
                match = _CLASSAD.match(line)
                if match and match.group(1).lower() in wanted:
                    found[wanted[match.group(1).lower()]] = float(match.group(2))
    return found
