"""Killing jobs: one nobody has is cancelled at once; a pilot that has one is told at every update until it is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.db import jobs, records
from server.db.database import Connection
from server.db.files import Name
from server.db.jobs import LiveJob, Value
from server.logic import activation
from server.logic.context import Context, Identity, Role
from server.logic.endings import Ending, end_attempt
from server.logic.errors import BadField
from server.logic.explain import KILLED
from server.logic.states import AFTERWARDS, CLAIMED, KILL, NOT_STARTED, Status


@dataclass(frozen=True)
class Code:
    """Why a job is killed, as the number that PanDA's clients give it.

    Attributes:
        why: that in words.
        last: the state of a job that had not started.
        force: a job that a pilot has ends at once, too, and its pilot is told afterwards.
        operators: nobody else may give this code.
    """

    why: str = ""
    last: Status = Status.CANCELLED
    force: bool = False
    operators: bool = True


#: The codes of killJobs. Those of JEDI and of PanDA's own daemons are for operators, whose programs stand for them.
CODES: Mapping[int, Code] = {
    0: Code(operators=False),
    2: Code("it has expired", Status.CLOSED),
    3: Code("it was aborted", operators=False),
    4: Code("it has waited for too long", Status.CLOSED),
    7: Code("the server tries it again", Status.CLOSED),
    8: Code("it goes to another queue", Status.CLOSED),
    9: Code("by force", force=True, operators=False),
    10: Code("its queue is overloaded, it goes to another one", Status.CLOSED),
    50: Code("by JEDI"),
    51: Code("JEDI gives its work to another job", Status.CLOSED),
    52: Code("by JEDI, by force", force=True),
    55: Code("its task is done, or almost", Status.CLOSED),
    60: Code("its pilot ended it before it did any work", Status.CLOSED),
    91: Code("by an operator, for its user"),
    99: Code("by an operator, for its user, by force", force=True),
}


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        sub_status: what to note in jobSubStatus; empty for nothing.
    """

    code: Code = CODES[0]
    sub_status: str = ""


#: The column's own length.
SUB_STATUS_LENGTH = 80
#: The code of a kill that waits for no pilot, for its user or an operator.
FORCE = 9


@dataclass(frozen=True)
class KillResult:
    """What became of one kill: whether the job ends because of it, and that in words."""

    killed: bool
    text: str


def kill_jobs(
    context: Context, job_ids: Sequence[int], identity: Identity, code: int = 0, sub_status: str = ""
) -> list[KillResult]:
    """Kill jobs; an answer for each, in the order asked.

    Args:
        code: why, one of CODES.
        sub_status: what to note in jobSubStatus; empty for nothing.

    Raises:
        BadField: there is no such code.
    """
    known = CODES.get(code)
    if known is None:
        raise BadField("code", f"must be one of {', '.join(map(str, CODES))}, not {code}")
    wish = Wish(known, sub_status[:SUB_STATUS_LENGTH])
    lost: list[Name] = []
    results: list[KillResult] = []
    for job_id in job_ids:
        with context.database.durable() as connection:
            result, names = _kill(context, connection, job_id, identity, wish)
        results.append(result)
        lost += names
    activation.settle(context, lost)
    return results


def _kill(
    context: Context, connection: Connection, job_id: int, identity: Identity, wish: Wish
) -> tuple[KillResult, list[Name]]:
    job = records.lock(connection, job_id)
    if job is None:
        return KillResult(False, f"job {job_id}: there is no such job"), []
    if not identity.may_act_for(job.prodUserName):
        return KillResult(False, f"job {job_id}: it belongs to {job.prodUserName}, not to you"), []
    if wish.code.operators and identity.name and Role.OPERATOR not in identity.roles:
        return KillResult(False, f"job {job_id}: only operators may give that reason ({wish.code.why})"), []
    actor = identity.name or "operator"
    if job.jobStatus in NOT_STARTED:
        names = _end(context, connection, job, actor, wish, "before it started")
        return KillResult(True, f"job {job_id}: {wish.code.last}, it had not started"), names
    if job.jobStatus == Status.HOLDING and job.reportedStatus is None:
        names = _end(context, connection, job, actor, wish, "while it waited for its final report")
        return KillResult(True, f"job {job_id}: {wish.code.last}, its pilot had left it without a final report"), names
    if job.jobStatus in AFTERWARDS and job.reportedStatus is not None:
        names = _end(context, connection, job, actor, wish, f"while it was {job.jobStatus}")
        return KillResult(True, f"job {job_id}: {wish.code.last}, its outputs are given up"), names
    if job.jobStatus in CLAIMED and wish.code.force:
        names = _end(context, connection, job, actor, wish, f"while it was {job.jobStatus}")
        return KillResult(True, f"job {job_id}: {wish.code.last}, its pilot is told at its next update"), names
    if job.jobStatus in CLAIMED:
        return _order(connection, job, actor, wish), []
    if job.jobStatus == Status.HOLDING:
        return KillResult(False, f"job {job_id}: its payload has already ended, its result is being recorded"), []
    return KillResult(False, f"job {job_id}: already {job.jobStatus}"), []


def _end(context: Context, connection: Connection, job: LiveJob, actor: str, wish: Wish, when: str) -> list[Name]:
    """End a job whose pilot need not, or cannot, be waited for; returns the names it will not deliver."""
    why = f" ({wish.code.why})" if wish.code.why else ""
    text = f"{wish.code.last} by {actor} {when}{why}"
    columns: dict[str, Value] = {"taskBufferErrorCode": KILLED, "taskBufferErrorDiag": text, "killedBy": actor}
    if wish.sub_status:
        columns["jobSubStatus"] = wish.sub_status
    killed = job._replace(killedBy=actor)
    return end_attempt(context, connection, killed, Ending(wish.code.last, actor, text, columns)) or []


def _order(connection: Connection, job: LiveJob, actor: str, wish: Wish) -> KillResult:
    if job.killedBy is None:
        values: dict[str, Value] = {"commandToPilot": KILL, "killedBy": actor}
        if wish.sub_status:
            values["jobSubStatus"] = wish.sub_status
        jobs.change_job(connection, job, values)
    return KillResult(True, f"job {job.PandaID}: its pilot is told to end it at its next update")
