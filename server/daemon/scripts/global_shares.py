"""global_shares: counts what runs of each share, and gives queued jobs their shares anew when shares have changed."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic import shares
from server.logic.context import Context


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Count, and tag some jobs if there are jobs to be tagged."""
    more = shares.tag_anew(context)
    if not more:
        shares.count_jobs(context)
    return more
