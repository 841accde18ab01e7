"""How an attempt ends: its last state, and either the next attempt or the end of the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.db import dispatch, files, jobs
from server.db.database import Connection
from server.db.files import JobFile, Name
from server.db.jobs import Change, LiveJob, Value
from server.db.tables import CLAIM_COLUMNS, RESULT_COLUMNS
from server.logic.context import Context
from server.logic.events import settle_ranges
from server.logic.retries import after_failure
from server.logic.states import Status
from server.logic.timeouts import next_look


@dataclass(frozen=True)
class Ending:
    """How an attempt ends.

    Attributes:
        status: finished, failed, cancelled or closed.
        actor: who decided it: the pilot's node, a user, or a part of this server.
        reason: why, for the history.
        columns: error codes and texts, and other columns to store with it.
    """

    status: Status
    actor: str
    reason: str
    columns: Mapping[str, Value] = field(default_factory=dict)


def end_attempt(context: Context, connection: Connection, job: LiveJob, ending: Ending) -> list[Name] | None:
    """End an attempt in the caller's transaction.

    Returns:
        The names the job promised and will not deliver any more (empty when it is queued again or delivered all);
        None if the job was not in the state any more in which it was read: then nothing was changed.
    """
    now = context.clock()
    values: dict[str, Value] = {
        "jobStatus": ending.status,
        "stateChangeTime": now,
        "modificationTime": now,
        "endTime": max(now, job.startTime or now) if job.endTime is None else job.endTime,
        "watchTime": None,
        "requestID": None,
        "classID": None,
        **ending.columns,
    }
    if not jobs.change_job(connection, job, values):
        return None
    change = Change(job.PandaID, job.attemptNr, ending.status, now, ending.actor, ending.reason)
    jobs.add_history(connection, [change])
    settle_ranges(connection, job, _pilot_code(job, ending), now)
    if ending.status == Status.FAILED and _queued_again(context, connection, job, ending, now):
        return []
    return files.break_promises(connection, job.PandaID, now)


def _queued_again(context: Context, connection: Connection, job: LiveJob, ending: Ending, now: float) -> bool:
    """Give a failed job its next attempt, if there is one."""
    retry = after_failure(
        attempt=job.attemptNr,
        failed_attempts=job.failedAttempt,
        max_attempts=job.maxAttempt,
        pilot_code=_pilot_code(job, ending),
        killed=job.killedBy is not None,
    )
    if not retry.again or job.jobStatus not in _RETRIED_FROM:
        return False
    attempt = job.attemptNr + 1
    values: dict[str, Value] = {
        **dict.fromkeys((*CLAIM_COLUMNS, *RESULT_COLUMNS)),
        **{name: 0 for name in RESULT_COLUMNS if name.endswith("ErrorCode")},
        "jobStatus": Status.ACTIVATED,
        "attemptNr": attempt,
        "failedAttempt": job.failedAttempt + retry.charged,
        "classID": dispatch.class_of(connection, dispatch.requirements_of(connection, job.PandaID), now),
        "stateChangeTime": now,
        "modificationTime": now,
        "startTime": None,
        "endTime": None,
        "commandToPilot": None,
        "watchTime": next_look(context, job._replace(jobStatus=Status.ACTIVATED, stateChangeTime=now)),
    }
    jobs.change_job(connection, job._replace(jobStatus=ending.status), values)
    reason = f"attempt {job.attemptNr} failed, attempt {attempt} of up to {job.maxAttempt} is queued"
    if not retry.charged:
        reason += " (the failed one is not counted)"
    jobs.add_history(connection, [Change(job.PandaID, attempt, Status.ACTIVATED, now, "retry", reason)])
    _rename_log(connection, job, attempt, now)
    return True


def _pilot_code(job: LiveJob, ending: Ending) -> int:
    code = ending.columns.get("pilotErrorCode", job.pilotErrorCode)
    return code if isinstance(code, int) else 0


#: An attempt that never was in a pilot's hands has nothing to repeat.
_RETRIED_FROM = frozenset(
    {Status.SENT, Status.STARTING, Status.RUNNING, Status.HOLDING, Status.TRANSFERRING, Status.MERGING}
)


def _rename_log(connection: Connection, job: LiveJob, attempt: int, now: float) -> None:
    """Give the next attempt's log its own name: the lost pilot may still write the old one."""
    logs = [file for file in files.read_files(connection, job.PandaID) if file.type == "log"]
    if not logs:
        return
    first, last = logs[0], logs[-1]
    name = (first.scope, f"{first.lfn}.{attempt}")
    if last.status == "defined":
        files.set_file_status(connection, [last.fileID], "lost")
        files.forget_promise(connection, job.PandaID, (last.scope, last.lfn))
    fresh = JobFile._make(first)._replace(
        attemptNr=attempt, status="defined", lfn=name[1], guid=None, fsize=None, checksum=None, surl=None
    )
    row = {key: value for key, value in fresh._asdict().items() if key != "fileID"}
    files.add_files(connection, [row])
    files.promise(connection, job.PandaID, [name], now)
