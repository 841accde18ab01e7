"""fast_rebrokerage: has brokers look at the jobs of queues that have too many of a share."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.context import Context
from server.logic.fastrebrokerage import rebroker


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Look once."""
    rebroker(context)
    return False
