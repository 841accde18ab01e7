"""Global shares and what is in use of them: rows to be read often and written seldom, and counting for the daemon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import (
    Connection,
    Integer,
    Select,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    union_all,
    update,
)

from server.db.dialect import insert_into
from server.db.jobs import Value, Values
from server.db.tables import (
    CLASS_COLUMNS,
    counters,
    global_shares,
    job_classes,
    job_definitions,
    jobs,
    share_usage,
)

#: The counter that says how far queued jobs have been given their shares anew: a PandaID, or this when all have.
_RETAG = "retag"
_ALL_TAGGED = -1

#: States of jobs that no pilot has: their share may still change.
_QUEUED = ("pending", "defined", "assigned", "throttled", "activated")
#: States of jobs that have a slot: a pilot that is told to hold or transfer has left it, or soon will.
_RUNNING = ("sent", "starting", "running")


def _find_queued() -> Select[tuple[object, ...]]:
    """The first of each state, as the index of states has them, then the first of these: no state is sorted.

    One statement, so that a job which changes its state meanwhile is not missed.
    """
    columns = [jobs.c[name] for name in dict.fromkeys((*CLASS_COLUMNS, "PandaID", "jobStatus", "attemptNr", "classID"))]
    firsts = [
        select(*columns)
        .where(jobs.c.jobStatus == state, jobs.c.PandaID > bindparam("after"))
        .order_by(jobs.c.PandaID)
        .limit(bindparam("most", type_=Integer))
        .subquery()
        for state in _QUEUED
    ]
    found = union_all(*(select(first) for first in firsts)).subquery()
    return select(found).order_by(found.c.PandaID).limit(bindparam("most", type_=Integer))


_FIND_QUEUED = _find_queued()


class Share(NamedTuple):
    """A share as it is stored; what comes after `value` are the regular expressions of its rule."""

    name: str
    parent: str | None
    position: int
    value: float
    prodSourceLabel: str | None
    workingGroup: str | None
    campaign: str | None
    processingType: str | None
    transPath: str | None
    resource_type: str | None


class Usage(NamedTuple):
    """What the jobs of a share occupied when they were counted."""

    gshare: str
    running: int
    cores: int
    hs06: float
    queued: int
    countedTime: float


_SHARES = select(*(global_shares.c[name] for name in Share._fields)).order_by(global_shares.c.position)
_USAGE = select(*(share_usage.c[name] for name in Usage._fields))


def read_shares(connection: Connection) -> list[Share]:
    """All shares in the order they were given in."""
    return [Share._make(row) for row in connection.execute(_SHARES)]


def replace_shares(connection: Connection, shares: Sequence[Share]) -> None:
    """Store these shares in place of all others, and have queued jobs given their shares anew."""
    connection.execute(delete(global_shares))
    if shares:
        connection.execute(insert(global_shares), [share._asdict() for share in shares])
    _set_retag(connection, 0)


def read_usage(connection: Connection) -> list[Usage]:
    """What is in use of each share that has jobs."""
    return [Usage._make(row) for row in connection.execute(_USAGE)]


def replace_usage(connection: Connection, usage: Sequence[Usage]) -> None:
    """Store what was counted."""
    connection.execute(delete(share_usage))
    if usage:
        connection.execute(insert(share_usage), [share._asdict() for share in usage])


def count_running(connection: Connection) -> dict[tuple[str, str], tuple[int, int]]:
    """How many jobs of each queue and share occupy a slot, and how many cores they have: (queue, share) -> both.

    It reads all jobs in these states, so call it seldom.
    """
    columns = (jobs.c.computingSite, jobs.c.gshare)
    cores = func.sum(func.coalesce(jobs.c.actualCoreCount, jobs.c.coreCount))
    query = select(*columns, func.count(), cores).where(jobs.c.jobStatus.in_(_RUNNING)).group_by(*columns)
    return {(queue, share): (int(number), int(total)) for queue, share, number, total in connection.execute(query)}


def count_queued(connection: Connection) -> dict[str, int]:
    """How many jobs of each share are activated. It reads the index of classes, and no job."""
    activated = jobs.c.jobStatus == literal_column("'activated'")
    by_class = select(jobs.c.classID, func.count().label("number")).where(activated).group_by(jobs.c.classID).subquery()
    query = (
        select(job_classes.c.gshare, func.sum(by_class.c.number))
        .join_from(by_class, job_classes, by_class.c.classID == job_classes.c.classID)
        .group_by(job_classes.c.gshare)
    )
    return {share: int(number) for share, number in connection.execute(query)}


def retag_from(connection: Connection) -> int | None:
    """The PandaID after which queued jobs have still to be given their shares anew; None if all have theirs."""
    value = connection.execute(select(counters.c.value).where(counters.c.name == _RETAG)).scalar()
    return None if value is None or value == _ALL_TAGGED else int(value)


def note_tagged(connection: Connection, before: int, last: int | None) -> bool:
    """Note how far queued jobs have their shares; False if shares were changed meanwhile, so that it begins anew.

    Args:
        before: what `retag_from` said.
        last: the last PandaID that was looked at; None if there are no more.
    """
    value = _ALL_TAGGED if last is None else last
    statement = update(counters).where(counters.c.name == _RETAG, counters.c.value == before).values(value=value)
    return connection.execute(statement).rowcount == 1


def _set_retag(connection: Connection, value: int) -> None:
    statement = insert_into(connection, counters).values(name=_RETAG, value=value)
    connection.execute(statement.on_conflict_do_update(index_elements=[counters.c.name], set_={"value": value}))


def find_queued(connection: Connection, after: int, limit: int) -> list[dict[str, Value]]:
    """Jobs that no pilot has, by PandaID: their CLASS_COLUMNS, PandaID, jobStatus, attemptNr and classID."""
    rows = connection.execute(_FIND_QUEUED, {"after": after, "most": limit})
    return [dict(row._mapping) for row in rows]


def read_definitions(connection: Connection, job_ids: Iterable[int]) -> dict[int, dict[str, object]]:
    """What pilots are given beside columns and files, of several jobs."""
    rows = connection.execute(
        select(job_definitions.c.PandaID, job_definitions.c.definition).where(
            job_definitions.c.PandaID.in_(list(job_ids))
        )
    )
    return {row.PandaID: dict(row.definition) for row in rows}


def move_job(connection: Connection, job: Values, share: str, class_id: int | None) -> bool:
    """Give a queued job another share, and its class if it has one; False if it is not as it was read any more."""
    statement = (
        update(jobs)
        .where(
            jobs.c.PandaID == job["PandaID"],
            jobs.c.jobStatus == job["jobStatus"],
            jobs.c.attemptNr == job["attemptNr"],
            jobs.c.computingSite == job["computingSite"],
            jobs.c.classID.is_not_distinct_from(job["classID"]),
        )
        .values(gshare=share, classID=class_id)
    )
    return connection.execute(statement).rowcount == 1
