"""class_cleaner: removes classes of jobs that have not been used for a day, so that getJob compares with few."""

from __future__ import annotations

from collections.abc import Sequence

from server.db import dispatch
from server.logic.context import Context

#: s; much more than the hour after which a class in use is marked again.
_UNUSED = 86400


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Clean once."""
    with context.database.durable() as connection:
        dispatch.remove_unused_classes(connection, context.clock() - _UNUSED)
    return False
