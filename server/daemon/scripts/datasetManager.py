"""datasetManager: follows how far datasets have come, and closes those that nothing happens to any more."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.context import Context
from server.logic.datasets import manage_datasets


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Look at what is due."""
    manage_datasets(context)
    return False
