"""pilotStreaming: tells Harvester how many workers each queue needs."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.context import Context
from server.logic.pilotstreaming import stream


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Order once."""
    stream(context)
    return False
