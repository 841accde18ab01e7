"""Locks of daemon scripts that run on one machine at a time."""

from __future__ import annotations

from sqlalchemy import Connection, update

from server.db.dialect import insert_into
from server.db.tables import daemon_locks


def take_turn(connection: Connection, name: str, owner: str, period: float, timeout: float, now: float) -> bool:
    """Take a script's lock if nobody has it and its period is over, counted over all machines.

    Args:
        period, timeout: s; after the time-out the lock is free again, whatever became of its owner.
    """
    fresh = {"name": name, "owner": None, "lockedUntil": 0.0, "begunTime": 0.0}
    connection.execute(insert_into(connection, daemon_locks).values(fresh).on_conflict_do_nothing())
    statement = (
        update(daemon_locks)
        .where(
            daemon_locks.c.name == name,
            daemon_locks.c.lockedUntil <= now,
            daemon_locks.c.begunTime <= now - period,
        )
        .values(owner=owner, lockedUntil=now + timeout, begunTime=now)
    )
    return connection.execute(statement).rowcount == 1


def give_back(connection: Connection, name: str, owner: str) -> None:
    """Free a script's lock, if it still is the owner's."""
    connection.execute(
        update(daemon_locks)
        .where(daemon_locks.c.name == name, daemon_locks.c.owner == owner)
        .values(owner=None, lockedUntil=0.0)
    )
