"""Jobs that wait in one queue go to another, if the broker of their VO knows one (chapter 12.1.3)."""

from __future__ import annotations

import logging

from server.db import dispatch, information, jobs
from server.db.jobs import Change, LiveJob, Value
from server.logic.context import Context
from server.logic.plugins import plugins_of
from server.logic.states import Status
from server.logic.timeouts import next_look

logger = logging.getLogger(__name__)

_ACTOR = "broker"
_LEAVING = frozenset({Status.DEFINED, Status.ASSIGNED, Status.ACTIVATED})


def send_elsewhere(context: Context, seen: LiveJob, reason: str) -> bool:
    """Move a defined, assigned or activated job to the queue that the broker chooses.

    Args:
        reason: why it should leave, for the history.

    Returns:
        Whether it has left.
    """
    with context.database.reading() as connection:
        row = jobs.read_job(connection, seen.PandaID)
    if row is None:
        return False
    try:
        queue = plugins_of(context.settings).broker(str(row["VO"] or "")).other_queue(row, reason)
    except Exception:  # a VO's own module may raise anything; the job stays where it is
        logger.exception("the broker of VO %s failed on job %s", row["VO"], seen.PandaID)
        return False
    if queue is None or queue == seen.computingSite:
        return False
    with context.database.durable() as connection:
        job = jobs.lock_live(connection, seen.PandaID)
        if job is None or job.jobStatus not in _LEAVING or job.attemptNr != seen.attemptNr:
            return False
        if information.read_queue(connection, queue) is None:
            return False
        now = context.clock()
        values: dict[str, Value] = {
            "computingSite": queue,
            "stateChangeTime": now,
            "modificationTime": now,
            "watchTime": next_look(context, job._replace(stateChangeTime=now)),
        }
        if job.jobStatus == Status.ACTIVATED:
            needs = {**dispatch.requirements_of(connection, job.PandaID), "computingSite": queue}
            values["classID"] = dispatch.class_of(connection, needs, now)
        if not jobs.change_job(connection, job, values):
            return False
        text = f"sent from {job.computingSite} to {queue}: {reason}"
        jobs.add_history(connection, [Change(job.PandaID, job.attemptNr, job.jobStatus, now, _ACTOR, text)])
    return True
