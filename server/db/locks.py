"""Locks of daemon scripts that run on one machine at a time."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from server.db.dialect import insert_into
from server.db.tables import daemon_locks

#: When to ask again for a script that another machine has run for longer than its period, in s.
_STILL_RUNNING = 10.0


def take_turn(connection: Connection, name: str, owner: str, period: float, timeout: float, now: float) -> float:
    """Take a script's lock if nobody has it and its period is over, counted over all machines.

    Args:
        period, timeout: s; after the time-out the lock is free again, whatever became of its owner.

    Returns:
        0 if the lock is the owner's now, else when to ask again, in s.
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
    if connection.execute(statement).rowcount == 1:
        return 0.0
    begun = connection.execute(select(daemon_locks.c.begunTime).where(daemon_locks.c.name == name)).scalar_one()
    left = float(begun) + period - now
    return left if left > 0 else min(period, _STILL_RUNNING) or _STILL_RUNNING


def keep(connection: Connection, name: str, owner: str, timeout: float, now: float) -> bool:
    """Have a script's lock for another time-out from now on; False if it is not the owner's any more."""
    statement = (
        update(daemon_locks)
        .where(daemon_locks.c.name == name, daemon_locks.c.owner == owner)
        .values(lockedUntil=now + timeout)
    )
    return connection.execute(statement).rowcount == 1


def give_back(connection: Connection, name: str, owner: str) -> None:
    """Free a script's lock, if it still is the owner's."""
    connection.execute(
        update(daemon_locks)
        .where(daemon_locks.c.name == name, daemon_locks.c.owner == owner)
        .values(owner=None, lockedUntil=0.0)
    )
