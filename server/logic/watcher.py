"""The watcher: jobs whose pilot fell silent, and jobs that have been in a state for too long (chapter 12.1.3)."""

from __future__ import annotations

import datetime
import functools
import logging

from server.db import dispatch, files, information, jobs
from server.db.database import Connection, Taken, Unstorable
from server.db.files import Name
from server.db.information import Description
from server.db.jobs import LiveJob, Value, Watched
from server.logic import activation, rebrokerage
from server.logic.context import Context
from server.logic.endings import Ending, end_attempt
from server.logic.explain import (
    EXPIRED,
    HOLDING_TIMEOUT,
    INPUT_UNKNOWN,
    LOST_HEARTBEAT,
    RECOVERY_FAILED,
    SENT_TIMEOUT,
    STATE_TIMEOUT,
    TRANSFERRING_TIMEOUT,
)
from server.logic.states import Status
from server.logic.timeouts import Limits, deadline, has_time_outs, is_early, is_silent, read_limits

logger = logging.getLogger(__name__)

_ACTOR = "watcher"
_BATCH = 200
#: When to look again at a job whose queue has its time-outs switched off, or that nobody takes elsewhere, in s.
_LATER = 600
#: States of jobs that have been handed out, and of those whose payloads have begun.
_BEGUN = (Status.RUNNING, Status.TRANSFERRING, Status.HOLDING)
_WITH_PILOTS = (Status.SENT, Status.STARTING, *_BEGUN)


def watch_jobs(context: Context) -> int:
    """Look at the jobs whose time has come; returns how many there were.

    Most are well, and are put off together: a pilot's heartbeats do not touch the time of the next look.
    """
    limits_of = functools.cache(lambda vo: read_limits(context, vo))
    now = context.clock()
    with context.database.reading() as connection:
        due = jobs.find_jobs_to_watch(connection, now, _BATCH)
        if not due:
            return 0
        descriptions = {queue.name: queue.description for queue in information.read_queues(connection)}
    later: list[tuple[Watched, float | None]] = []
    overdue: list[Watched] = []
    for watched in due:
        job = watched.job
        queue = descriptions.get(job.computingSite, {})
        until = deadline(limits_of(job.VO), job, queue, context.settings.lost_heartbeat)
        if until is not None and not has_time_outs(queue):
            later.append((watched, max(until, now + _LATER)))
        elif until is None or until > now:
            later.append((watched, until))
        else:
            overdue.append(watched)
    with context.database.relaxed() as connection:
        jobs.put_off(connection, later)
    lost: list[Name] = []
    for watched in overdue:
        queue = descriptions.get(watched.job.computingSite, {})
        try:
            lost += _look_at(context, watched, limits_of(watched.job.VO), queue)
        except (Taken, Unstorable):  # the next look may find it otherwise; those behind it must not wait
            logger.exception("job %s could not be dealt with", watched.job.PandaID)
            with context.database.relaxed() as connection:
                jobs.put_off(connection, [(watched, now + _LATER)])
    activation.settle(context, lost)
    return len(due)


def _look_at(context: Context, watched: Watched, limits: Limits, queue: Description) -> list[Name]:
    """Deal with a job that was overdue when it was seen; returns the names it will not deliver."""
    seen = watched.job
    if _may_wait_like_others(context, seen, limits):
        _wait_on(context, watched, limits)
        return []
    ending: Ending | None = None
    if seen.jobStatus == Status.ASSIGNED:
        with context.database.reading() as connection:
            unmade = _unmade_input(connection, seen)
        ending = None if unmade is None else _without_maker(seen, unmade)
    elif seen.jobStatus != Status.ACTIVATED or seen.stateChangeTime + limits.of("queued") <= context.clock():
        ending = _given_up(context, seen, limits)
    if ending is None:
        reason = f"{seen.jobStatus} since {_shown_time(seen.stateChangeTime)} UTC"
        if not rebrokerage.send_elsewhere(context, seen, reason):
            _wait_on(context, watched, limits)
        return []
    with context.database.durable() as connection:
        job = jobs.lock_live(connection, seen.PandaID)
        until = None if job is None else deadline(limits, job, queue, context.settings.lost_heartbeat)
        if job is None or until is None or until > context.clock():
            return []
        return end_attempt(context, connection, job, ending) or []


