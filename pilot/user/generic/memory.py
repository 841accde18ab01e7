"""Generic experiment: whether the pilot looks after a payload's memory."""

from __future__ import annotations

from pilot.info.jobdata import JobData


def allow_memory_usage_verifications() -> bool:
    """Whether a payload over its memory limit is ended."""
    return True


def memory_usage(job: JobData) -> tuple[int, str]:
    """Called at each measurement of the payload: error code and text of what is to end it; (0, "") for nothing."""
    return 0, ""
