"""Classes of activated jobs, and the claim: one compare-and-set that gives a job to a pilot.

The cost does not depend on how many jobs are queued: a queue has as many classes as its jobs have different
requirements and shares, and of each class only the best job is looked at, which an index has in front. Where there are
many shares only the classes of those whose turn it is are looked at first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Integer,
    Row,
    ScalarSelect,
    bindparam,
    delete,
    exists,
    literal_column,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from server.db.dialect import insert_into
from server.db.jobs import Value, Values
from server.db.tables import CLASS_COLUMNS, job_classes, job_definitions, jobs

#: Written into the statement, not bound: only then may a database use the partial indexes of activated jobs.
_IS_ACTIVATED: ColumnElement[bool] = jobs.c.jobStatus == literal_column("'activated'")

#: A class that is used is marked at most this often, in s, so that handing out jobs does not rewrite it each time.
_MARK_PERIOD = 3600

#: What a pilot is told of a claimed job that is a column of `jobs`.
WIRE_COLUMNS = (
    "PandaID",
    "jobStatus",
    "attemptNr",
    "computingSite",
    "jobName",
    "prodUserName",
    "prodSourceLabel",
    "processingType",
    "workingGroup",
    "taskID",
    "jobsetID",
    "currentPriority",
    "coreCount",
    "minRamCount",
    "maxDiskCount",
    "maxWalltime",
    "resource_type",
    "gshare",
    "claimID",
    "claimedBy",
    "heartbeat",
    "lostHeartbeat",
    "modificationTime",
    "debug",
)
#: Its definition comes along, since a statement of its own would cost more than most of what a claim does.
_WIRE = (
    *(jobs.c[name] for name in WIRE_COLUMNS),
    select(job_definitions.c.definition)
    # As text: in SQLite's RETURNING columns lose the names of their tables, and every job would be given the first's.
    .where(literal_column('job_definitions."PandaID"') == literal_column('jobs."PandaID"'))
    .scalar_subquery()
    .label("definition"),
)


#: So many shares are looked at first (`find_heads_of_shares`).
FIRST_SHARES = 2
#: So many of the oldest jobs are looked at when it is their turn: PanDA tries 10 candidates (wire.md section 4).
_OLDEST = 10


class Head(NamedTuple):
    """The best activated job of a class, with the class's requirements."""

    classID: int
    computingSite: str
    gshare: str
    prodSourceLabel: str
    processingType: str
    resource_type: str
    workingGroup: str
    countryGroup: str
    architecture: str
    coreCount: int
    minRamCount: int
    maxDiskCount: int
    maxWalltime: int
    PandaID: int
    currentPriority: int


def _best_of_class(class_id: ColumnElement[int], *conditions: ColumnElement[bool], lock: bool) -> ScalarSelect[int]:
    query = (
        select(jobs.c.PandaID)
        .where(jobs.c.classID == class_id, _IS_ACTIVATED, *conditions)
        .order_by(jobs.c.currentPriority.desc(), jobs.c.PandaID)
        .limit(literal_column("1"))
    )
    if lock:
        query = query.with_for_update(skip_locked=True)  # SQLite, which has one writer at a time, leaves this out
    return query.correlate(job_classes).scalar_subquery()


