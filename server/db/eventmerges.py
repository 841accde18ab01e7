"""Which jobs share which event ranges, and how those are merged once all are settled."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, select, text, update

from server.db.jobs import batches
from server.db.tables import JOB_OVER, event_jobs, event_merges, event_ranges, jobs

#: States of ranges of which it is not known yet how they end.
_OPEN = ("ready", "sent", "running", "finished", "failed")


class Merge(NamedTuple):
    """A row of `event_merges`."""

    pool: str
    prodUserName: str
    plan: Mapping[str, object]
    state: str
    reason: str
    creationTime: float
    lookTime: float | None


class DoneRange(NamedTuple):
    """A range that is done and not merged yet, with the archive it is in and the job that merges it, if there are."""

    rangeID: int
    PandaID: int
    archive: str | None
    mergeID: int | None


_MERGE = tuple(event_merges.c[name] for name in Merge._fields)


def add_event_jobs(connection: Connection, pools: Mapping[int, str]) -> None:
    """Note whose ranges jobs share, by PandaID."""
    if pools:
        connection.execute(insert(event_jobs), [{"PandaID": job_id, "pool": pool} for job_id, pool in pools.items()])


def add_heir(connection: Connection, job_id: int, heir: int, pool: str) -> None:
    """A job of the event service goes on as another one, whose pool is the one of both from now on."""
    before = connection.execute(select(event_jobs.c.pool).where(event_jobs.c.PandaID == job_id)).scalar()
    if before is None:
        return
    if before != pool:
        for table in (event_jobs, event_merges, event_ranges):
            connection.execute(update(table).where(table.c.pool == before).values(pool=pool))
    add_event_jobs(connection, {heir: pool})


def add_merge(connection: Connection, merge: Merge) -> None:
    """Store how the ranges of a pool are to be merged."""
    connection.execute(insert(event_merges).values(merge._asdict()))


def read_merge(connection: Connection, job_id: int) -> Merge | None:
    """How the ranges are to be merged that a job shares, if somebody has said so."""
    of_job = select(*_MERGE).join_from(event_merges, event_jobs, event_merges.c.pool == event_jobs.c.pool)
    row = connection.execute(of_job.where(event_jobs.c.PandaID == job_id)).first()
    return Merge._make(row) if row else None


def lock_merge(connection: Connection, pool: str) -> Merge | None:
    """How the ranges of a pool are to be merged, for a durable transaction: nobody else decides on it meanwhile."""
    row = connection.execute(select(*_MERGE).where(event_merges.c.pool == pool).with_for_update()).first()
    return Merge._make(row) if row else None


def find_due(connection: Connection, now: float, limit: int) -> list[str]:
    """The pools whose time to be looked at has come, the most overdue first."""
    due = event_merges.c.lookTime
    query = select(event_merges.c.pool).where(due.is_not(None), due <= now).order_by(due).limit(limit)
    return list(connection.execute(query).scalars())


def set_merge_state(connection: Connection, pool: str, state: str, reason: str, look_time: float | None) -> None:
    """Note how far the merging of a pool is, and when it must be looked at next."""
    values = {"state": state, "reason": reason[:500], "lookTime": look_time}
    connection.execute(update(event_merges).where(event_merges.c.pool == pool).values(values))


def look_soon(connection: Connection, pools: Collection[str], now: float) -> None:
    """Something has happened to these pools: they must be looked at."""
    for some in batches(sorted(pools)):
        connection.execute(update(event_merges).where(event_merges.c.pool.in_(some)).values(lookTime=now))


def look_soon_after(connection: Connection, merge_job: int, now: float) -> None:
    """The same for the pools whose ranges a merge job has."""
    pools = select(event_ranges.c.pool).where(event_ranges.c.mergeID == merge_job).distinct()
    look_soon(connection, list(connection.execute(pools).scalars()), now)


def has_open_ranges(connection: Connection, pool: str) -> bool:
    """Whether there are ranges in a pool of which it is not known yet how they end."""
    return _is(connection, exists().where(event_ranges.c.pool == pool, event_ranges.c.status.in_(_OPEN)))


def has_living_jobs(connection: Connection, pool: str) -> bool:
    """Whether some of the jobs that share a pool are not over."""
    living = select(jobs.c.PandaID).join_from(event_jobs, jobs, event_jobs.c.PandaID == jobs.c.PandaID)
    return _is(connection, living.where(event_jobs.c.pool == pool, text(f"NOT ({JOB_OVER})")).exists())


def has_done_ranges(connection: Connection, pool: str, since: float) -> bool:
    """Whether there are ranges in a pool that were done after some time and are not merged yet."""
    done = (event_ranges.c.pool == pool, event_ranges.c.status == "done", event_ranges.c.modificationTime > since)
    return _is(connection, exists().where(*done))


def _is(connection: Connection, condition: ColumnElement[bool]) -> bool:
    return bool(connection.execute(select(condition)).scalar())


def find_mergers(connection: Connection, pool: str) -> dict[int | None, int]:
    """How many ranges of a pool that are done each merge job has; None: no job."""
    done = (event_ranges.c.pool == pool, event_ranges.c.status == "done")
    query = select(event_ranges.c.mergeID, func.count()).where(*done).group_by(event_ranges.c.mergeID)
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def lock_done(connection: Connection, pool: str) -> list[DoneRange]:
    """The ranges of a pool that are done and not merged, in order; nobody gives them to a job meanwhile."""
    columns = tuple(event_ranges.c[name] for name in DoneRange._fields)
    done = select(*columns).where(event_ranges.c.pool == pool, event_ranges.c.status == "done")
    query = done.order_by(event_ranges.c.rangeID).with_for_update()
    return [DoneRange._make(row) for row in connection.execute(query)]


def read_facts(connection: Connection, range_ids: Sequence[int]) -> dict[int, Mapping[str, object]]:
    """What pilots have said of ranges, by number."""
    found: dict[int, Mapping[str, object]] = {}
    for some in batches(range_ids):
        query = select(event_ranges.c.rangeID, event_ranges.c.facts).where(event_ranges.c.rangeID.in_(some))
        found |= {row.rangeID: dict(row.facts or {}) for row in connection.execute(query)}
    return found


def pools_of(connection: Connection, job_ids: Sequence[int]) -> dict[int, str]:
    """The pools of those of these jobs that are of the event service, by PandaID."""
    found: dict[int, str] = {}
    for some in batches(job_ids):
        query = select(event_jobs.c.PandaID, event_jobs.c.pool).where(event_jobs.c.PandaID.in_(some))
        found |= {row.PandaID: row.pool for row in connection.execute(query)}
    return found


def remove_jobs(connection: Connection, job_ids: Sequence[int]) -> None:
    """Jobs go into the archive and share no ranges any more."""
    for some in batches(job_ids):
        connection.execute(delete(event_jobs).where(event_jobs.c.PandaID.in_(some)))


def has_jobs(connection: Connection, pool: str) -> bool:
    """Whether jobs that share a pool are among the live ones, over or not."""
    return _is(connection, exists().where(event_jobs.c.pool == pool))


def remove_pool(connection: Connection, pool: str) -> list[dict[str, object]]:
    """Remove what is left of a pool whose jobs have gone; returns the rows of ranges that were nobody's."""
    connection.execute(delete(event_merges).where(event_merges.c.pool == pool))
    left = (event_ranges.c.pool == pool, event_ranges.c.PandaID.is_(None))
    rows = connection.execute(delete(event_ranges).where(*left).returning(event_ranges))
    return [dict(row._mapping) for row in rows]
