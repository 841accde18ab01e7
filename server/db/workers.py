"""Workers of Harvester: what it and their pilots say of them, their jobs, and how many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from server.db.dialect import insert_into
from server.db.jobs import Value, batches
from server.db.tables import WORKER_FACTS, jobs, worker_jobs, worker_statistics, workers

#: Harvester and number of a worker.
Key = tuple[str, str]


class Worker(NamedTuple):
    """A worker as decisions see it; the fields are columns of `workers`."""

    harvesterID: str
    workerID: str
    status: str | None
    computingSite: str | None
    batchID: str | None
    diagMessage: str | None
    endTime: float | None
    pilotStatus: str | None
    pilotEndTime: float | None
    lastUpdate: float


class SilentJob(NamedTuple):
    """A job of a worker, with its last sign of life."""

    PandaID: int
    jobStatus: str
    modificationTime: float


_WORKER = tuple(workers.c[name] for name in Worker._fields)


_PILOTS_WORDS = ("pilotStatus", "pilotStartTime", "pilotEndTime")


def store_workers(
    connection: Connection, harvester_id: str, rows: Sequence[Mapping[str, Value]], over: Sequence[str], now: float
) -> None:
    """Store what Harvester says of its workers; what it leaves out stays as it is, and so does a last state.

    Args:
        rows: workerID, status, watchTime and WORKER_FACTS of each, None where it said nothing.
        over: the states that are never left again.
    """
    if not rows:
        return
    statement = insert_into(connection, workers)
    said = statement.excluded
    # No IN: a statement for many rows takes none.
    ended = or_(*(workers.c.status == status for status in over))
    changes: dict[str, ColumnElement[object]] = {
        name: func.coalesce(said[name], workers.c[name]) for name in WORKER_FACTS
    }
    gone = workers.c.pilotStatus == "finished"
    # A pilot of another queue said so before Harvester first named the worker: it was not this worker's.
    strange = and_(gone, workers.c.status.is_(None), workers.c.computingSite != said.computingSite)
    # Its pilot has gone and Harvester says that it lives: that look at it must not be put off again and again.
    out_of_step = and_(gone, *(said.status != status for status in over))
    changes |= {
        "status": case((ended, workers.c.status), else_=said.status),
        "endTime": case((ended, workers.c.endTime), else_=func.coalesce(said.endTime, workers.c.endTime)),
        "watchTime": case((or_(ended, out_of_step), workers.c.watchTime), else_=said.watchTime),
        "lastUpdate": said.lastUpdate,
        **{name: case((strange, None), else_=workers.c[name]) for name in _PILOTS_WORDS},
    }
    statement = statement.on_conflict_do_update(
        index_elements=[workers.c.harvesterID, workers.c.workerID], set_=changes
    )
    connection.execute(statement, [{"harvesterID": harvester_id, "lastUpdate": now, **row} for row in rows])


def note_pilot(connection: Connection, key: Key, values: Mapping[str, Value], queue: str, now: float) -> bool:
    """Note what the pilot of a worker says of itself; a worker we did not know is added.

    Args:
        values: pilotStatus and its time; computingSite and nodeID count where nobody has said anything yet.
        queue: the only one of whose workers the pilot may speak; empty for any.

    Returns:
        False if the worker is of another queue; then nothing was changed.
    """
    statement = insert_into(connection, workers).values(
        {"harvesterID": key[0], "workerID": key[1], "lastUpdate": now, **values}
    )
    kept = {"computingSite", "nodeID"}
    changes: dict[str, ColumnElement[object]] = {name: statement.excluded[name] for name in values if name not in kept}
    changes |= {name: func.coalesce(workers.c[name], statement.excluded[name]) for name in values.keys() & kept}
    its_own = or_(workers.c.computingSite.is_(None), workers.c.computingSite == queue) if queue else None
    keys = [workers.c.harvesterID, workers.c.workerID]
    statement = statement.on_conflict_do_update(index_elements=keys, set_=changes, where=its_own)
    return connection.execute(statement.returning(workers.c.workerID)).first() is not None


def link_jobs(connection: Connection, links: Sequence[tuple[str, str, int]]) -> None:
    """Note which jobs workers have: (harvester, worker, PandaID) of each; what is known already stays."""
    if links:
        rows = [dict(zip(("harvesterID", "workerID", "PandaID"), link, strict=True)) for link in links]
        connection.execute(insert_into(connection, worker_jobs).on_conflict_do_nothing(), rows)


def find_workers(
    connection: Connection,
    *,
    harvester_id: str | None = None,
    queue: str | None = None,
    statuses: Sequence[str] = (),
    limit: int,
) -> list[dict[str, object]]:
    """The workers heard of last that fulfil all conditions given, at most `limit`."""
    query = select(workers).order_by(workers.c.lastUpdate.desc(), workers.c.workerID).limit(limit)
    if harvester_id is not None:
        query = query.where(workers.c.harvesterID == harvester_id)
    if queue is not None:
        query = query.where(workers.c.computingSite == queue)
    if statuses:
        query = query.where(workers.c.status.in_(statuses))
    return [dict(row._mapping) for row in connection.execute(query)]


def find_links(connection: Connection, keys: Sequence[Key]) -> dict[Key, list[int]]:
    """The PandaIDs of workers' jobs."""
    found: dict[Key, list[int]] = {}
    for some in batches(list(keys)):
        query = select(worker_jobs.c.harvesterID, worker_jobs.c.workerID, worker_jobs.c.PandaID).where(
            tuple_(worker_jobs.c.harvesterID, worker_jobs.c.workerID).in_(some)
        )
        for row in connection.execute(query.order_by(worker_jobs.c.PandaID)):
            found.setdefault((row.harvesterID, row.workerID), []).append(row.PandaID)
    return found


