"""Throttled jobs: those of a task that shall not run for now (chapter 12.1.3 gives them seven days)."""

from __future__ import annotations

from server.db import jobs
from server.db.jobs import Change, LiveJob, Value
from server.logic import activation
from server.logic.context import Context, Identity
from server.logic.errors import BadField
from server.logic.states import Status
from server.logic.timeouts import next_look

#: Jobs changed in one transaction.
_BATCH = 200


def throttle_task(context: Context, task_id: int, reason: str, identity: Identity) -> int:
    """Take a task's jobs that wait for inputs or pilots out of the queue; returns how many.

    Raises:
        BadField: jobs without a task cannot be throttled.
    """
    actor = identity.name or "operator"
    states = (Status.ASSIGNED, Status.ACTIVATED)
    return sum(_move(context, task_id, status, Status.THROTTLED, actor, f"throttled: {reason}") for status in states)


def release_task(context: Context, task_id: int, identity: Identity) -> int:
    """Put a task's throttled jobs back; returns how many.

    Raises:
        BadField: jobs without a task cannot be throttled.
    """
    return _move(context, task_id, Status.THROTTLED, Status.ASSIGNED, identity.name or "operator", "released")


def _move(context: Context, task_id: int, status: Status, to: Status, actor: str, reason: str) -> int:
    if task_id <= 0:
        raise BadField("task_id", f"must be the number of a task, not {task_id}")
    number, after = 0, 0
    while True:
        with context.database.durable() as connection:
            found = jobs.find_of_task(connection, task_id, status, after, _BATCH)
            moved = [job for job in found if jobs.change_job(connection, job, _values(context, job, to))]
            now = context.clock()
            changes = [Change(job.PandaID, job.attemptNr, to, now, actor, reason) for job in moved]
            jobs.add_history(connection, changes)
            if to == Status.ASSIGNED:
                activation.activate_complete(context, connection, [job.PandaID for job in moved])
        number += len(moved)
        if len(found) < _BATCH:
            return number
        after = found[-1].PandaID


def _values(context: Context, job: LiveJob, status: Status) -> dict[str, Value]:
    now = context.clock()
    values: dict[str, Value] = {"jobStatus": status, "classID": None, "stateChangeTime": now, "modificationTime": now}
    values["watchTime"] = next_look(context, job._replace(jobStatus=status, stateChangeTime=now))
    return values