_OF_TASK = jobs.c.taskID == bindparam("task_id")
_OF_USER = jobs.c.prodUserName == bindparam("user")
#: (task given, user given) -> what more a job must fulfil.
_CONDITIONS: Mapping[tuple[bool, bool], tuple[ColumnElement[bool], ...]] = {
    (False, False): (),
    (True, False): (_OF_TASK,),
    (False, True): (_OF_USER,),
    (True, True): (_OF_TASK, _OF_USER),
}
_head = jobs.alias("head")
_FIND_HEADS = {
    key: select(
        job_classes.c.classID,
        *(job_classes.c[name] for name in CLASS_COLUMNS),
        _head.c.PandaID,
        _head.c.currentPriority,
    )
    .join_from(job_classes, _head, _head.c.PandaID == _best_of_class(job_classes.c.classID, *conditions, lock=False))
    .where(job_classes.c.computingSite == bindparam("queue"))
    for key, conditions in _CONDITIONS.items()
}
_FIRST: list[BindParameter[str]] = [
    bindparam(f"share{number}", type_=job_classes.c.gshare.type) for number in range(FIRST_SHARES)
]
_FIND_FIRST_HEADS = _FIND_HEADS[False, False].where(job_classes.c.gshare.in_(_FIRST))
_FIND_OLDEST = (
    select(*(jobs.c[name] for name in Head._fields))
    .where(jobs.c.computingSite == bindparam("queue"), _IS_ACTIVATED)
    .order_by(jobs.c.PandaID)
    .limit(literal_column(str(_OLDEST)))
)
_FIND_CLASS = select(job_classes.c.classID, job_classes.c.usedTime).where(
    *(job_classes.c[name] == bindparam(name) for name in CLASS_COLUMNS)
)
_LAST_OF_CLASS = (
    select(jobs.c.PandaID)
    .where(jobs.c.classID == bindparam("class_id"), _IS_ACTIVATED)
    .order_by(jobs.c.currentPriority, jobs.c.PandaID.desc())
    .limit(bindparam("limit", type_=Integer))
)
_CLAIMED_VALUES = (
    "jobStatus",
    "claimID",
    "requestID",
    "requestNr",
    "claimedBy",
    "heartbeat",
    "lostHeartbeat",
    "schedulerID",
    "harvesterID",
    "workerID",
    "node",
    "stateChangeTime",
    "modificationTime",
    "startTime",
    "watchTime",
)


def _claim(job: ScalarSelect[int]) -> ReturningUpdate[tuple[Value, ...]]:
    """The statement that gives a job to a pilot if nobody has it."""
    values: dict[str, BindParameter[Value]] = {name: bindparam(name) for name in _CLAIMED_VALUES}
    return update(jobs).where(jobs.c.PandaID == job, _IS_ACTIVATED).values(values).returning(*_WIRE)


_CLASS = bindparam("_class", type_=jobs.c.classID.type)
_CLAIM = {key: _claim(_best_of_class(_CLASS, *conditions, lock=True)) for key, conditions in _CONDITIONS.items()}
_AS_URGENT = jobs.c.currentPriority == bindparam("_priority")
_CLAIM_AS_URGENT = {
    key: _claim(_best_of_class(_CLASS, _AS_URGENT, *conditions, lock=True)) for key, conditions in _CONDITIONS.items()
}
_CLAIM_ONE = _claim(
    select(jobs.c.PandaID)
    .where(jobs.c.PandaID == bindparam("_job"), _IS_ACTIVATED)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)
_OF_REQUEST = (
    select(*_WIRE)
    .where(jobs.c.requestID == bindparam("request_id"), jobs.c.requestID.is_not(None))
    .order_by(jobs.c.requestNr)
)


class ClaimedJob(NamedTuple):
    """What a pilot is told of: a job's WIRE_COLUMNS, and what else was said of it when it was submitted."""

    columns: dict[str, Value]
    definition: dict[str, object]


def find_heads(connection: Connection, queue: str, task_id: int | None, user: str | None) -> list[Head]:
    """The best activated job of every class of a queue that has one, optionally only of a task or a user."""
    statement = _FIND_HEADS[task_id is not None, user is not None]
    rows = connection.execute(statement, {"queue": queue, **_wanted(task_id, user)})
    return [Head._make(row) for row in rows]


def find_heads_of_shares(connection: Connection, queue: str, shares: Sequence[str]) -> list[Head]:
    """The best activated job of every class of a queue that belongs to one of these shares (one to FIRST_SHARES)."""
    names = {f"share{number}": shares[min(number, len(shares) - 1)] for number in range(FIRST_SHARES)}
    return [Head._make(row) for row in connection.execute(_FIND_FIRST_HEADS, {"queue": queue, **names})]


def find_oldest(connection: Connection, queue: str) -> list[Head]:
    """The oldest activated jobs of a queue, the oldest first; they need not be the best of their classes."""
    return [Head._make(row) for row in connection.execute(_FIND_OLDEST, {"queue": queue})]


def claim_head(
    connection: Connection, class_id: int, task_id: int | None, user: str | None, values: Values
) -> ClaimedJob | None:
    """Give the best activated job of a class to a pilot.

    Args:
        values: the columns of the claim.

    Returns:
        The job, or None if none of the class is left.
    """
    statement = _CLAIM[task_id is not None, user is not None]
    row = connection.execute(statement, {**values, "_class": class_id, **_wanted(task_id, user)}).first()
    return _claimed(row) if row else None


