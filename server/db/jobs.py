"""Rows of jobs, their history, definitions and long texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection, Row, Update, bindparam, insert, literal_column, or_, select, text, update
from sqlalchemy.sql.dml import ReturningUpdate

from server.db.dialect import insert_into
from server.db.tables import JOB_OF_TASK, counters, job_definitions, job_history, job_texts, jobs

T = TypeVar("T")

#: A value of a column.
Value = str | int | float | bool | None
Values = Mapping[str, Value]


class LiveJob(NamedTuple):
    """What decisions about a job need of its row; the fields are columns of `jobs`."""

    PandaID: int
    jobStatus: str
    attemptNr: int
    maxAttempt: int
    failedAttempt: int
    computingSite: str
    prodUserName: str
    prodSourceLabel: str
    currentPriority: int
    taskID: int
    VO: str | None
    claimID: str | None
    claimedBy: str | None
    batchID: str | None
    commandToPilot: str | None
    debug: bool
    killedBy: str | None
    reportedStatus: str | None
    heartbeat: int | None
    lostHeartbeat: int | None
    stateChangeTime: float
    modificationTime: float
    startTime: float | None
    endTime: float | None
    pilotErrorCode: int
    exeErrorCode: int
    jobDispatcherErrorCode: int


class Lease(NamedTuple):
    """What the answer to a heartbeat needs of a job's row; LiveJob has it all."""

    debug: bool
    commandToPilot: str | None
    heartbeat: int | None
    lostHeartbeat: int | None


class Change(NamedTuple):
    """One row of a job's history."""

    PandaID: int
    attemptNr: int
    status: str
    time: float
    actor: str
    reason: str


_LEASE = tuple(jobs.c[name] for name in Lease._fields)
_LIVE = tuple(jobs.c[name] for name in LiveJob._fields)
_READ_LIVE = select(*_LIVE).where(jobs.c.PandaID == bindparam("job_id"))
#: SQLite, which has one writer at a time, leaves the lock out.
_LOCK_LIVE = _READ_LIVE.with_for_update()
_READ_DEFINITION = select(job_definitions.c.definition).where(job_definitions.c.PandaID == bindparam("job_id"))
_ADD_HISTORY = insert(job_history).inline()  # nobody asks for the number it gets
_TIME_OF_CLAIM = select(job_history.c.time).where(
    job_history.c.PandaID == bindparam("job_id"),
    job_history.c.attemptNr == bindparam("attempt"),
    job_history.c.status == "sent",
)
#: Reasons are shown in tables and logs; what is longer than the column is cut here once for everybody.
_REASON_LENGTH = 500


def reserve_ids(connection: Connection, counter: str, number: int) -> int:
    """Take `number` consecutive numbers of a counter; returns the first. Part of the caller's transaction."""
    statement = (
        insert_into(connection, counters)
        .values(name=counter, value=number)
        .on_conflict_do_update(index_elements=[counters.c.name], set_={"value": counters.c.value + number})
        .returning(counters.c.value)
    )
    return int(connection.execute(statement).scalar_one()) - number + 1


def add_jobs(connection: Connection, rows: Sequence[Values], definitions: Mapping[int, Mapping[str, object]]) -> None:
    """Store new jobs with what pilots are given of them.

    Args:
        rows: the columns of `jobs`, the same for every row.
        definitions: by PandaID.
    """
    connection.execute(insert(jobs), [dict(row) for row in rows])
    connection.execute(
        insert(job_definitions), [{"PandaID": job_id, "definition": dict(d)} for job_id, d in definitions.items()]
    )


def read_live(connection: Connection, job_id: int) -> LiveJob | None:
    """A job as decisions see it, or None if there is no such job."""
    row = connection.execute(_READ_LIVE, {"job_id": job_id}).first()
    return LiveJob._make(row) if row else None


def lock_live(connection: Connection, job_id: int) -> LiveJob | None:
    """The same for a durable transaction that decides on what it sees: until its end nobody else changes the job."""
    row = connection.execute(_LOCK_LIVE, {"job_id": job_id}).first()
    return LiveJob._make(row) if row else None


def read_live_many(connection: Connection, job_ids: Iterable[int]) -> dict[int, LiveJob]:
    """The jobs that exist of those asked for, by PandaID."""
    found: dict[int, LiveJob] = {}
    for some in batches(list(job_ids)):
        for row in connection.execute(select(*_LIVE).where(jobs.c.PandaID.in_(some))):
            found[row.PandaID] = LiveJob._make(row)
    return found


def change_job(connection: Connection, job: LiveJob, values: Values) -> bool:
    """Change a job if it still is in the state and the attempt it was read in.

    This compare-and-set is what keeps two writers apart; within an attempt states only move forward, so a job cannot
    have left the state and come back.

    Returns:
        False if somebody else was faster; then nothing was changed.
    """
    statement = _change_statement(tuple(values))
    key = {"_job": job.PandaID, "_status": job.jobStatus, "_attempt": job.attemptNr}
    return connection.execute(statement, {**values, **key}).rowcount == 1


