"""Generic experiment: whether the pilot looks after a payload's memory."""

from __future__ import annotations


def allow_memory_usage_verifications() -> bool:
    """Whether a payload over its memory limit is ended."""
    return True
