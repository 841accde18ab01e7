"""Event ranges: given out once, taken back when the attempt that had them ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, exists, func, insert, select, update

from server.db.jobs import Value, batches
from server.db.tables import event_ranges, files


class EventRange(NamedTuple):
    """A row of `event_ranges`, as decisions see it."""

    rangeID: int
    PandaID: int | None
    jobAttempt: int | None
    attemptNr: int
    fileID: int | None
    startEvent: int
    lastEvent: int
    status: str


class ArchivedRange(NamedTuple):
    """A range that is done, with the job that made it and the one that merges it."""

    rangeID: int
    PandaID: int | None
    mergeID: int | None


class KnownRange(NamedTuple):
    """A range with all that its user may want to know of it; lfn: of the input whose events they are."""

    rangeID: int
    attemptNr: int
    maxAttempt: int
    fileID: int | None
    lfn: str | None
    startEvent: int
    lastEvent: int
    status: str
    facts: Mapping[str, object] | None
    archive: str | None
    mergeID: int | None
    modificationTime: float


#: Characters of a file's name.
_NAME_LENGTH = 255
_RANGE = tuple(event_ranges.c[name] for name in EventRange._fields)


def add_ranges(connection: Connection, rows: Sequence[Mapping[str, Value]]) -> None:
    """Store new ranges: pool, maxAttempt, fileID, startEvent, lastEvent and modificationTime of each."""
    if rows:
        connection.execute(insert(event_ranges), [{"attemptNr": 1, "status": "ready", **row} for row in rows])


def take_ranges(
    connection: Connection, pool: str, job_id: int, job_attempt: int, number: int, now: float
) -> list[EventRange]:
    """Give ready ranges of a pool to an attempt of a job, at most `number`, the first ones first."""
    ready = (
        select(event_ranges.c.rangeID)
        .where(event_ranges.c.pool == pool, event_ranges.c.status == "ready")
        .order_by(event_ranges.c.rangeID)
        .limit(number)
        .with_for_update(skip_locked=True)  # SQLite, which has one writer at a time, leaves this out
    )
    # Not a part of the update: PostgreSQL may look for the rows again, and find others.
    wanted = list(connection.execute(ready).scalars())
    values = {"status": "sent", "PandaID": job_id, "jobAttempt": job_attempt, "modificationTime": now}
    taken: list[EventRange] = []
    for some in batches(wanted):
        same = and_(event_ranges.c.rangeID.in_(some), event_ranges.c.status == "ready")
        rows = connection.execute(update(event_ranges).where(same).values(values).returning(*_RANGE))
        taken += [EventRange._make(row) for row in rows]
    return sorted(taken)


def find_ranges(connection: Connection, range_ids: Iterable[int]) -> dict[int, EventRange]:
    """Those of these ranges that exist, by number."""
    found: dict[int, EventRange] = {}
    for some in batches(list(range_ids)):
        for row in connection.execute(select(*_RANGE).where(event_ranges.c.rangeID.in_(some))):
            found[row.rangeID] = EventRange._make(row)
    return found


def change_range(
    connection: Connection, known: EventRange, status: str, facts: Mapping[str, object], now: float
) -> bool:
    """Change a range if it still is as it was read; what is known of it is replaced only by something."""
    values: dict[str, object] = {"status": status, "modificationTime": now}
    if facts:
        values["facts"] = dict(facts)
    archive = facts.get("zipFile")
    if isinstance(archive, dict) and isinstance(archive.get("lfn"), str):
        values["archive"] = archive["lfn"][:_NAME_LENGTH]
    same = and_(
        event_ranges.c.rangeID == known.rangeID,
        event_ranges.c.status == known.status,
        event_ranges.c.attemptNr == known.attemptNr,
    )
    return connection.execute(update(event_ranges).where(same).values(values)).rowcount == 1


def has_ranges(connection: Connection, job_id: int) -> bool:
    """Whether a job has ranges that were given to it and not taken back."""
    return bool(connection.execute(select(exists().where(event_ranges.c.PandaID == job_id))).scalar())


def _of_attempt(job_id: int, job_attempt: int, *statuses: str) -> ColumnElement[bool]:
    return and_(
        event_ranges.c.PandaID == job_id,
        event_ranges.c.jobAttempt == job_attempt,
        event_ranges.c.status.in_(statuses),
    )


def rename_ranges(connection: Connection, job_id: int, job_attempt: int, states: Mapping[str, str], now: float) -> None:
    """Bring all ranges of a job's attempt that are in one of these states into another one: old state -> new."""
    for old, new in states.items():
        connection.execute(
            update(event_ranges).where(_of_attempt(job_id, job_attempt, old)).values(status=new, modificationTime=now)
        )


def reopen_ranges(
    connection: Connection, job_id: int, job_attempt: int, statuses: Sequence[str], now: float, *, charged: bool
) -> None:
    """Give the ranges of a job's attempt that are in these states back to the pool, as their next attempt.

    Args:
        charged: the attempt counts; those that have no attempt left become fatal.
    """
    of_attempt = _of_attempt(job_id, job_attempt, *statuses)
    number = event_ranges.c.attemptNr
    if charged:
        used_up = and_(of_attempt, number >= event_ranges.c.maxAttempt)
        connection.execute(update(event_ranges).where(used_up).values(status="fatal", modificationTime=now))
    connection.execute(
        update(event_ranges)
        .where(of_attempt)
        .values(
            status="ready",
            PandaID=None,
            jobAttempt=None,
            attemptNr=number + 1,
            maxAttempt=event_ranges.c.maxAttempt + (0 if charged else 1),
            modificationTime=now,
        )
    )


