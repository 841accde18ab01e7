"""How many jobs each queue has that are not over, or have ended lately: counted now and then, read often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from server.db.archive import IS_OVER
from server.db.tables import job_statistics, jobs


class JobCount(NamedTuple):
    """How many jobs of one kind a queue has; the fields are columns of `job_statistics`."""

    computingSite: str
    prodSourceLabel: str
    resource_type: str
    jobStatus: str
    gshare: str
    n: int
    maxPriority: int


_KIND = tuple(jobs.c[name] for name in ("computingSite", "prodSourceLabel", "resource_type", "jobStatus", "gshare"))


_COUNTED = select(*_KIND, func.count(), func.max(jobs.c.currentPriority)).group_by(*_KIND)
_ENDED = _COUNTED.where(IS_OVER, jobs.c.stateChangeTime > bindparam("since"))


def count_jobs(connection: Connection, statuses: Sequence[str]) -> list[JobCount]:
    """Count the jobs in these states. It reads all of them, so call it seldom."""
    return [JobCount._make(row) for row in connection.execute(_COUNTED.where(jobs.c.jobStatus.in_(statuses)))]


def count_ended(connection: Connection, since: float) -> list[JobCount]:
    """Count the jobs that have ended since a time (s since 1970). It reads those by their index, and no others."""
    return [JobCount._make(row) for row in connection.execute(_ENDED, {"since": since})]


def store_counts(connection: Connection, counts: Sequence[JobCount]) -> None:
    """Store a count in place of the one before."""
    connection.execute(delete(job_statistics))
    if counts:
        connection.execute(insert(job_statistics), [count._asdict() for count in counts])


def read_counts(connection: Connection) -> list[JobCount]:
    """The last count."""
    query = select(*(job_statistics.c[name] for name in JobCount._fields))
    order = (job_statistics.c.computingSite, job_statistics.c.prodSourceLabel, job_statistics.c.resource_type)
    return [JobCount._make(row) for row in connection.execute(query.order_by(*order, job_statistics.c.jobStatus))]
