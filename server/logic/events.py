"""The event service: ranges of events are given to the pilot that has the job, and updated by nobody else.

The states are those of PanDA's documents (chapter 7.1.3). A range is `ready`, then `sent` to a pilot, `running` when
the pilot says so, and `finished`, `failed` or `fatal` at its pilot's word. When the attempt of its job ends, what is
finished is `done`, and the rest is `ready` again, `fatal` when it has failed too often, or `cancelled` when somebody
has killed the job. What becomes of those that are done is said by merge jobs (`eventmerge`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from server.db import events, jobs
from server.db.database import Connection
from server.db.events import EventRange
from server.db.jobs import LiveJob
from server.logic.context import Context, Identity
from server.logic.errors import BadField
from server.logic.fence import has_job
from server.logic.names import has_control_characters, shown
from server.logic.retries import UNCHARGED_PILOT_CODES
from server.logic.states import CLAIMED, KILL, SOFT_KILL, Status

#: Most ranges of one request; PanDA's servers take updates of as many.
MOST_RANGES = 100_000
#: taskID-PandaID-fileID-processID-attemptNr (wire.md section 6); the process is our number of the range.
_RANGE_ID = re.compile(r"(\d{1,18})-(\d{1,18})-(\d{1,18})-(\d{1,18})-(\d{1,9})\Z", re.ASCII)
#: What a pilot may say of a range, and the states in which it may say so.
_REPORTABLE: Mapping[str, frozenset[str]] = {
    "running": frozenset({"sent"}),
    "finished": frozenset({"sent", "running"}),
    "failed": frozenset({"sent", "running"}),
    "fatal": frozenset({"sent", "running"}),
}
#: Said by pilots of others, and nothing changes; the answer is neither yes nor no.
_UNUSED = frozenset({"transferring", "sent"})
#: What a pilot may say of a range beside its state, and of the archive that its output is in.
_FACTS = frozenset({"coreCount", "cpuConsumptionTime", "objstoreID", "pathConvention", "errorCode", "errorDiag"})
_ZIP_FACTS = frozenset({"lfn", "objstoreID", "fsize", "adler32", "md5", "guid", "surl", "endpoint", "numEvents"})
_TEXT_LENGTH = 1024


@dataclass(frozen=True)
class RangeReport:
    """What a pilot says of one range.

    Attributes:
        range_id: as it was given.
        facts: what else it says.
    """

    range_id: str
    status: str
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class RangeAnswers:
    """The answers to reports of ranges.

    Attributes:
        taken: for each of them whether it was taken; None if it says nothing that this server wants to know.
        commands: orders for their jobs, by PandaID.
    """

    taken: list[bool | None]
    commands: dict[int, str]


def pool_of(job_id: int, task_id: int, jobset_id: int, user: str) -> str:
    """Whose jobs may have the ranges that a job brings: those of its user's jobset, or itself alone."""
    # Users number their tasks and jobsets themselves, and two may have the same.
    return f"jobset {task_id}/{jobset_id} of {user}" if jobset_id else f"job {job_id}"


def acquire_ranges(
    context: Context, job_id: int, number: int, claim: str, identity: Identity
) -> list[dict[str, object]]:
    """Give event ranges to the pilot that has a job; empty if none is left, or the job is not the caller's.

    Args:
        claim: the caller's claim; empty for pilots that do not know claims.
    """
    with context.database.durable() as connection:
        job = jobs.lock_live(connection, job_id)  # its end must not miss what is given here
        if job is None or job.jobStatus not in CLAIMED or not has_job(job, claim, identity):
            return []
        if job.killedBy is not None or job.commandToPilot == SOFT_KILL:  # the ranges would only come back
            return []
        pool = _pool(connection, job_id)
        wanted = min(max(number, 1), MOST_RANGES)
        taken = events.take_ranges(connection, pool, job_id, job.attemptNr, wanted, context.clock())
        names = events.input_names(connection, {one.fileID for one in taken if one.fileID})
    return [_as_wire(job, one, names.get(one.fileID or 0, {})) for one in taken]


def range_name(job: LiveJob, file_id: int | None, number: int, attempt: int) -> str:
    """What a range that a job has is called on the wire."""
    return f"{job.taskID}-{job.PandaID}-{file_id or 0}-{number}-{attempt}"


def _as_wire(job: LiveJob, one: EventRange, names: Mapping[str, str | None]) -> dict[str, object]:
    return {
        "eventRangeID": range_name(job, one.fileID, one.rangeID, one.attemptNr),
        "startEvent": one.startEvent,
        "lastEvent": one.lastEvent,
        "LFN": names.get("LFN"),
        "GUID": names.get("GUID"),
        "scope": names.get("scope"),
    }


def _pool(connection: Connection, job_id: int) -> str:
    return _pool_of_row(jobs.read_job(connection, job_id) or {"PandaID": job_id})


def _pool_of_row(job: Mapping[str, object]) -> str:
    job_id, task_id, jobset_id = (int(str(job.get(name) or 0)) for name in ("PandaID", "taskID", "jobsetID"))
    return pool_of(job_id, task_id, jobset_id, str(job.get("prodUserName")))


