"""Storages to which nothing may be written now, and which queues that concerns."""

from __future__ import annotations

from collections.abc import Mapping

from server.db import information, sources
from server.db.database import Connection
from server.db.information import Description
from server.logic.cricforms import WRITE

#: The source whose entries say which storages are closed (server/logic/cric.py).
BLACKLIST = "blacklist"


def closed_storages(connection: Connection) -> dict[str, str]:
    """{RSE: why} of storages to which nothing may be written: not in state ACTIVE, or on the blacklist."""
    closed: dict[str, str] = {}
    for name, description in information.read_storages(connection).items():
        if (state := description.get("state")) != "ACTIVE":
            closed[name] = f"it is in state {state}"
    for name, found in sources.read_entries(connection, BLACKLIST).items():
        if isinstance(found.entry, dict) and WRITE in found.entry:
            closed[name] = str(found.entry[WRITE])
    return closed


def excluded_of(description: Description, closed: Mapping[str, str]) -> dict[str, str] | None:
    """Those of the closed storages that a queue's description names, with the reason; None if there are none."""
    storages = description.get("astorages")
    named = [names for names in storages.values() if isinstance(names, list)] if isinstance(storages, dict) else []
    return {name: closed[name] for names in named for name in names if name in closed} or None


def exclude_closed(connection: Connection) -> dict[str, dict[str, str] | None]:
    """Tell every queue which of its storages are closed, in the caller's transaction.

    Returns:
        The queues for which that is something new, with {RSE: why} of what they may not write to, None if nothing.
    """
    closed = closed_storages(connection)
    changed: dict[str, dict[str, str] | None] = {}
    for queue in information.read_queues(connection):
        excluded = excluded_of(queue.description, closed)
        if excluded != queue.excluded:
            information.set_excluded(connection, queue.name, excluded)
            changed[queue.name] = excluded
    return changed
