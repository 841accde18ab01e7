"""For how long a job may be in a state: the time-outs of chapter 12.1.3, from the configuration table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from server.db.information import Description
from server.db.jobs import LiveJob
from server.logic import configuration
from server.logic.context import Context
from server.logic.matching import ANY_LABEL
from server.logic.parameters import TIMEOUTS
from server.logic.states import CLAIMED, NOT_STARTED, Status

#: Jobs of this priority and more do not wait as long as others (chapter 12.1.3).
URGENT_PRIORITY = 800
#: Labels of users' jobs: they are urgent while they are holding (wire.md section 7).
_USERS_LABELS = frozenset({"user", "panda", ANY_LABEL})
_DAY = 86400


@dataclass(frozen=True)
class Limits:
    """The time-outs in s, by the name of their parameter without its prefix."""

    seconds: Mapping[str, float]

    def of(self, name: str, *, urgent: bool = False) -> float:
        """A time-out; the one for urgent jobs if the job is urgent and there is one."""
        return self.seconds.get(f"{name}_urgent", self.seconds[name]) if urgent else self.seconds[name]


def read_limits(context: Context, vo: str | None) -> Limits:
    """The time-outs of a VO's jobs as they are now; see `configuration.number` for where this may be called."""
    hours = {one.key: configuration.number(context, one.component, one.key, vo or "") or 0.0 for one in TIMEOUTS}
    return Limits({key.removeprefix("TIMEOUT_"): value * 3600 for key, value in hours.items()})


def has_time_outs(queue: Description) -> bool:
    """Whether jobs may be taken out of a queue for waiting too long there (chapter 12.1.3)."""
    return queue.get("status") != "paused" and "disableReassign" not in str(queue.get("catchall", ""))


def deadline(limits: Limits, job: LiveJob, queue: Description, lost_heartbeat: int) -> float | None:
    """Until when a job may stay as it is, in s since 1970; None for as long as it likes.

    Args:
        queue: the description of the job's queue.
        lost_heartbeat: s; for jobs that were claimed without one of their own.
    """
    since = job.stateChangeTime
    urgent = job.currentPriority >= URGENT_PRIORITY
    if job.jobStatus in CLAIMED and job.reportedStatus is None:
        return min(_silent_from(job, lost_heartbeat), _end_of_state(limits, job, urgent=urgent))
    if job.jobStatus == Status.HOLDING:
        impatient = urgent or job.prodSourceLabel in _USERS_LABELS
        return since + limits.of("holding", urgent=impatient) if job.reportedStatus is None else None
    if job.jobStatus == Status.TRANSFERRING:
        return since + _transfer_time(limits, queue, urgent=urgent)
    if job.jobStatus == Status.MERGING or job.jobStatus in NOT_STARTED:
        return since + patience(limits, Status(job.jobStatus), job.currentPriority)
    return None


def patience(limits: Limits, status: Status, priority: int) -> float:
    """For how long a job may be in a state that is nobody's turn but this server's, in s."""
    if status == Status.ACTIVATED:
        return min(limits.of("activated", urgent=priority >= URGENT_PRIORITY), limits.of("queued"))
    return limits.of(status)


def next_look(context: Context, job: LiveJob) -> float | None:
    """When the watcher must look at a job that has just come into a state; for the column watchTime.

    May be called inside of a durable transaction, and of no other.
    """
    return deadline(read_limits(context, job.VO), job, {}, context.settings.lost_heartbeat)


def is_silent(job: LiveJob, lost_heartbeat: int, now: float) -> bool:
    """Whether a pilot has the job and should have reported by now."""
    return job.jobStatus in CLAIMED and _silent_from(job, lost_heartbeat) <= now


def _silent_from(job: LiveJob, lost_heartbeat: int) -> float:
    return job.modificationTime + (job.lostHeartbeat or lost_heartbeat)


def _end_of_state(limits: Limits, job: LiveJob, *, urgent: bool) -> float:
    """Until when a pilot must be through with the state, however often it reports."""
    if job.jobStatus in (Status.SENT, Status.STARTING, Status.RUNNING):
        return job.stateChangeTime + min(limits.of(job.jobStatus, urgent=urgent), limits.of(job.jobStatus))
    return math.inf


def is_early(limits: Limits, job: LiveJob, now: float) -> bool:
    """Whether a job that waits for a pilot or for its payload has waited long enough only because it is urgent.

    Urgent jobs do not wait as long as others where nothing starts; where jobs do start they wait like others.
    """
    return job.jobStatus in (Status.ACTIVATED, Status.STARTING) and now < job.stateChangeTime + limits.of(job.jobStatus)


def _transfer_time(limits: Limits, queue: Description, *, urgent: bool) -> float:
    """s for outputs to arrive: the queue's transtimehi or transtimelo (days), else the time-out."""
    days = queue.get("transtimehi" if urgent else "transtimelo")
    if isinstance(days, int | float) and not isinstance(days, bool) and days > 0:
        return days * _DAY
    return limits.of("transferring", urgent=urgent)
