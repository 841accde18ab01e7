"""Numbers of jobs over time: stored now and then, read by people and their plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select

from server.db.archive import IS_OVER
from server.db.tables import job_metrics, jobs


class Metric(NamedTuple):
    """A row of `job_metrics`."""

    kind: str
    name: str
    time: float
    jobStatus: str
    n: int


_METRIC = tuple(job_metrics.c[name] for name in Metric._fields)


def last_time(connection: Connection) -> float | None:
    """When numbers were stored last, in s since 1970; None if they never were."""
    found = connection.execute(select(func.max(job_metrics.c.time))).scalar()
    return None if found is None else float(found)


def count_ended(connection: Connection, after: float, until: float) -> list[tuple[str, str, int]]:
    """How many jobs of each queue ended between two times, as (queue, state, number)."""
    ended = select(jobs.c.computingSite, jobs.c.jobStatus, func.count()).where(
        IS_OVER, jobs.c.stateChangeTime > after, jobs.c.stateChangeTime <= until
    )
    rows = connection.execute(ended.group_by(jobs.c.computingSite, jobs.c.jobStatus))
    return [(str(queue), str(status), int(number)) for queue, status, number in rows]


def states_at(connection: Connection, time: float) -> dict[str, int]:
    """How many jobs there were in each state, as the queues' numbers of a time have it."""
    query = select(job_metrics.c.jobStatus, func.sum(job_metrics.c.n))
    query = query.where(job_metrics.c.kind == "queue", job_metrics.c.time == time).group_by(job_metrics.c.jobStatus)
    return {str(status): int(number) for status, number in connection.execute(query)}


def store_metrics(connection: Connection, metrics: Sequence[Metric]) -> None:
    """Add the numbers of one time."""
    if metrics:
        connection.execute(insert(job_metrics), [metric._asdict() for metric in metrics])


def read_metrics(connection: Connection, kind: str, name: str, since: float, limit: int) -> list[Metric]:
    """Numbers since a time, the newest first; of all queues or shares if the name is empty."""
    query = select(*_METRIC).where(job_metrics.c.kind == kind, job_metrics.c.time >= since)
    if name:
        query = query.where(job_metrics.c.name == name)
    query = query.order_by(job_metrics.c.time.desc(), job_metrics.c.name, job_metrics.c.jobStatus)
    return [Metric._make(row) for row in connection.execute(query.limit(limit))]


def forget_metrics(connection: Connection, before: float) -> int:
    """Remove the numbers of before a time; returns how many."""
    return connection.execute(delete(job_metrics).where(job_metrics.c.time < before)).rowcount