@lru_cache(maxsize=512)
def _change_statement(names: tuple[str, ...]) -> Update:
    """One statement object for each set of columns: SQLAlchemy then compiles it once, not once a heartbeat."""
    return (
        update(jobs)
        .where(
            jobs.c.PandaID == bindparam("_job"),
            jobs.c.jobStatus == bindparam("_status"),
            jobs.c.attemptNr == bindparam("_attempt"),
        )
        .values({name: bindparam(name) for name in names})
    )


def renew_lease(
    connection: Connection, job_id: int, status: str, values: Values, conditions: Mapping[str, str | int]
) -> Lease | None:
    """Write a heartbeat's values in a statement that needs no look at the job before: what nearly all updates are.

    Args:
        status: the job must be in this state, with no verdict known.
        conditions: column -> what it must be. Where nobody is named in claimedBy or batchID, nobody is excluded.

    Returns:
        None if the job is not as described, or is none at all; then nothing was changed, and it must be looked at.
    """
    statement = _renewal(tuple(values), tuple(conditions))
    key = {f"_{name}": value for name, value in conditions.items()}
    row = connection.execute(statement, {**values, **key, "_job": job_id, "_status": status}).first()
    return Lease._make(row) if row else None


_MAY_BE_OPEN = frozenset({"claimedBy", "batchID"})


@lru_cache(maxsize=512)
def _renewal(names: tuple[str, ...], conditions: tuple[str, ...]) -> ReturningUpdate[*tuple[object, ...]]:
    statement = update(jobs).where(
        jobs.c.PandaID == bindparam("_job"),
        jobs.c.jobStatus == bindparam("_status"),
        jobs.c.reportedStatus.is_(None),
        jobs.c.jobDispatcherErrorCode == literal_column("0"),
    )
    for name in conditions:
        same = jobs.c[name] == bindparam(f"_{name}")
        statement = statement.where(or_(jobs.c[name].is_(None), same) if name in _MAY_BE_OPEN else same)
    return statement.values({name: bindparam(name) for name in names}).returning(*_LEASE)


def add_history(connection: Connection, changes: Sequence[Change]) -> None:
    """Write the history rows of changes of state made in the same transaction."""
    if changes:
        rows = [{**change._asdict(), "reason": change.reason[:_REASON_LENGTH]} for change in changes]
        connection.execute(_ADD_HISTORY, rows if len(rows) > 1 else rows[0])  # many cost more round trips than one


def time_of_claim(connection: Connection, job_id: int, attempt: int) -> float | None:
    """When an attempt was given to a pilot, in seconds since 1970; None if it never was."""
    key = {"job_id": job_id, "attempt": attempt}
    time = connection.execute(_TIME_OF_CLAIM, key).scalar()
    return None if time is None else float(time)


def keep_text(connection: Connection, job_id: int, attempt: int, kind: str, text: str, now: float) -> None:
    """Store a long text of an attempt unless there is one of this kind: the first wins."""
    values = {"PandaID": job_id, "attemptNr": attempt, "kind": kind, "text": text, "time": now}
    connection.execute(insert_into(connection, job_texts).values(values).on_conflict_do_nothing())


def replace_text(connection: Connection, job_id: int, attempt: int, kind: str, text: str, now: float) -> None:
    """Store a long text of an attempt in place of what was there."""
    values = {"PandaID": job_id, "attemptNr": attempt, "kind": kind, "text": text, "time": now}
    keys = [job_texts.c.PandaID, job_texts.c.attemptNr, job_texts.c.kind]
    connection.execute(
        insert_into(connection, job_texts)
        .values(values)
        .on_conflict_do_update(index_elements=keys, set_={"text": text, "time": now})
    )


def read_definition(connection: Connection, job_id: int) -> dict[str, object]:
    """What a pilot is given of a job beside its columns and files; empty if there is no such job."""
    found = connection.execute(_READ_DEFINITION, {"job_id": job_id}).scalar()
    return dict(found) if found else {}


def read_job(connection: Connection, job_id: int) -> dict[str, object] | None:
    """All columns of a job, or None."""
    row = connection.execute(select(jobs).where(jobs.c.PandaID == job_id)).first()
    return _as_dict(row) if row else None


def read_history(connection: Connection, job_id: int) -> list[dict[str, object]]:
    """The changes of state of a job, oldest first."""
    history = job_history
    rows = connection.execute(
        select(history.c.attemptNr, history.c.status, history.c.time, history.c.actor, history.c.reason)
        .where(history.c.PandaID == job_id)
        .order_by(history.c.historyID)
    )
    return [_as_dict(row) for row in rows]


