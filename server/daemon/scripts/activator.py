"""activator: finds jobs whose inputs are there, or lost, and nobody has told them (after a crash, for instance)."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.activation import settle_overdue
from server.logic.context import Context


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Settle what was missed."""
    settle_overdue(context)
    return False
