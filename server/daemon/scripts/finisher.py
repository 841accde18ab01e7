"""finisher: asks what has become of outputs on their way, where the plugin of their VO knows it."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.context import Context
from server.logic.finishing import finish_jobs


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Ask once."""
    finish_jobs(context)
    return False