def read_texts(connection: Connection, job_id: int) -> list[dict[str, object]]:
    """The long texts of a job, of all attempts."""
    texts = job_texts
    rows = connection.execute(
        select(texts.c.attemptNr, texts.c.kind, texts.c.text)
        .where(texts.c.PandaID == job_id)
        .order_by(texts.c.time, texts.c.attemptNr, texts.c.kind)
    )
    return [_as_dict(row) for row in rows]


def list_jobs(
    connection: Connection,
    *,
    statuses: Sequence[str] = (),
    queue: str | None = None,
    job_ids: Sequence[int] = (),
    owner: str | None = None,
    task_id: int = 0,
    limit: int,
) -> list[dict[str, object]]:
    """The newest jobs that fulfil all conditions given, newest first, at most `limit`."""
    query = select(jobs).order_by(jobs.c.PandaID.desc()).limit(limit)
    if statuses:
        query = query.where(jobs.c.jobStatus.in_(statuses))
    if queue is not None:
        query = query.where(jobs.c.computingSite == queue)
    if job_ids:
        query = query.where(jobs.c.PandaID.in_(job_ids))
    if owner is not None:
        query = query.where(jobs.c.prodUserName == owner)
    if task_id:
        query = query.where(jobs.c.taskID == task_id, text(JOB_OF_TASK))
    return [_as_dict(row) for row in connection.execute(query)]


def find_of_queue(connection: Connection, queue: str, statuses: Sequence[str], limit: int) -> list[int]:
    """The PandaIDs of a queue's jobs in these states, the newest first, at most `limit`."""
    query = select(jobs.c.PandaID).where(jobs.c.computingSite == queue, jobs.c.jobStatus.in_(statuses))
    return list(connection.execute(query.order_by(jobs.c.PandaID.desc()).limit(limit)).scalars())


def find_in_state(connection: Connection, status: str, after: int, limit: int) -> list[LiveJob]:
    """Jobs in a state with a PandaID after a number, the first ones first."""
    query = select(*_LIVE).where(jobs.c.jobStatus == status, jobs.c.PandaID > after)
    return [LiveJob._make(row) for row in connection.execute(query.order_by(jobs.c.PandaID).limit(limit))]


def find_of_task(connection: Connection, task_id: int, status: str, after: int, limit: int) -> list[LiveJob]:
    """Jobs of a task in a state with a PandaID after a number, the first ones first."""
    # Written into the statement where a partial index of such jobs is there.
    state = literal_column("'activated'") if status == "activated" else status
    query = select(*_LIVE).where(jobs.c.jobStatus == state, jobs.c.taskID == task_id, jobs.c.PandaID > after)
    return [LiveJob._make(row) for row in connection.execute(query.order_by(jobs.c.PandaID).limit(limit))]


def find_newest_of_share(connection: Connection, queue: str, status: str, share: str, looked_at: int) -> list[int]:
    """Of a queue's newest jobs in a state, so many of which are looked at, those of a share, the newest first."""
    newest = (
        select(jobs.c.PandaID, jobs.c.gshare)
        .where(jobs.c.computingSite == queue, jobs.c.jobStatus == status)
        .order_by(jobs.c.PandaID.desc())
        .limit(looked_at)
        .subquery()
    )
    query = select(newest.c.PandaID).where(newest.c.gshare == share).order_by(newest.c.PandaID.desc())
    return list(connection.execute(query).scalars())


class Watched(NamedTuple):
    """A job and when it was to be looked at."""

    job: LiveJob
    watchTime: float


_PUT_OFF = (
    update(jobs)
    .where(jobs.c.PandaID == bindparam("_job"), jobs.c.watchTime == bindparam("_seen"))
    .values(watchTime=bindparam("_later"))
)


def find_jobs_to_watch(connection: Connection, now: float, limit: int) -> list[Watched]:
    """Jobs whose time to be looked at has come, the most overdue first."""
    query = select(jobs.c.watchTime, *_LIVE).where(jobs.c.watchTime <= now).order_by(jobs.c.watchTime).limit(limit)
    return [Watched(LiveJob._make(row[1:]), row[0]) for row in connection.execute(query)]


def put_off(connection: Connection, later: Sequence[tuple[Watched, float | None]]) -> None:
    """Say when jobs are to be looked at next (None: never), unless somebody else has said so meanwhile."""
    if later:
        rows = [{"_job": one.job.PandaID, "_seen": one.watchTime, "_later": time} for one, time in later]
        connection.execute(_PUT_OFF, rows)


#: SQLite takes 32,766 variables a statement; small batches also keep statements cached.
_BATCH = 500


def batches(items: Sequence[T]) -> Iterable[Sequence[T]]:
    """The items in pieces small enough for one statement."""
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))


def _as_dict(row: Row[*tuple[object, ...]]) -> dict[str, object]:
    return dict(row._mapping)
