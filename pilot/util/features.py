"""Machine and job features: what a site tells a slot about itself (HSF-TN-2016-02), as files with one value each.

MACHINEFEATURES and JOBFEATURES name a directory each. The note allows URLs too; those are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

# What is used of them: names in the note, and of its forerunner the factor by which the batch system scales CPU time.
# Times are seconds since 1970, limits seconds or bytes.
_MACHINE = ("hs06", "shutdowntime", "total_cpu")
_JOB = (
    "shutdowntime_job", "wall_limit_secs", "jobstart_secs", "hs06_job", "cpu_limit_secs", "max_rss_bytes",
    "scratch_limit_bytes", "cpufactor_lrms",
)  # fmt: skip


@dataclass(frozen=True)
class Features:
    """Values by name, those of the machine and of the job; what a site does not tell is not there."""

    machine: Mapping[str, float] = field(default_factory=dict)
    job: Mapping[str, float] = field(default_factory=dict)

    def ends(self, started: float) -> dict[str, float]:
        """When the slot ends (seconds since 1970), by the name of what says so. started: when the pilot was."""
        found = {"machine feature shutdowntime": self.machine.get("shutdowntime", 0.0)}
        found["job feature shutdowntime_job"] = self.job.get("shutdowntime_job", 0.0)
        if self.job.get("wall_limit_secs"):
            begun = self.job.get("jobstart_secs") or started
            found["job feature wall_limit_secs"] = begun + self.job["wall_limit_secs"]
        return {name: when for name, when in found.items() if when > 0}


def read_features(environ: Mapping[str, str]) -> Features:
    """Read both directories. A site may add values while a job runs (shutdowntime above all)."""
    return Features(_read(environ.get("MACHINEFEATURES", ""), _MACHINE), _read(environ.get("JOBFEATURES", ""), _JOB))


def _read(directory: str, names: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    if directory.startswith("/"):
        for name in names:
            with suppress(OSError, ValueError):
                found[name] = float(Path(directory, name).read_text(encoding="utf-8"))
    return found
