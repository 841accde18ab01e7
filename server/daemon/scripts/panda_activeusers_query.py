"""panda_activeusers_query, run as proxyCache: keeps the credentials fresh that pilots may fetch."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.context import Context
from server.logic.credentials import refresh


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Make anew what is old."""
    refresh(context)
    return False
