"""worker_synchronization: brings what is known of workers into step with what is true, and removes old ones."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.context import Context
from server.logic.workersync import clean, synchronize


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Look at the workers whose time has come."""
    while synchronize(context):
        pass
    clean(context)
    return False