def split_ranges(connection: Connection, job_id: int, job_attempt: int, statuses: Sequence[str], now: float) -> int:
    """Halve the ranges of a job's attempt that are in these states and may be tried again; returns how many there were.

    The first half keeps the range's number, and its state; the second one is ready, as the next attempt.
    """
    table = event_ranges
    several = and_(
        _of_attempt(job_id, job_attempt, *statuses),
        table.c.lastEvent > table.c.startEvent,
        table.c.attemptNr < table.c.maxAttempt,
    )
    copied = tuple(table.c[name] for name in ("rangeID", "pool", "fileID", "startEvent", "lastEvent"))
    tries = (table.c.attemptNr, table.c.maxAttempt)
    rows = [row._asdict() for row in connection.execute(select(*copied, *tries).where(several))]
    for row in rows:
        number, middle = row.pop("rangeID"), (row["startEvent"] + row["lastEvent"]) // 2
        connection.execute(update(table).where(table.c.rangeID == number).values(lastEvent=middle))
        row |= {"startEvent": middle + 1, "attemptNr": row["attemptNr"] + 1, "modificationTime": now}
    add_ranges(connection, rows)
    return len(rows)


def list_ranges(connection: Connection, job_id: int, after: int, limit: int) -> list[KnownRange]:
    """The ranges that a job has, or had last, with a number after one, the first ones first."""
    columns = tuple(files.c.lfn if name == "lfn" else event_ranges.c[name] for name in KnownRange._fields)
    query = (
        select(*columns)
        .join_from(event_ranges, files, files.c.fileID == event_ranges.c.fileID, isouter=True)
        .where(event_ranges.c.PandaID == job_id, event_ranges.c.rangeID > after)
        .order_by(event_ranges.c.rangeID)
        .limit(limit)
    )
    return [KnownRange._make(row) for row in connection.execute(query)]


def count_ranges(connection: Connection, pool: str) -> dict[str, int]:
    """How many ranges a pool has, by state."""
    query = select(event_ranges.c.status, func.count()).where(event_ranges.c.pool == pool)
    return {str(row[0]): int(row[1]) for row in connection.execute(query.group_by(event_ranges.c.status))}


def input_names(connection: Connection, file_ids: Iterable[int]) -> dict[int, dict[str, str | None]]:
    """LFN, GUID and scope of input files, by their number, under the names of the wire."""
    columns = (files.c.fileID, files.c.lfn, files.c.guid, files.c.scope)
    found: dict[int, dict[str, str | None]] = {}
    for some in batches(list(file_ids)):
        for row in connection.execute(select(*columns).where(files.c.fileID.in_(some))):
            found[row.fileID] = {"LFN": row.lfn, "GUID": row.guid, "scope": row.scope}
    return found


def find_archived(connection: Connection, archives: Sequence[str]) -> list[ArchivedRange]:
    """The ranges that are done and lie in these archives."""
    found: list[ArchivedRange] = []
    columns = tuple(event_ranges.c[name] for name in ArchivedRange._fields)
    for some in batches(archives):
        done = event_ranges.c.archive.in_(some) & (event_ranges.c.status == "done")
        # Locked, in the order of their numbers: of two merge jobs at once the second one sees what the first has.
        query = select(*columns).where(done).order_by(event_ranges.c.rangeID).with_for_update()
        found += [ArchivedRange._make(row) for row in connection.execute(query)]
    return found


def set_merge(connection: Connection, range_ids: Sequence[int], job_id: int) -> None:
    """Give ranges to a merge job."""
    for some in batches(range_ids):
        connection.execute(update(event_ranges).where(event_ranges.c.rangeID.in_(some)).values(mergeID=job_id))


def move_merge(connection: Connection, job_id: int, to: int) -> None:
    """Give all ranges of a merge job to another one."""
    connection.execute(update(event_ranges).where(event_ranges.c.mergeID == job_id).values(mergeID=to))


def has_merge(connection: Connection, job_id: int) -> bool:
    """Whether a job merges ranges."""
    return bool(connection.execute(select(exists().where(event_ranges.c.mergeID == job_id))).scalar())


def end_merge(connection: Connection, job_id: int, status: str, now: float) -> None:
    """Bring the ranges of a merge job that are done into their last state."""
    done = and_(event_ranges.c.mergeID == job_id, event_ranges.c.status == "done")
    connection.execute(update(event_ranges).where(done).values(status=status, modificationTime=now))


def reopen_corrupted(connection: Connection, job_id: int, archives: Sequence[str], now: float) -> None:
    """Give ranges of a merge job whose archives are no good back to their pools, as their next attempt."""
    values = {
        "status": "ready",
        "attemptNr": event_ranges.c.attemptNr + 1,
        "maxAttempt": event_ranges.c.maxAttempt + 1,
        **dict.fromkeys(("PandaID", "jobAttempt", "archive", "mergeID")),
        "modificationTime": now,
    }
    for some in batches(archives):
        bad = and_(event_ranges.c.mergeID == job_id, event_ranges.c.status == "done", event_ranges.c.archive.in_(some))
        connection.execute(update(event_ranges).where(bad).values(values))
