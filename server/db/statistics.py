"""How many jobs each queue has that are not over, or have ended lately: counted now and then, read often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from server.db.archive import IS_OVER
from server.db.dialect import insert_into
from server.db.tables import counters, job_statistics, jobs


class JobCount(NamedTuple):
    """How many jobs of one kind a queue has; the fields are columns of `job_statistics`."""

    computingSite: str
    prodSourceLabel: str
    resource_type: str
    jobStatus: str
    gshare: str
    n: int
    maxPriority: int


class Counted(NamedTuple):
    """What was counted, and when (s since 1970; 0 for never)."""

    time: float
    counts: list[JobCount]


#: The counter that has the time of the last count, in ms since 1970.
_TIME = "job_statistics"
_KIND = tuple(jobs.c[name] for name in ("computingSite", "prodSourceLabel", "resource_type", "jobStatus", "gshare"))


_COUNTED = select(*_KIND, func.count(), func.max(jobs.c.currentPriority)).group_by(*_KIND)
_ENDED = _COUNTED.where(IS_OVER, jobs.c.stateChangeTime > bindparam("since"))


def count_jobs(connection: Connection, statuses: Sequence[str]) -> list[JobCount]:
    """Count the jobs in these states. It reads all of them, so call it seldom."""
    return [JobCount._make(row) for row in connection.execute(_COUNTED.where(jobs.c.jobStatus.in_(statuses)))]


def count_ended(connection: Connection, since: float) -> list[JobCount]:
    """Count the jobs that have ended since a time (s since 1970). It reads those by their index, and no others."""
    return [JobCount._make(row) for row in connection.execute(_ENDED, {"since": since})]


def store_counts(connection: Connection, counts: Sequence[JobCount], time: float) -> None:
    """Store a count in place of the one before. time: when it was made, in s since 1970."""
    statement = insert_into(connection, counters).values(name=_TIME, value=int(time * 1000))
    values = {"value": int(time * 1000)}
    connection.execute(statement.on_conflict_do_update(index_elements=[counters.c.name], set_=values))
    connection.execute(delete(job_statistics))
    if counts:
        connection.execute(insert(job_statistics), [count._asdict() for count in counts])


def read_counts(connection: Connection) -> Counted:
    """The last count."""
    time = connection.execute(select(counters.c.value).where(counters.c.name == _TIME)).scalar() or 0
    query = select(*(job_statistics.c[name] for name in JobCount._fields))
    order = (job_statistics.c.computingSite, job_statistics.c.prodSourceLabel, job_statistics.c.resource_type)
    rows = connection.execute(query.order_by(*order, job_statistics.c.jobStatus))
    return Counted(time / 1000, [JobCount._make(row) for row in rows])
