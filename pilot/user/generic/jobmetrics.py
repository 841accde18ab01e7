"""Generic experiment: what goes into jobMetrics."""

from __future__ import annotations

from collections.abc import Mapping

from pilot.info.jobdata import JobData

# What a definition itself says, by its name in jobMetrics.
_DEFINED = {
    "coreCount": "corecount",
    "memLimit": "minramcount",
    "diskLimit": "maxdiskcount",
    "cpuLimit": "maxcpucount",
    "runLimit": "maxwalltime",
}


def get_job_metrics(job: JobData, metrics: Mapping[str, str] | None = None) -> str:
    """The text for jobMetrics, `name=value` pairs separated by blanks: a server keeps 500 characters.

    metrics: what the pilot knows of the job, by name (docs/watching.md has the table); without it, what the definition
    says. An experiment may leave out, reorder and add: what comes first is kept when the text is too long.
    """
    if metrics is None:
        metrics = {name: str(getattr(job, field)) for name, field in _DEFINED.items() if getattr(job, field)}
    return " ".join(f"{name}={value}" for name, value in metrics.items())
