"""Which machines have a daemon, and when each was last seen."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select

from server.db.dialect import insert_into
from server.db.tables import daemons


def note_daemon(connection: Connection, node: str, version: str, now: float) -> None:
    """Note that the daemon of a machine is at work."""
    values = {"version": version, "seenTime": now}
    statement = insert_into(connection, daemons).values({"node": node, **values})
    connection.execute(statement.on_conflict_do_update(index_elements=[daemons.c.node], set_=values))


def forget_daemons(connection: Connection, seen_before: float) -> None:
    """Forget machines that were not seen since a time."""
    connection.execute(delete(daemons).where(daemons.c.seenTime < seen_before))


def last_seen(connection: Connection) -> float | None:
    """When any daemon was last seen; None for never."""
    found: float | None = connection.execute(select(func.max(daemons.c.seenTime))).scalar()
    return found
