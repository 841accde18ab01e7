"""Worker synchronization: what this server knows of workers is brought into step with what is true.

Each worker has a time at which it is looked at. Harvester may say that a worker lives whose pilot has said its last
word: then it is told to look. It may have forgotten a worker: then that is missed. And a worker that is over may have
left a job behind: one without a sign of life since then is lost, sooner than its lease would say.
"""

from __future__ import annotations

from server.db import harvesters, jobs, workers
from server.db.files import Name
from server.db.jobs import Value
from server.db.workers import SilentJob, Worker
from server.logic import activation
from server.logic.configuration import number
from server.logic.context import Context
from server.logic.dispatch import iso_time
from server.logic.endings import Ending, end_attempt
from server.logic.explain import LOST_HEARTBEAT
from server.logic.harvesters import add_order, alive_instances
from server.logic.states import Status
from server.logic.workerform import OVER
from server.logic.workers import OUT_OF_STEP, SILENCE

_ACTOR = "worker_synchronization"
#: Workers looked at in one go, and old ones removed in one transaction.
_BATCH = 500
#: A pilot has these as long as it lives; whoever stages out for it may need longer.
_HELD = (Status.SENT, Status.STARTING, Status.RUNNING)


def synchronize(context: Context) -> int:
    """Look at the workers whose time has come; returns how many there were."""
    now = context.clock()
    with context.database.reading() as connection:
        due = workers.find_due(connection, now, _BATCH)
        alive = alive_instances(connection, now)
    out_of_step: dict[str, list[int]] = {}
    lost: list[Name] = []
    for worker in due:
        if worker.status in OVER:
            lost += _look_for_jobs(context, worker)
        elif _is_out_of_step(context, worker, alive=worker.harvesterID in alive):
            out_of_step.setdefault(worker.harvesterID, []).append(int(worker.workerID))
    for harvester_id, numbers in out_of_step.items():
        with context.database.durable() as connection:
            add_order(connection, harvester_id, "SYNC_WORKERS_KILL", "", numbers, _ACTOR, now)
    activation.settle(context, lost)
    return len(due)


def _is_out_of_step(context: Context, worker: Worker, *, alive: bool) -> bool:
    """Note when to look at an open worker again; whether its instance must be told that its pilot has gone."""
    now = context.clock()
    forgotten = worker.lastUpdate <= now - SILENCE
    gone = worker.pilotStatus == "finished" and worker.workerID.isdecimal()
    told = False
    if worker.status is None:
        values: dict[str, Value] = {"watchTime": None}  # Harvester has never spoken of it
    elif not alive:
        values = {"watchTime": now + OUT_OF_STEP}  # whoever says nothing at all has forgotten nothing
    elif forgotten:
        diag = f"{worker.harvesterID} has not spoken of it since {iso_time(worker.lastUpdate)}"
        values = {"status": "missed", "diagMessage": diag, "endTime": worker.lastUpdate, "watchTime": now}
    elif gone:
        told, values = True, {"watchTime": now + OUT_OF_STEP}
    else:
        values = {"watchTime": worker.lastUpdate + SILENCE}
    with context.database.durable() as connection:
        return workers.change_worker(connection, worker, values) and told


def _look_for_jobs(context: Context, worker: Worker) -> list[Name]:
    """Give up the jobs that an ended worker has left behind; returns the names they will not deliver."""
    with context.database.reading() as connection:
        instance = harvesters.find_instance(connection, worker.harvesterID)
        found = workers.find_jobs_of(connection, worker, instance.owner if instance else None, _HELD)
    end = min(worker.endTime or worker.lastUpdate, worker.lastUpdate)
    silent = [job for job in found if job.modificationTime <= end]  # the others have a lease of their own
    patience = (number(context, "watcher", "TIMEOUT_workerdone") or 0) * 3600
    if silent and context.clock() < end + patience:
        with context.database.durable() as connection:
            workers.change_worker(connection, worker, {"watchTime": end + patience})
        return []
    lost: list[Name] = []
    for job in silent:
        lost += _give_up(context, worker, job)
    with context.database.durable() as connection:
        workers.change_worker(connection, worker, {"watchTime": None})
    return lost


def _give_up(context: Context, worker: Worker, silent: SilentJob) -> list[Name]:
    with context.database.durable() as connection:
        job = jobs.lock_live(connection, silent.PandaID)
        if job is None or job.jobStatus not in _HELD or job.modificationTime != silent.modificationTime:
            return []
        batch = f" (batch job {worker.batchID})" if worker.batchID else ""
        said = f": {worker.diagMessage}" if worker.diagMessage else ""
        text = (
            f"lost heartbeat : {iso_time(job.modificationTime)}; its worker {worker.workerID} of {worker.harvesterID}"
            f"{batch} is {worker.status}{said}"
        )[:500]
        columns: dict[str, Value] = {"jobDispatcherErrorCode": LOST_HEARTBEAT, "jobDispatcherErrorDiag": text}
        return end_attempt(context, connection, job, Ending(Status.FAILED, _ACTOR, text, columns)) or []


def clean(context: Context) -> None:
    """Remove workers, commands, dialogs and metrics that nobody looks at any more."""
    before = context.clock() - (number(context, "harvester", "KEEP_DAYS") or 0) * 86400
    with context.database.durable() as connection:
        harvesters.remove_old(connection, before)
    while True:
        with context.database.durable() as connection:
            if workers.remove_old(connection, before, _BATCH) < _BATCH:
                return
