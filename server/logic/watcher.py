"""The watcher: jobs whose pilot fell silent, and jobs stuck in a state for too long."""

from __future__ import annotations

import datetime

from server.db import files, information, jobs
from server.db.database import Connection
from server.db.files import Name
from server.db.jobs import LiveJob, Value
from server.logic import activation
from server.logic.context import Context
from server.logic.endings import Ending, end_attempt
from server.logic.explain import (
    HOLDING_TIMEOUT,
    INPUT_UNKNOWN,
    LOST_HEARTBEAT,
    RECOVERY_FAILED,
    SENT_TIMEOUT,
)
from server.logic.states import CLAIMED, Status
from server.logic.updates import holding_patience

_ACTOR = "watcher"
_BATCH = 200
#: When to look again at a job whose queue has its time-outs switched off, in s.
_LATER = 600


def watch_jobs(context: Context) -> int:
    """Look at the jobs whose time has come; returns how many there were."""
    with context.database.reading() as connection:
        due = jobs.find_jobs_to_watch(connection, context.clock(), _BATCH)
        if not due:
            return 0
        patient = {
            queue.name
            for queue in information.read_queues(connection)
            if queue.status == "paused" or "disableReassign" in str(queue.description.get("catchall", ""))
        }
    lost: list[Name] = []
    for job in due:
        lost += _look_at(context, job.PandaID, patient=job.computingSite in patient)
    activation.settle(context, lost)
    return len(due)


def _look_at(context: Context, job_id: int, *, patient: bool) -> list[Name]:
    """Put off the next look at a job, or give it up; returns the names it will not deliver."""
    with context.database.durable() as connection:
        now = context.clock()
        job = jobs.read_live(connection, job_id)
        if job is None:
            return []
        deadline = _deadline(context, job)
        if deadline is None or deadline > now or patient:
            later = None if deadline is None else max(deadline, now + _LATER) if patient else deadline
            jobs.change_job(connection, job, {"watchTime": later})
            return []
        if job.jobStatus != Status.ASSIGNED:
            return end_attempt(connection, job, _given_up(job), now) or []
        unmade = _unmade_input(connection, job)
        if unmade is None:  # however long its maker takes
            jobs.change_job(connection, job, {"watchTime": now + context.settings.assigned_timeout})
            return []
        return end_attempt(connection, job, _without_maker(job, unmade), now) or []


def _unmade_input(connection: Connection, job: LiveJob) -> Name | None:
    """An input of a waiting job that no job has promised, if there is one."""
    waiting = [(file.scope, file.lfn) for file in files.read_files(connection, job.PandaID) if file.status == "waiting"]
    made = files.find_entries(connection, waiting)
    return next((name for name in waiting if name not in made), None)


def _deadline(context: Context, job: LiveJob) -> float | None:
    """Until when the job may stay as it is; None for as long as it likes."""
    settings = context.settings
    if job.jobStatus == Status.ASSIGNED:
        return job.stateChangeTime + settings.assigned_timeout
    if job.jobStatus == Status.SENT:
        lost = job.lostHeartbeat or settings.lost_heartbeat
        return job.stateChangeTime + min(settings.sent_timeout, lost)
    if job.jobStatus in CLAIMED:
        return job.modificationTime + (job.lostHeartbeat or settings.lost_heartbeat)
    if job.jobStatus == Status.HOLDING and job.reportedStatus is None:
        return job.stateChangeTime + holding_patience(context, job)
    return None


def _without_maker(job: LiveJob, name: Name) -> Ending:
    """The end of a job that waits for a file nobody is going to make."""
    text = (
        f"input {name[0]}:{name[1]} does not exist: no job has it as an output, and the job has waited for it since "
        f"{_shown_time(job.stateChangeTime)} UTC"
    )
    columns: dict[str, Value] = {"taskBufferErrorCode": INPUT_UNKNOWN, "taskBufferErrorDiag": text[:500]}
    return Ending(Status.FAILED, _ACTOR, text, columns)


def _shown_time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _given_up(job: LiveJob) -> Ending:
    """The end of a job nobody hears of any more."""
    silent_since = _shown_time(job.modificationTime)
    if job.jobStatus == Status.SENT:
        code, text = SENT_TIMEOUT, f"sent at {silent_since} UTC and never heard of again"
    elif job.jobStatus == Status.HOLDING and (job.pilotErrorCode or job.exeErrorCode):
        code, text = RECOVERY_FAILED, f"holding since {silent_since} UTC, and nobody recovered the outputs"
    elif job.jobStatus == Status.HOLDING:
        code, text = HOLDING_TIMEOUT, f"holding since {silent_since} UTC without a final report"
    else:
        code, text = LOST_HEARTBEAT, f"lost heartbeat : {silent_since}"
    return Ending(Status.FAILED, _ACTOR, text, {"jobDispatcherErrorCode": code, "jobDispatcherErrorDiag": text})
