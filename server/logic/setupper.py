"""The setupper: prepares pending jobs of VOs that want that, before their inputs are waited for (chapter 2.5).

A pending job becomes defined when it is taken up, and assigned when its preparation is through; then it waits for the
inputs that are on their way or are still to be made.
"""

from __future__ import annotations

import logging

from server.db import files, jobs
from server.db.jobs import Change, LiveJob, Value
from server.logic import activation
from server.logic.context import Context
from server.logic.endings import Ending, end_attempt
from server.logic.explain import PREPARATION_FAILED
from server.logic.plugins import Preparation, plugins_of
from server.logic.states import Status
from server.logic.timeouts import next_look

logger = logging.getLogger(__name__)

_ACTOR = "setupper"
#: Jobs looked at in one go.
_BATCH = 200


def prepare_jobs(context: Context) -> int:
    """Take up the pending jobs, and prepare all that are defined; returns how many are through."""
    _take_up(context)
    through, after = 0, 0
    while True:
        with context.database.reading() as connection:
            found = jobs.find_in_state(connection, Status.DEFINED, after, _BATCH)
        if not found:
            return through
        after = found[-1].PandaID
        through += sum(_prepare(context, job) for job in found)


def _take_up(context: Context) -> None:
    while True:
        with context.database.durable() as connection:
            found = jobs.find_in_state(connection, Status.PENDING, 0, _BATCH)
            now = context.clock()
            changes: list[Change] = []
            for job in found:
                if jobs.change_job(connection, job, _state(context, job, Status.DEFINED)):
                    changes.append(Change(job.PandaID, job.attemptNr, Status.DEFINED, now, _ACTOR, "is being prepared"))
            jobs.add_history(connection, changes)
        if len(found) < _BATCH:
            return


def _state(context: Context, job: LiveJob, status: Status) -> dict[str, Value]:
    """The columns of a new state."""
    now = context.clock()
    values: dict[str, Value] = {"jobStatus": status, "stateChangeTime": now, "modificationTime": now}
    values["watchTime"] = next_look(context, job._replace(jobStatus=status, stateChangeTime=now))
    return values


def _prepare(context: Context, job: LiveJob) -> bool:
    """Ask the setupper of a job's VO; whether it is through with the job."""
    with context.database.reading() as connection:
        row = jobs.read_job(connection, job.PandaID)
        inputs = [file for file in files.read_files(connection, job.PandaID) if file.type == "input"]
    if row is None:
        return False
    setupper = plugins_of(context.settings).setupper(str(row["VO"] or ""))
    try:
        said = setupper.prepare(row, inputs)
    except Exception:  # a VO's own module may raise anything, and must not keep other jobs from being prepared
        logger.exception("the setupper of VO %s failed on job %s", row["VO"], job.PandaID)
        return False
    if said.wait and not said.failure:
        return False
    if said.failure:
        _refuse(context, job, said.failure)
    else:
        _assign(context, job._replace(computingSite=str(row["computingSite"])), said)
    return True


def _refuse(context: Context, seen: LiveJob, failure: str) -> None:
    columns: dict[str, Value] = {"ddmErrorCode": PREPARATION_FAILED, "ddmErrorDiag": failure[:500]}
    with context.database.durable() as connection:
        lost = end_attempt(context, connection, seen, Ending(Status.FAILED, _ACTOR, failure, columns))
    activation.settle(context, lost or [])


def _assign(context: Context, seen: LiveJob, said: Preparation) -> None:
    with context.database.durable() as connection:
        job = jobs.lock_live(connection, seen.PandaID)
        if job is None or job.computingSite != seen.computingSite:
            return  # its preparation was for a queue that it has left
        if not jobs.change_job(connection, seen, _state(context, seen, Status.ASSIGNED)):
            return
        inputs = [file for file in files.read_files(connection, job.PandaID) if file.type == "input"]
        moving = [file.fileID for file in inputs if file.status == "ready" and file.lfn in said.moving]
        files.set_file_status(connection, moving, "moving")
        waiting = sum(file.status == "waiting" for file in inputs)
        text = f"prepared; {len(moving)} inputs are on their way, {waiting} are still to be made"
        change = Change(job.PandaID, job.attemptNr, Status.ASSIGNED, context.clock(), _ACTOR, text)
        jobs.add_history(connection, [change])
        activation.activate_complete(context, connection, [job.PandaID])
