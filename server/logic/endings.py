"""How an attempt ends: its last state, and either the next attempt or the end of the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.db import files, jobs
from server.db.database import Connection
from server.db.files import Name, Replica
from server.db.jobs import Change, LiveJob, Value
from server.logic.attempts import begin_next_attempt, pilot_code
from server.logic.context import Context
from server.logic.eventmerge import settle_merge
from server.logic.events import settle_ranges
from server.logic.states import Status
from server.logic.throttle import note_ending


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
        The names the job promised and will not deliver any more (empty when it is tried again or delivered all);
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
    settle_ranges(connection, job, pilot_code(job, ending.columns), now)
    settle_merge(connection, job, ending.status, now)
    if ending.status in (Status.FINISHED, Status.FAILED):
        note_ending(context, connection, job, ending.columns, good=ending.status == Status.FINISHED)
    moved = _take_back(connection, job) if ending.status != Status.FINISHED else []
    again = ending.status == Status.FAILED and begin_next_attempt(context, connection, job, ending.columns)
    if job.taskID or not again:
        files.set_file_status(connection, moved, "failed")
    if again:
        return []
    return files.break_promises(connection, job.PandaID, now)


def _take_back(connection: Connection, job: LiveJob) -> list[int]:
    """Outputs that were on their way are made again, for the same destinations; returns their rows' numbers."""
    if job.jobStatus != Status.TRANSFERRING or job.reportedStatus is None:
        return []
    outputs = [file for file in files.read_files(connection, job.PandaID) if file.type == "output"]
    moved = [file for file in outputs if file.status in ("moving", "ready")]
    for file in moved:
        destination = (file.wire or {}).get("destination") or file.endpoint
        files.set_file(connection, file.fileID, "defined", Replica(destination, None, None, None, None))
    return [file.fileID for file in moved]