def find_workers_of_job(connection: Connection, job_id: int) -> list[dict[str, object]]:
    """The workers that have, or had, a job."""
    same = (workers.c.harvesterID == worker_jobs.c.harvesterID) & (workers.c.workerID == worker_jobs.c.workerID)
    query = select(workers).join_from(worker_jobs, workers, same).where(worker_jobs.c.PandaID == job_id)
    return [dict(row._mapping) for row in connection.execute(query.order_by(workers.c.lastUpdate))]


def find_due(connection: Connection, now: float, limit: int) -> list[Worker]:
    """Workers whose time to be looked at has come, the most overdue first."""
    query = select(*_WORKER).where(workers.c.watchTime <= now).order_by(workers.c.watchTime).limit(limit)
    return [Worker._make(row) for row in connection.execute(query)]


def change_worker(connection: Connection, known: Worker, values: Mapping[str, Value]) -> bool:
    """Change a worker if nothing was heard of it since it was read."""
    same = (
        (workers.c.harvesterID == known.harvesterID)
        & (workers.c.workerID == known.workerID)
        & (workers.c.lastUpdate == known.lastUpdate)
    )
    return connection.execute(update(workers).where(same).values(dict(values))).rowcount == 1


def find_jobs_of(connection: Connection, worker: Worker, owner: str | None, statuses: Sequence[str]) -> list[SilentJob]:
    """The jobs of a worker that are in one of these states, unless another worker has them by now.

    Args:
        owner: of the worker's instance. Only of jobs that it has claimed itself its word is enough; those that name
            instance and worker do so since they were claimed.
    """
    same = (jobs.c.PandaID == worker_jobs.c.PandaID) & jobs.c.jobStatus.in_(statuses)
    # Instances number their workers each for itself.
    same_instance, same_worker = jobs.c.harvesterID == worker.harvesterID, jobs.c.workerID == worker.workerID
    claimed_by_owner = or_(jobs.c.claimedBy.is_(None), jobs.c.claimedBy == owner, literal(owner is None))
    unnamed = and_(
        or_(jobs.c.harvesterID.is_(None), same_instance), or_(jobs.c.workerID.is_(None), same_worker), claimed_by_owner
    )
    its_own = or_(and_(same_instance, same_worker), unnamed)
    query = (
        select(jobs.c.PandaID, jobs.c.jobStatus, jobs.c.modificationTime)
        .join_from(worker_jobs, jobs, same)
        .where(worker_jobs.c.harvesterID == worker.harvesterID, worker_jobs.c.workerID == worker.workerID, its_own)
    )
    return [SilentJob._make(row) for row in connection.execute(query)]


def replace_statistics(
    connection: Connection, harvester_id: str, queue: str, counts: Sequence[Mapping[str, Value]], now: float
) -> None:
    """Store how many workers an instance has in a queue, in place of what it said before.

    Args:
        counts: jobType, resourceType, status and n of each.
    """
    table = worker_statistics
    connection.execute(delete(table).where(table.c.harvesterID == harvester_id, table.c.computingSite == queue))
    common = {"harvesterID": harvester_id, "computingSite": queue, "lastUpdate": now}
    if counts:
        statement = insert_into(connection, table)
        keys = [column.name for column in table.primary_key]
        changes = {name: statement.excluded[name] for name in ("n", "lastUpdate")}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=changes)  # said twice at the same moment
        connection.execute(statement, [{**common, **count} for count in counts])


def read_statistics(connection: Connection, since: float = 0.0) -> list[dict[str, object]]:
    """How many workers each instance has, by queue, job type, resource type and state, as told since then."""
    table = worker_statistics
    query = select(table).where(table.c.lastUpdate >= since)
    order = (table.c.computingSite, table.c.harvesterID, table.c.jobType, table.c.resourceType, table.c.status)
    return [dict(row._mapping) for row in connection.execute(query.order_by(*order))]


def forget_unknown_workers(connection: Connection, job_ids: Sequence[int]) -> None:
    """Forget that jobs had workers of which neither Harvester nor their pilots have ever said a word."""
    same = and_(workers.c.harvesterID == worker_jobs.c.harvesterID, workers.c.workerID == worker_jobs.c.workerID)
    unknown = ~exists().where(same)
    connection.execute(delete(worker_jobs).where(worker_jobs.c.PandaID.in_(job_ids), unknown))


_OLD = (
    select(workers.c.harvesterID, workers.c.workerID)
    .where(workers.c.lastUpdate < bindparam("before"), workers.c.watchTime.is_(None))
    .order_by(workers.c.lastUpdate)
    .limit(bindparam("limit"))
)


def remove_old(connection: Connection, before: float, limit: int) -> int:
    """Remove workers, with the lists of their jobs, that nobody has spoken of since; returns how many."""
    keys = [(row.harvesterID, row.workerID) for row in connection.execute(_OLD, {"before": before, "limit": limit})]
    for some in batches(keys):
        for table in (worker_jobs, workers):
            connection.execute(delete(table).where(tuple_(table.c.harvesterID, table.c.workerID).in_(some)))
    return len(keys)
