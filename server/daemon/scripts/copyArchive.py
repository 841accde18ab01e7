"""copyArchive: moves jobs that have been over for some days into the archive, and forgets the oldest ones there."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.archiving import archive_jobs, forget_jobs
from server.logic.context import Context


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Archive what is due."""
    archive_jobs(context)
    forget_jobs(context)
    return False
