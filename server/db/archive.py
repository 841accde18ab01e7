"""The archive: jobs that are over, each with all its rows in one. A job is either there or among the live ones."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Row, Table, case, delete, func, insert, inspect, or_, select, text

from server.db import eventmerges
from server.db.dialect import insert_into
from server.db.events import KnownRange
from server.db.files import JobFile
from server.db.jobs import LiveJob, batches
from server.db.tables import (
    JOB_OVER,
    archived_days,
    archived_jobs,
    event_jobs,
    event_ranges,
    files,
    job_definitions,
    job_history,
    job_relations,
    job_texts,
    jobs,
    output_reports,
)
from server.db.workers import forget_unknown_workers

#: What moves with a job: each has a column PandaID with an index. The job's own row comes first.
MOVED: tuple[Table, ...] = (jobs, job_definitions, job_history, job_texts, files, event_ranges)
#: What an ended job may have left behind and nobody wants any more.
DROPPED: tuple[Table, ...] = (output_reports, event_jobs)

#: Written into the statement, not bound: only then may a database use the partial index of such jobs.
IS_OVER = text(JOB_OVER)

#: s of a day.
DAY = 86400
#: PostgreSQL's advisory lock of those who make days: any number nobody else uses.
_LOCK_NUMBER = 0x61726368

_Values = dict[str, object]
#: What is stored of a job: table -> its rows.
_Rows = Mapping[str, Sequence[_Values]]


class Old(NamedTuple):
    """A job whose time to be archived has come.

    Attributes:
        time: when it ended.
        pool: the event ranges that it shares; None if it is not of the event service.
    """

    PandaID: int
    time: float
    pool: str | None

    @property
    def day(self) -> int:
        """The day it ended, in days since 1970."""
        return int(self.time // DAY)


class JobRecord(NamedTuple):
    """Everything that is stored of a job; the parts are as `db.jobs` and `db.files` read them of a live one.

    Attributes:
        ranges: how many event ranges it had, by state.
    """

    job: _Values
    definition: _Values
    history: list[_Values]
    texts: list[_Values]
    files: list[JobFile]
    ranges: dict[str, int]


def find_old_jobs(
    connection: Connection, after: float, passed: Collection[str], over_since: float, limit: int
) -> list[Old]:
    """Jobs that have been over since a time, the oldest first; nobody else gets them in this transaction.

    Args:
        after: those that ended before this time are passed over.
        passed: and those that share the ranges of these pools.
    """
    query = (
        select(jobs.c.PandaID, jobs.c.stateChangeTime, event_jobs.c.pool)
        .join_from(jobs, event_jobs, event_jobs.c.PandaID == jobs.c.PandaID, isouter=True)
        .where(IS_OVER, jobs.c.stateChangeTime >= after, jobs.c.stateChangeTime < over_since)
        .where(or_(event_jobs.c.pool.is_(None), event_jobs.c.pool.not_in(passed)))
        .order_by(jobs.c.stateChangeTime)
        .limit(limit)
        .with_for_update(skip_locked=True, of=jobs)  # SQLite, which has one writer at a time, leaves this out
    )
    return [Old._make(row) for row in connection.execute(query)]


def archive(connection: Connection, old: Sequence[Old]) -> None:
    """Move jobs that are locked by this transaction into the archive; their days must have been made."""
    rows = _rows_of(connection, [job.PandaID for job in old])
    _end_pools(connection, old, rows)
    connection.execute(insert(archived_jobs), [_archived(job, rows[job.PandaID]) for job in old])
    for day, number in Counter(job.day for job in old).items():
        ids = [job.PandaID for job in old if job.day == day]
        _count(connection, day, min(ids), max(ids), number)
    for some in batches([job.PandaID for job in old]):
        for table in (*DROPPED, *reversed(MOVED)):
            connection.execute(delete(table).where(table.c.PandaID.in_(some)))
        forget_unknown_workers(connection, some)


def _rows_of(connection: Connection, job_ids: Sequence[int]) -> dict[int, dict[str, list[_Values]]]:
    found: dict[int, dict[str, list[_Values]]] = {job_id: {} for job_id in job_ids}
    for table in MOVED:
        for some in batches(job_ids):
            query = select(table).where(table.c.PandaID.in_(some)).order_by(*table.primary_key)
            for row in connection.execute(query):
                found[row.PandaID].setdefault(table.name, []).append(dict(row._mapping))
    return found


def _end_pools(connection: Connection, old: Sequence[Old], rows: Mapping[int, dict[str, list[_Values]]]) -> None:
    """Ranges that no job has go with the last one of those that shared them."""
    last = {job.pool: job.PandaID for job in old if job.pool is not None}
    if not last:
        return
    eventmerges.remove_jobs(connection, [job.PandaID for job in old])
    for pool, job_id in last.items():
        if not eventmerges.has_jobs(connection, pool):
            rows[job_id].setdefault(event_ranges.name, []).extend(eventmerges.remove_pool(connection, pool))


def _archived(old: Old, rows: _Rows) -> _Values:
    (job,) = rows[jobs.name]
    columns = ("jobStatus", "computingSite", "prodUserName", "taskID", "endTime")
    return {"day": old.day, "PandaID": old.PandaID, **{name: job[name] for name in columns}, "rows": rows}


def _count(connection: Connection, day: int, first: int, last: int, number: int) -> None:
    statement = insert_into(connection, archived_days).values(day=day, firstID=first, lastID=last, jobs=number)
    known, new = archived_days.c, statement.excluded
    widened = {
        "firstID": case((known.firstID < new.firstID, known.firstID), else_=new.firstID),
        "lastID": case((known.lastID > new.lastID, known.lastID), else_=new.lastID),
        "jobs": known.jobs + new.jobs,
    }
    connection.execute(statement.on_conflict_do_update(index_elements=[known.day], set_=widened))


def make_days(connection: Connection, days: Iterable[int]) -> None:
    """Make room for the jobs of some days. On PostgreSQL each is a partition, on SQLite there is nothing to make."""
    if connection.dialect.name == "sqlite":
        return
    connection.execute(select(func.pg_advisory_xact_lock(_LOCK_NUMBER)))
    there = inspect(connection)
    for day in days:
        name = _partition(day)
        if not there.has_table(name):
            # Attached, not made as a part: that would keep all readers of the archive out for a moment.
            connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE archived_jobs INCLUDING ALL)")
            connection.exec_driver_sql(
                f"ALTER TABLE archived_jobs ATTACH PARTITION {name} FOR VALUES FROM ({day:d}) TO ({day + 1:d})"
            )


def _partition(day: int) -> str:
    """The table of a day: a name made of digits alone."""
    return f"archived_jobs_{datetime.date(1970, 1, 1) + datetime.timedelta(days=day):%Y%m%d}"


def find_days(connection: Connection, before: int) -> list[int]:
    """The days before one that the archive has, oldest first."""
    query = select(archived_days.c.day).where(archived_days.c.day < before).order_by(archived_days.c.day)
    return list(connection.execute(query).scalars())


def drop_day(connection: Connection, day: int, limit: int) -> bool:
    """Forget the jobs of a day, and whom they come from: at once on PostgreSQL, on SQLite so many of them.

    Returns:
        Whether all of them are gone.
    """
    if connection.dialect.name == "sqlite":
        of_day = archived_jobs.c.day == day
        some = list(connection.execute(select(archived_jobs.c.PandaID).where(of_day).limit(limit)).scalars())
        connection.execute(delete(job_relations).where(job_relations.c.PandaID.in_(some)))
        connection.execute(delete(archived_jobs).where(of_day, archived_jobs.c.PandaID.in_(some)))
        if len(some) == limit:
            return False
    else:
        gone = select(archived_jobs.c.PandaID).where(archived_jobs.c.day == day)
        connection.execute(delete(job_relations).where(job_relations.c.PandaID.in_(gone)))
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {_partition(day)}")
    connection.execute(delete(archived_days).where(archived_days.c.day == day))
    return True


def read_archived(connection: Connection, job_id: int) -> JobRecord | None:
    """Everything about an archived job, or None."""
    return next((_read(row.rows) for row in _find(connection, [job_id])), None)


def find_archived(connection: Connection, job_ids: Iterable[int]) -> dict[int, LiveJob]:
    """Those of these jobs that are archived, as decisions see a job."""
    found: dict[int, LiveJob] = {}
    for row in _find(connection, list(job_ids)):
        job = row.rows[jobs.name][0]
        found[row.PandaID] = LiveJob._make(job.get(name) for name in LiveJob._fields)
    return found


def list_ranges(connection: Connection, job_id: int, after: int, limit: int) -> list[KnownRange]:
    """The event ranges of an archived job with a number after one, the first ones first."""
    found: list[KnownRange] = []
    for row in _find(connection, [job_id]):
        names = {file["fileID"]: file["lfn"] for file in row.rows.get(files.name, [])}
        for one in row.rows.get(event_ranges.name, []):
            known = {**one, "lfn": names.get(one["fileID"])}
            if one["PandaID"] == job_id:  # others were nobody's when it left
                found.append(KnownRange._make(known.get(name) for name in KnownRange._fields))
    return sorted((one for one in found if one.rangeID > after), key=lambda one: one.rangeID)[:limit]


def list_archived(
    connection: Connection, job_ids: Sequence[int], statuses: Sequence[str], queue: str | None, owner: str | None
) -> list[_Values]:
    """The columns of those of these jobs that are archived and fulfil the conditions given."""
    rows = [
        row
        for row in _find(connection, job_ids)
        if (not statuses or row.jobStatus in statuses)
        and queue in (None, row.computingSite)
        and owner in (None, row.prodUserName)
    ]
    return [dict(row.rows[jobs.name][0]) for row in rows]


def _find(connection: Connection, job_ids: Sequence[int]) -> list[Row[*tuple[object, ...]]]:
    found: list[Row[*tuple[object, ...]]] = []
    for some in batches(job_ids):
        can_be = (archived_days.c.firstID <= max(some)) & (archived_days.c.lastID >= min(some))
        days = list(connection.execute(select(archived_days.c.day).where(can_be)).scalars())
        if days:
            where = archived_jobs.c.day.in_(days) & archived_jobs.c.PandaID.in_(some)
            found += connection.execute(select(archived_jobs).where(where))
    return found


def _read(rows: _Rows) -> JobRecord:
    known = {table.name: rows.get(table.name, []) for table in MOVED}
    (job,) = known[jobs.name]
    definitions = known[job_definitions.name]
    definition = definitions[0]["definition"] if definitions else {}
    texts = sorted(known[job_texts.name], key=lambda row: float(str(row["time"])))  # they are by attempt and kind
    return JobRecord(
        job=dict(job),
        definition=dict(definition) if isinstance(definition, dict) else {},
        history=[_only(row, "attemptNr", "status", "time", "actor", "reason") for row in known[job_history.name]],
        texts=[_only(row, "attemptNr", "kind", "text") for row in texts],
        files=[JobFile._make(row.get(name) for name in JobFile._fields) for row in known[files.name]],
        ranges=dict(Counter(str(row["status"]) for row in known[event_ranges.name])),
    )


def _only(row: Mapping[str, object], *names: str) -> _Values:
    return {name: row.get(name) for name in names}
