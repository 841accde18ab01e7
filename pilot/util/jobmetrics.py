"""jobMetrics, the figures of a job that a server keeps (documented names)."""

from __future__ import annotations

from pilot.util.config import read
from pilot.util.plugins import Plugins, folders_of


def get_job_metrics_entry(name: str, value: object) -> str:
    """One figure with the blank that ends it: "nEvents=5 "; empty for a value that is not set (None, empty, 0)."""
    return f"{name}={value} " if value else ""


def get_job_metrics(job: object) -> str:
    """The figures that the experiment's plugin has for a job: name=value pairs, separated by blanks.

    Raises PilotException(NOTDEFINED) when there is no such plugin.
    """
    experiment = read().experiment
    plugins = Plugins(experiment.name, folders_of(experiment.path))
    return str(plugins.hook("jobmetrics", "get_job_metrics")(job) or "")
