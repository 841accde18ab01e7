"""add_main: gives jobs whose final report has come their final state."""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.adder import add_outputs
from server.logic.context import Context


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Deal with the reports that are there."""
    return add_outputs(context) > 0
