"""What a submission says of events is stored with its jobs: their ranges, who shares them, and how they are merged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from server.db import eventmerges, events, files
from server.db.database import Connection
from server.db.eventmerges import Merge
from server.db.jobs import Value
from server.logic.eventmerge import is_merge
from server.logic.events import pool_of
from server.logic.jobform import JobForm


def add_events(connection: Connection, submitted: Sequence[tuple[int, JobForm]], now: float) -> None:
    """Store what jobs bring, in the transaction that stores them and their files.

    Raises:
        BadJob: the ranges of a jobset are to be merged in two ways.
    """
    _note_jobs(connection, submitted, now)
    for job_id, form in submitted:
        events.add_ranges(connection, list(_range_rows(connection, job_id, form, now)))


def _pool(job_id: int, form: JobForm) -> str:
    """Whose jobs may have the ranges that a submitted job brings."""
    return pool_of(job_id, form.numbers["taskID"], form.numbers["jobsetID"], form.user)


def _note_jobs(connection: Connection, submitted: Sequence[tuple[int, JobForm]], now: float) -> None:
    """Note which jobs share ranges, and how these are to be merged."""
    pools: dict[int, str] = {}
    plans: dict[str, Merge] = {}
    for job_id, form in submitted:
        of_service = str(form.definition.get("eventService")).lower() == "true"
        if not of_service or is_merge(form.definition.get("eventServiceMerge")):
            continue
        pool = pools[job_id] = _pool(job_id, form)
        merge = form.events.merge if form.events else None
        if merge is None:
            continue
        plan = {"job": dict(merge.job), "max_inputs": merge.max_inputs, "max_size": merge.max_size}
        known = plans.get(pool) or eventmerges.lock_merge(connection, pool)
        if known is not None and known.plan != plan:
            raise form.fail("events", "merge is not the one that another job of this jobset has: give both the same")
        plans[pool] = known or Merge(pool, form.user, plan, "waiting", "", now, now)
        if known is None:
            eventmerges.add_merge(connection, plans[pool])
    eventmerges.add_event_jobs(connection, pools)
    eventmerges.look_soon(connection, set(pools.values()), now)


def _range_rows(connection: Connection, job_id: int, form: JobForm, now: float) -> Iterator[dict[str, Value]]:
    """The event ranges that a job brings: of each of its inputs, or without one."""
    if form.events is None:
        return
    inputs = [file.fileID for file in files.read_files(connection, job_id) if file.type == "input"]
    pool = _pool(job_id, form)
    for file_id in inputs or (None,):
        for start, last in form.events.ranges():
            yield {
                "pool": pool,
                "maxAttempt": form.events.max_attempts,
                "fileID": file_id,
                "startEvent": start,
                "lastEvent": last,
                "modificationTime": now,
            }
