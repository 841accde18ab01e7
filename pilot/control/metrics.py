"""jobMetrics: what is told of a job in figures, `name=value` pairs separated by blanks. docs/watching.md has the table.

Times are seconds, memory kB (memLimit and diskLimit MB), workDirSize bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Union

from pilot.control.jobrun import JobRun
from pilot.util.features import Features

Value = Union[int, float, str, None]
Source = Callable[[JobRun, Features], Value]

# CPU time over wall time says nothing about a payload that was shorter than this (s): starting it is most of it.
_LEAST_WALL = 1.0
# Bytes in the MB of limits.
_MB = 2**20


def _seconds(phase: str) -> Source:
    return lambda run, features: f"{run.timing[phase]:.3f}" if phase in run.timing else None


def _cores_used(run: JobRun, features: Features) -> Value:
    wall = run.timing.get("payload", 0.0) if run.guarded is not None else 0.0
    return round(run.cpu_time / wall, 2) if wall >= _LEAST_WALL else None


def _job_feature(name: str, unit: int = 1) -> Source:
    return lambda run, features: int(features.job.get(name, 0.0)) // unit


def _either(*sources: Source) -> Source:
    """The first that has a value."""
    return lambda run, features: next((value for source in sources if (value := source(run, features))), None)


def _sampled(source: Source) -> Source:
    """Only for payloads that lived long enough to be sampled."""
    return lambda run, features: source(run, features) if run.usage.samples else None


# What the pilot itself knows, in this order. What has no value is left out.
SOURCES: Mapping[str, Source] = {
    "coreCount": lambda run, features: run.data.corecount,
    "jobStart": lambda run, features: int(run.created),
    "actualCoreCount": _cores_used,
    "payloadWall": lambda run, features: _seconds("payload")(run, features) if run.guarded is not None else None,
    "stageInWall": _seconds("stage-in"),
    "stageOutWall": _seconds("stage-out"),
    "setupWall": _seconds("set-up"),
    "maxNumProc": _sampled(lambda run, features: run.usage.processes),
    "vmPeakMax": lambda run, features: run.usage.maximum.get("vmem"),
    "vmPeakMean": lambda run, features: run.usage.average("vmem"),
    "RSSMean": lambda run, features: run.usage.average("rss"),
    "workDirSize": lambda run, features: max(run.workdir_size, run.usage.workdir),
    "memLimit": _either(
        lambda run, features: run.data.minramcount,
        lambda run, features: run.infosys.queuedata.maxrss,
        _job_feature("max_rss_bytes", _MB),
    ),
    "diskLimit": _either(
        lambda run, features: run.data.maxdiskcount,
        lambda run, features: run.infosys.queuedata.maxwdir,
        _job_feature("scratch_limit_bytes", _MB),
    ),
    "cpuLimit": _either(lambda run, features: run.data.maxcpucount, _job_feature("cpu_limit_secs")),
    "runLimit": _either(
        lambda run, features: run.data.maxwalltime,
        lambda run, features: run.infosys.queuedata.maxtime,
        _job_feature("wall_limit_secs"),
    ),
    "hs06": lambda run, features: features.job.get("hs06_job") or features.machine.get("hs06"),
    "cpuFactor": lambda run, features: features.job.get("cpufactor_lrms"),
    "shutdownTime": lambda run, features: int(features.machine.get("shutdowntime", 0)),
}


def job_metrics(run: JobRun, features: Features) -> dict[str, str]:
    """All that is known of a job. features: what the site tells of machine and job."""
    found = {name: source(run, features) for name, source in SOURCES.items()}
    # The figures of job report and memory table go first: a text that is too long loses its end.
    exceeded = {"exceeded": ",".join(sorted(run.exceeded))} if run.exceeded else {}
    return {**run.figures, **exceeded, **{name: str(value) for name, value in found.items() if value}}
