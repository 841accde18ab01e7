"""tmpwatch: removes sandbox files nobody wants any more, old logs of pilots and agents, and what quiet nodes did."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic import agentlogs, livelog, nodes
from server.logic.context import Context
from server.logic.sandboxes import sweep_sandboxes


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Sweep once."""
    sweep_sandboxes(context)
    livelog.sweep(context)
    nodes.forget_quiet_nodes(context)
    agentlogs.sweep(context)
    return False
