"""add_sub: looks after what add_main and activator should have done and did not, after a crash for instance.

Existing configurations have it for procedures of high frequency; here each of these has a script of its own, and this
one costs a look at two indexes.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.logic.activation import settle_overdue
from server.logic.adder import add_outputs
from server.logic.context import Context


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Make up for what was missed."""
    settle_overdue(context)
    while add_outputs(context):
        pass
    return False
