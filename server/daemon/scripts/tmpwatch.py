"""tmpwatch: removes sandbox files nobody wants any more, and old live logs and agents' logs."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic import agentlogs, livelog
from server.logic.context import Context
from server.logic.sandboxes import sweep_sandboxes


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Sweep once."""
    sweep_sandboxes(context)
    livelog.sweep(context)
    agentlogs.sweep(context)
    return False