def claim_as_urgent(
    connection: Connection, class_id: int, priority: int, task_id: int | None, user: str | None, values: Values
) -> ClaimedJob | None:
    """The same for a job of a task or user that has this very priority."""
    statement = _CLAIM_AS_URGENT[task_id is not None, user is not None]
    wanted = {"_class": class_id, "_priority": priority, **_wanted(task_id, user)}
    row = connection.execute(statement, {**values, **wanted}).first()
    return _claimed(row) if row else None


def claim_job(connection: Connection, job_id: int, values: Values) -> ClaimedJob | None:
    """The same for one job, if nobody has it."""
    row = connection.execute(_CLAIM_ONE, {**values, "_job": job_id}).first()
    return _claimed(row) if row else None


def _claimed(row: Row[tuple[Value, ...]]) -> ClaimedJob:
    columns = dict(row._mapping)
    return ClaimedJob(columns, definition=columns.pop("definition") or {})


def _wanted(task_id: int | None, user: str | None) -> dict[str, Value]:
    wanted: dict[str, Value] = {}
    if task_id is not None:
        wanted["task_id"] = task_id
    if user is not None:
        wanted["user"] = user
    return wanted


def find_claimed(connection: Connection, request_id: str) -> list[ClaimedJob]:
    """The jobs a request has claimed and not given back."""
    return [_claimed(row) for row in connection.execute(_OF_REQUEST, {"request_id": request_id})]


def find_last(connection: Connection, queue: str, share: str, limit: int) -> list[int]:
    """The activated jobs of a share that a queue would give out last, class by class: an index has them at its end."""
    classes = select(job_classes.c.classID).where(job_classes.c.computingSite == queue, job_classes.c.gshare == share)
    found: list[int] = []
    for class_id in connection.execute(classes.order_by(job_classes.c.classID)).scalars().all():
        found += connection.execute(_LAST_OF_CLASS, {"class_id": class_id, "limit": limit - len(found)}).scalars()
        if len(found) >= limit:
            break
    return found


def has_jobs(connection: Connection, queue: str, status: str) -> bool:
    """Whether a queue has a job in a state."""
    query = select(exists().where(jobs.c.computingSite == queue, jobs.c.jobStatus == status))
    return bool(connection.execute(query).scalar())


def has_started(connection: Connection, queue: str, statuses: Sequence[str], since: float) -> bool:
    """Whether a job of a queue that is in one of these states has started since a time."""
    started = (jobs.c.jobStatus.in_(statuses), jobs.c.startTime >= since)
    query = select(exists().where(jobs.c.computingSite == queue, *started))
    return bool(connection.execute(query).scalar())


def class_of(connection: Connection, requirements: Values, now: float) -> int:
    """The class of jobs with these requirements (all of CLASS_COLUMNS), made if it is new."""
    row = connection.execute(_FIND_CLASS, {name: requirements[name] for name in CLASS_COLUMNS}).first()
    if row is not None and row.usedTime >= now - _MARK_PERIOD:
        return int(row.classID)
    # New, or to be marked. In one statement: whoever removes unused classes may have been faster than our look.
    values = {**{name: requirements[name] for name in CLASS_COLUMNS}, "usedTime": now}
    statement = insert_into(connection, job_classes).values(values)
    columns = [job_classes.c[name] for name in CLASS_COLUMNS]
    marked = statement.on_conflict_do_update(index_elements=columns, set_={"usedTime": now})
    return int(connection.execute(marked.returning(job_classes.c.classID)).scalar_one())


def requirements_of(connection: Connection, job_id: int) -> dict[str, Value]:
    """The CLASS_COLUMNS of a job."""
    columns = [jobs.c[name] for name in CLASS_COLUMNS]
    row = connection.execute(select(*columns).where(jobs.c.PandaID == job_id)).one()
    return dict(row._mapping)


def remove_unused_classes(connection: Connection, unused_since: float) -> int:
    """Remove classes without activated jobs that were last used before a time (an hour or more ago); returns how many.

    Whoever activates a job marks its class first, in the same transaction, so a class in use is never removed.
    """
    used = exists().where(jobs.c.classID == job_classes.c.classID, _IS_ACTIVATED)
    return connection.execute(delete(job_classes).where(job_classes.c.usedTime < unused_since, ~used)).rowcount
