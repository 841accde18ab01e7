"""Any machine: a payload needs nothing before it."""

from __future__ import annotations

from pilot.info.jobdata import JobData


def get_setup(job: JobData | None = None) -> list[str]:
    """Commands for the shell that come before a job's payload, in the same shell: modules to load, variables to set."""
    return []
