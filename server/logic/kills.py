"""Killing jobs: one nobody has is cancelled at once; a pilot that has one is told at every update until it is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.db import jobs, records
from server.db.database import Connection
from server.db.files import Name
from server.db.jobs import LiveJob, Value
from server.logic import activation
from server.logic.context import Context, Identity
from server.logic.endings import Ending, end_attempt
from server.logic.explain import KILLED
from server.logic.states import CLAIMED, KILL, NOT_STARTED, Status


@dataclass(frozen=True)
class KillResult:
    """What became of one kill: whether the job ends because of it, and that in words."""

    killed: bool
    text: str


def kill_jobs(context: Context, job_ids: Sequence[int], identity: Identity) -> list[KillResult]:
    """Kill jobs; an answer for each, in the order asked."""
    lost: list[Name] = []
    results: list[KillResult] = []
    for job_id in job_ids:
        with context.database.durable() as connection:
            result, names = _kill(context, connection, job_id, identity)
        results.append(result)
        lost += names
    activation.settle(context, lost)
    return results


def _kill(context: Context, connection: Connection, job_id: int, identity: Identity) -> tuple[KillResult, list[Name]]:
    job = records.look_up(connection, job_id)
    if job is None:
        return KillResult(False, f"job {job_id}: there is no such job"), []
    if not identity.may_act_for(job.prodUserName):
        return KillResult(False, f"job {job_id}: it belongs to {job.prodUserName}, not to you"), []
    actor = identity.name or "operator"
    if job.jobStatus in NOT_STARTED:
        names = _cancel(context, connection, job, actor, f"cancelled by {actor} before it started")
        return KillResult(True, f"job {job_id}: cancelled, it had not started"), names
    if job.jobStatus == Status.HOLDING and job.reportedStatus is None:
        text = f"cancelled by {actor} while it waited for its final report"
        names = _cancel(context, connection, job, actor, text)
        return KillResult(True, f"job {job_id}: cancelled, its pilot had left it without a final report"), names
    if job.jobStatus in CLAIMED:
        return _order(connection, job, actor), []
    if job.jobStatus == Status.HOLDING:
        return KillResult(False, f"job {job_id}: its payload has already ended, its result is being recorded"), []
    return KillResult(False, f"job {job_id}: already {job.jobStatus}"), []


def _cancel(context: Context, connection: Connection, job: LiveJob, actor: str, text: str) -> list[Name]:
    """Cancel a job no pilot works on; returns the names it will not deliver."""
    columns: dict[str, Value] = {"taskBufferErrorCode": KILLED, "taskBufferErrorDiag": text, "killedBy": actor}
    return end_attempt(context, connection, job, Ending(Status.CANCELLED, actor, text, columns)) or []


def _order(connection: Connection, job: LiveJob, actor: str) -> KillResult:
    if job.killedBy is None:
        jobs.change_job(connection, job, {"commandToPilot": KILL, "killedBy": actor})
    return KillResult(True, f"job {job.PandaID}: its pilot is told to end it at its next update")
