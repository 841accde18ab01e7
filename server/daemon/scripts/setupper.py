"""setupper: prepares the inputs of jobs, where the plugin of their VO wants that."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.context import Context
from server.logic.setupper import prepare_jobs


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Prepare what is pending or defined."""
    prepare_jobs(context)
    return False
