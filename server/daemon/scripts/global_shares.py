"""global_shares: counts what runs of each share and what each queue has, and gives queued jobs their shares anew."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic import shares, statistics
from server.logic.context import Context


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Count, and tag some jobs if there are jobs to be tagged."""
    more = shares.tag_anew(context)
    if not more:
        shares.count_jobs(context)
        statistics.job_counts(context)
    return more
