"""event_merger: makes the jobs that merge event ranges, where a submission has said how."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.context import Context
from server.logic.eventmerger import merge_ranges


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Look at the jobsets whose time has come."""
    return merge_ranges(context) > 0
