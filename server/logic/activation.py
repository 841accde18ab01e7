"""The activator: a job waits in `assigned` until its inputs exist, and fails when one of them never will."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from server.db import dispatch, files, jobs
from server.db.database import Connection
from server.db.files import Entry, JobFile, Name, Replica
from server.db.jobs import Change, LiveJob, Value
from server.logic.context import Context
from server.logic.endings import Ending, end_attempt
from server.logic.explain import INPUT_LOST
from server.logic.states import NOT_STARTED, Status
from server.logic.timeouts import next_look

#: Jobs changed in one transaction: others may write in between.
_BATCH = 200

_ACTOR = "activator"


def settle(context: Context, names: Iterable[Name]) -> int:
    """Tell the jobs that wait for these names what became of them; returns how many jobs changed their state.

    What fails here promised names of its own, so this goes on until nobody is concerned any more.
    """
    changed = 0
    undecided = list(dict.fromkeys(names))
    while undecided:
        with context.database.reading() as connection:
            waiting = files.find_waiting(connection, undecided)
        undecided = []
        for some in _pieces(waiting):
            number, lost = _settle(context, some)
            changed += number
            undecided += lost
    return changed


def settle_overdue(context: Context, limit: int = 5000) -> int:
    """The same for everything that was missed, by a crash for instance; returns how many jobs changed their state."""
    with context.database.reading() as connection:
        waiting = files.find_overdue(connection, limit)
        stuck = files.find_ready_but_assigned(connection, limit)
    changed = 0
    lost: list[Name] = []
    for some in _pieces(waiting):
        number, names = _settle(context, some)
        changed += number
        lost += names
    for start in range(0, len(stuck), _BATCH):
        with context.database.durable() as connection:
            changed += activate_complete(context, connection, stuck[start : start + _BATCH])
    return changed + settle(context, lost)


def _pieces(waiting: Sequence[JobFile]) -> Iterable[Sequence[JobFile]]:
    return (waiting[start : start + _BATCH] for start in range(0, len(waiting), _BATCH))


def _settle(context: Context, waiting: Sequence[JobFile]) -> tuple[int, list[Name]]:
    """One transaction: fill in what is there, activate who is complete, fail who will never be."""
    with context.database.durable() as connection:
        entries = files.find_entries(connection, {(file.scope, file.lfn) for file in waiting})
        ready: list[int] = []
        hopeless: dict[int, Entry] = {}
        for file in waiting:
            entry = entries.get((file.scope, file.lfn))
            if entry is None or entry.status == "promised":
                continue
            if entry.status == "lost":
                hopeless.setdefault(file.PandaID, entry)
                continue
            replica = Replica(entry.endpoint, entry.guid, entry.fsize, entry.checksum, entry.surl)
            files.set_file(connection, file.fileID, "ready", replica)
            ready.append(file.PandaID)
        changed = activate_complete(
            context, connection, [job_id for job_id in dict.fromkeys(ready) if job_id not in hopeless]
        )
        lost: list[Name] = []
        for job in jobs.read_live_many(connection, hopeless).values():
            if job.jobStatus not in NOT_STARTED:
                continue
            lost += end_attempt(context, connection, job, _without_input(hopeless[job.PandaID])) or []
            changed += 1
    return changed, lost


def activate_complete(context: Context, connection: Connection, job_ids: Sequence[int]) -> int:
    """Activate those of these assigned jobs whose inputs are all there; returns how many."""
    waiting = files.jobs_still_waiting(connection, job_ids)
    complete = [job_id for job_id in job_ids if job_id not in waiting]
    activated = 0
    for job in jobs.read_live_many(connection, complete).values():
        if job.jobStatus == Status.ASSIGNED:
            activate(context, connection, job, "all inputs are there")
            activated += 1
    return activated


def activate(context: Context, connection: Connection, job: LiveJob, reason: str) -> None:
    """Put a job into the queue of its class, in the caller's transaction."""
    now = context.clock()
    class_id = dispatch.class_of(connection, dispatch.requirements_of(connection, job.PandaID), now)
    values: dict[str, Value] = {
        "jobStatus": Status.ACTIVATED,
        "classID": class_id,
        "stateChangeTime": now,
        "modificationTime": now,
        "watchTime": next_look(context, job._replace(jobStatus=Status.ACTIVATED, stateChangeTime=now)),
    }
    if jobs.change_job(connection, job, values):
        change = Change(job.PandaID, job.attemptNr, Status.ACTIVATED, now, _ACTOR, reason)
        jobs.add_history(connection, [change])


def _without_input(entry: Entry) -> Ending:
    text = (
        f"input {entry.scope}:{entry.lfn} will never exist: job {entry.PandaID}, which should have produced it, "
        "ended without it"
    )
    return Ending(Status.FAILED, _ACTOR, text, {"taskBufferErrorCode": INPUT_LOST, "taskBufferErrorDiag": text[:500]})