def update_ranges(context: Context, reports: Sequence[RangeReport], claim: str, identity: Identity) -> RangeAnswers:
    """Take what pilots say of their ranges; a repeated report is taken again and changes nothing.

    A report of a range that the job has lost, or never had, is not taken; the caller is told of jobs it has lost.
    """
    numbers = [_numbers(report.range_id) for report in reports]
    with context.database.durable() as connection:
        # Locked, in the order of their numbers: the end of a job must not miss what is reported here.
        wanted = sorted({number[1] for number in numbers if number})
        owners = {job_id: job for job_id in wanted if (job := jobs.lock_live(connection, job_id)) is not None}
        found = events.find_ranges(connection, {number[3] for number in numbers if number})
        taken: list[bool | None] = []
        for report, number in zip(reports, numbers, strict=True):
            job = owners.get(number[1]) if number else None
            known = found.get(number[3]) if number else None
            if number is None or job is None or known is None or not has_job(job, claim, identity):
                taken.append(False)
                continue
            answer, after = _update(connection, context, job, known, number[4], report)
            found[known.rangeID] = after
            taken.append(answer)
    return RangeAnswers(taken, _commands(numbers, owners, claim, identity))


def _numbers(range_id: str) -> tuple[int, ...] | None:
    """Task, job, file, number and attempt of a range; None if it cannot be one of ours."""
    match = _RANGE_ID.match(range_id)
    return tuple(map(int, match.groups())) if match else None


def _update(
    connection: Connection, context: Context, job: LiveJob, known: EventRange, attempt: int, report: RangeReport
) -> tuple[bool | None, EventRange]:
    if report.status in _UNUSED:
        return None, known
    ours = (known.PandaID, known.jobAttempt, known.attemptNr) == (job.PandaID, job.attemptNr, attempt)
    if report.status not in _REPORTABLE or not ours:
        return False, known
    # `running` has no answer of its own on this wire; pilots do not wait for one.
    answer = None if report.status == "running" else True
    if known.status == report.status:
        return answer, known
    if known.status not in _REPORTABLE[report.status]:
        return (None if report.status == "running" else False), known
    if not events.change_range(connection, known, report.status, report.facts, context.clock()):
        return False, known
    return answer, known._replace(status=report.status)


def _commands(
    numbers: Iterable[tuple[int, ...] | None], owners: Mapping[int, LiveJob], claim: str, identity: Identity
) -> dict[int, str]:
    commands: dict[int, str] = {}
    for job_id in {number[1] for number in numbers if number}:
        job = owners.get(job_id)
        if job is None or job.jobStatus not in CLAIMED | {Status.HOLDING} or not has_job(job, claim, identity):
            commands[job_id] = KILL
        elif job.commandToPilot and job.jobStatus in CLAIMED:
            commands[job_id] = job.commandToPilot
    return commands


def read_reports(content: object) -> list[RangeReport]:
    """The reports in the list of updateEventRanges: ranges, or groups {eventRanges: [...], zipFile: {...}} of them.

    Raises:
        BadField: it is no such list.
    """
    if not isinstance(content, list):
        raise BadField("eventRanges", f"must be a JSON list of objects, not {shown(content)}")
    reports: list[RangeReport] = []
    for item in content:
        group = item.get("eventRanges") if isinstance(item, dict) else None
        if isinstance(item, dict) and isinstance(group, list):
            archive = _kept(item.get("zipFile"), _ZIP_FACTS)
            reports += [_report(one, {"zipFile": archive} if archive else {}) for one in group]
        else:
            reports.append(_report(item, {}))
    if len(reports) > MOST_RANGES:
        raise BadField("eventRanges", f"has {len(reports)} ranges; {MOST_RANGES} is the most of one call")
    return reports


def _report(item: object, more: Mapping[str, object]) -> RangeReport:
    """One item; what cannot be one becomes a report that is not taken, so that the others keep their places."""
    if not isinstance(item, dict):
        return RangeReport("", "")
    return RangeReport(str(item.get("eventRangeID")), str(item.get("eventStatus")), {**_kept(item, _FACTS), **more})


def _kept(value: object, keys: frozenset[str]) -> dict[str, object]:
    """What is worth keeping of an object that a pilot has sent."""
    if not isinstance(value, dict):
        return {}
    return {key: one for key, one in value.items() if key in keys and _is_plain(one)}


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _TEXT_LENGTH and not has_control_characters(value)
    return isinstance(value, int | float) and abs(value) < 2**63


def count_ranges(context: Context, job_id: int) -> dict[str, int]:
    """How many ranges there are for a job, by state."""
    with context.database.reading() as connection:
        return events.count_ranges(connection, _pool(connection, job_id))


def count_of_job(connection: Connection, job: Mapping[str, object]) -> dict[str, int]:
    """The same for the row of a job, in the caller's transaction."""
    return events.count_ranges(connection, _pool_of_row(job))


def settle_ranges(connection: Connection, job: LiveJob, pilot_code: int, now: float) -> None:
    """The attempt of a job ends, in the caller's transaction: its ranges are done, free again, or of no use any more.

    What the pilot had in stock and never passed on counts as no attempt, nor does an end that is nobody's fault. What
    has failed is tried again in halves, so that in the end its bad events stand alone.
    """
    if not events.has_ranges(connection, job.PandaID):
        return
    attempt = (job.PandaID, job.attemptNr)
    events.rename_ranges(connection, *attempt, {"finished": "done"}, now)
    if job.killedBy is not None:
        events.rename_ranges(connection, *attempt, dict.fromkeys(("sent", "running", "failed"), "cancelled"), now)
        return
    events.reopen_ranges(connection, *attempt, ("sent",), now, charged=False)
    charged = abs(pilot_code) not in UNCHARGED_PILOT_CODES
    if charged:
        events.split_ranges(connection, *attempt, ("failed",), now)
    events.reopen_ranges(connection, *attempt, ("running", "failed"), now, charged=charged)