def _may_wait_like_others(context: Context, job: LiveJob, limits: Limits) -> bool:
    """Whether a job is overdue only for being urgent, in a queue in which jobs do start."""
    now = context.clock()
    if not is_early(limits, job, now) or is_silent(job, context.settings.lost_heartbeat, now):
        return False
    # A job that is starting has been handed out: for those only payloads that have started are a good sign.
    held = _WITH_PILOTS if job.jobStatus == Status.ACTIVATED else _BEGUN
    with context.database.reading() as connection:
        return dispatch.has_started(connection, job.computingSite, held, now - limits.of("laststart"))


def _wait_on(context: Context, watched: Watched, limits: Limits) -> None:
    """The job stays where it is, for now."""
    job, now = watched.job, context.clock()
    if job.jobStatus == Status.ASSIGNED:
        later = now + limits.of("assigned")
    else:
        over = limits.of("queued" if job.jobStatus == Status.ACTIVATED else job.jobStatus)
        later = min(now + _LATER, job.stateChangeTime + over)
    with context.database.relaxed() as connection:
        jobs.put_off(connection, [(watched, later)])


def _unmade_input(connection: Connection, job: LiveJob) -> Name | None:
    """An input of a waiting job that no job has promised, if there is one."""
    waiting = [(file.scope, file.lfn) for file in files.read_files(connection, job.PandaID) if file.status == "waiting"]
    made = files.find_entries(connection, waiting)
    return next((name for name in waiting if name not in made), None)


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


#: Why a job that never was in a pilot's hands is closed, by its state.
_NEVER_STARTED = {
    Status.PENDING: "nobody has prepared it",
    Status.DEFINED: "its preparation has not ended",
    Status.THROTTLED: "nobody has released it",
    Status.ACTIVATED: "no pilot has taken it",
}


def _given_up(context: Context, job: LiveJob, limits: Limits) -> Ending:
    """The end of a job nobody hears of any more, or that has been in its state for too long."""
    status, now = Status(job.jobStatus), context.clock()
    since, silent_since = _shown_time(job.stateChangeTime), _shown_time(job.modificationTime)
    if status in _NEVER_STARTED:
        text = f"{status} since {since} UTC, and {_NEVER_STARTED[status]}"
        return Ending(Status.CLOSED, _ACTOR, text, {"taskBufferErrorCode": EXPIRED, "taskBufferErrorDiag": text})
    if status == Status.SENT:
        code, text = SENT_TIMEOUT, f"sent at {since} UTC and never heard of again"
    elif status == Status.HOLDING and (job.pilotErrorCode or job.exeErrorCode):
        code, text = RECOVERY_FAILED, f"holding since {silent_since} UTC, and nobody recovered the outputs"
    elif status == Status.HOLDING:
        code, text = HOLDING_TIMEOUT, f"holding since {silent_since} UTC without a final report"
    elif status == Status.TRANSFERRING and job.reportedStatus is not None:
        code, text = TRANSFERRING_TIMEOUT, f"transferring since {since} UTC, and not all outputs have arrived"
    elif status == Status.MERGING:
        code, text = STATE_TIMEOUT, f"merging since {since} UTC, and no merge job has ended"
    elif status in _LIMITED and not is_silent(job, context.settings.lost_heartbeat, now):
        early = is_early(limits, job, now)
        why = "in a queue where no payload starts" if early else "which is longer than a job may be"
        code, text = STATE_TIMEOUT, f"{status} since {since} UTC, {why}"
    else:
        code, text = LOST_HEARTBEAT, f"lost heartbeat : {silent_since}"
    return Ending(Status.FAILED, _ACTOR, text, {"jobDispatcherErrorCode": code, "jobDispatcherErrorDiag": text})


#: States that a pilot may not stay in for ever, however often it reports.
_LIMITED = frozenset({Status.STARTING, Status.RUNNING})
