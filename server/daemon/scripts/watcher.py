"""watcher: gives up jobs whose pilot fell silent, and jobs stuck in a state."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.context import Context
from server.logic.watcher import watch_jobs


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Look at the jobs whose time has come."""
    return watch_jobs(context) > 0
