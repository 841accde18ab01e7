"""metric_collector: stores how many jobs each queue has in each state, and how many ended."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.context import Context
from server.logic.metrics import collect_metrics


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Collect once."""
    collect_metrics(context)
    return False
