"""What users ask about the event ranges of their jobs: a page of them, with all that is known of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.db import archive, events, records
from server.db.database import Connection
from server.db.events import KnownRange
from server.db.jobs import LiveJob
from server.logic.context import Context, Identity
from server.logic.dispatch import iso_time
from server.logic.events import range_name

#: Jobs of one question, and ranges of one answer.
MOST_JOBS = 1_000
MOST_RANGES = 10_000
#: States in which a range may be tried again.
_OPEN = frozenset({"ready", "sent", "running", "finished", "failed"})


@dataclass(frozen=True)
class Wanted:
    """A job of a question; a task of 0 stands for any."""

    job_id: int
    task_id: int = 0


@dataclass(frozen=True)
class Place:
    """Where a page begins: after this range of this job."""

    job_id: int = 0
    range_id: int = 0


@dataclass
class RangePage:
    """An answer.

    Attributes:
        ranges: by PandaID, then by the range's name on the wire.
        following: where the next page begins; None if this is the last one.
    """

    ranges: dict[int, dict[str, dict[str, object]]] = field(default_factory=dict)
    following: Place | None = None


def list_ranges(
    context: Context, wanted: Sequence[Wanted], identity: Identity, begin: Place, limit: int = MOST_RANGES
) -> RangePage:
    """The ranges that jobs have, or had last, in the order of their numbers.

    Jobs that are not there, are somebody else's, or belong to another task than the caller thinks, are left out.
    """
    tasks = {one.job_id: one.task_id for one in wanted if one.job_id >= begin.job_id}
    left = min(max(limit, 1), MOST_RANGES)
    page, last = RangePage(), begin
    with context.database.reading() as connection:
        known = records.look_up_many(connection, sorted(tasks))
        for job_id in sorted(known):
            job = known[job_id]
            if not identity.may_act_for(job.prodUserName) or tasks[job_id] not in (0, job.taskID):
                continue
            found = _ranges_of(connection, job_id, begin.range_id if job_id == begin.job_id else 0, left + 1)
            if len(found) > left:
                page.following = Place(job_id, found[left - 1].rangeID) if left else last
            found = found[:left]
            if found:
                page.ranges[job_id] = {_name(job, one): _told(one) for one in found}
                last = Place(job_id, found[-1].rangeID)
            if page.following:
                break
            left -= len(found)
    return page


def _ranges_of(connection: Connection, job_id: int, after: int, limit: int) -> list[KnownRange]:
    found = events.list_ranges(connection, job_id, after, limit)
    return found or archive.list_ranges(connection, job_id, after, limit)


def _name(job: LiveJob, one: KnownRange) -> str:
    return range_name(job, one.fileID, one.rangeID, one.attemptNr)


def _told(one: KnownRange) -> dict[str, object]:
    facts = one.facts or {}
    stored = facts.get("zipFile")
    zip_file: Mapping[str, object] = stored if isinstance(stored, dict) else {}
    return {
        "status": one.status,
        "attempt_nr": one.attemptNr,
        "attempts_left": max(0, one.maxAttempt - one.attemptNr) if one.status in _OPEN else 0,
        "start_event": one.startEvent,
        "last_event": one.lastEvent,
        "lfn": one.lfn,
        "archive": one.archive,
        "endpoint": zip_file.get("endpoint"),
        "objectstore_id": zip_file.get("objstoreID", facts.get("objstoreID")),
        "surl": zip_file.get("surl"),
        "merge_job_id": one.mergeID,
        "error_code": facts.get("errorCode"),
        "error_diag": facts.get("errorDiag"),
        "modification_time": iso_time(one.modificationTime),
    }
