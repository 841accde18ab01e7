"""The archive's policy: when jobs that are over move there, and when they are forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.db import archive, eventmerges
from server.db.archive import DAY
from server.db.database import Connection
from server.logic import configuration
from server.logic.context import Context

#: Jobs moved in one transaction: on SQLite all other writers wait for so long, a few hundredths of a second.
_BATCH = 100
#: Jobs removed in one transaction where a day cannot be dropped as a whole.
_FORGOTTEN = 500
#: So many days are made before they are needed.
_AHEAD = 2


def archive_jobs(context: Context) -> int:
    """Move the jobs whose time has come; returns how many."""
    now = context.clock()
    over_since = now - _days(context, "AFTER_DAYS") * DAY
    first, last = int(over_since // DAY), int(now // DAY) + _AHEAD
    with context.database.durable() as connection:
        archive.make_days(connection, range(first, last + 1))
    walk = _Walk()
    while _move(context, over_since, first, walk):
        pass
    return walk.moved


@dataclass
class _Walk:
    """How far the jobs have been looked through that are over.

    Attributes:
        time: when the last one ended.
        kept: pools of event ranges of those that ended at that very time and are kept.
        moved: how many went into the archive.
    """

    time: float = 0.0
    kept: set[str] = field(default_factory=set)
    moved: int = 0


def _move(context: Context, over_since: float, first: int, walk: _Walk) -> bool:
    """One transaction: whatever ends this process leaves each job in one place, the old or the new."""
    with context.database.durable() as connection:
        found = archive.find_old_jobs(connection, walk.time, walk.kept, over_since, _BATCH)
        living = {pool for pool in {job.pool for job in found if job.pool} if _lives(context, connection, pool)}
        old = [job for job in found if job.pool not in living]
        archive.make_days(connection, sorted({job.day for job in old if job.day < first}))
        if old:
            archive.archive(connection, old)
    walk.moved += len(old)
    if found:
        last = found[-1].time
        kept = {job.pool for job in found if job.time == last and job.pool in living}
        walk.kept = {*(walk.kept if last == walk.time else ()), *(pool for pool in kept if pool)}
        walk.time = last
    return bool(found)


def _lives(context: Context, connection: Connection, pool: str) -> bool:
    """Whether jobs that share a pool of event ranges are not over, or what they have done is still to be merged.

    Their ranges would go into the archive with them, and a merge job would find nothing.
    """
    since = context.clock() - _days(context, "EVENTS_DAYS") * DAY
    return eventmerges.has_living_jobs(connection, pool) or eventmerges.has_done_ranges(connection, pool, since)


def forget_jobs(context: Context) -> int:
    """Forget the days of the archive that nobody wants to keep any more; returns how many."""
    keep = _days(context, "KEEP_DAYS")
    if not keep:
        return 0
    with context.database.reading() as connection:
        days = archive.find_days(connection, int((context.clock() - keep * DAY) // DAY))
    for day in days:
        gone = False
        while not gone:
            with context.database.durable() as connection:
                gone = archive.drop_day(connection, day, _FORGOTTEN)
    return len(days)


def _days(context: Context, key: str) -> float:
    return configuration.number(context, "archive", key) or 0
