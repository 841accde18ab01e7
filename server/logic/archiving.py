"""The archive's policy: when jobs that are over move there, and when they are forgotten."""

from __future__ import annotations

from server.db import archive
from server.db.archive import DAY
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
    moved = 0
    while number := _move(context, over_since, first):
        moved += number
    return moved


def _move(context: Context, over_since: float, first: int) -> int:
    """One transaction: whatever ends this process leaves each job in one place, the old or the new."""
    with context.database.durable() as connection:
        old = archive.find_old_jobs(connection, over_since, _BATCH)
        archive.make_days(connection, sorted({job.day for job in old if job.day < first}))
        if old:
            archive.archive(connection, old)
    return len(old)


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
