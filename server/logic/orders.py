"""Orders that look into a running job: debug mode, and a command to its pilot (wire.md, section 8).

In debug mode a pilot reports every few minutes, with the end of the payload's output. A command (tail, ls, ps, du, gdb)
is obeyed inside the job's directory, and what it shows comes with the next reports in the place of the output. Both go
with every answer until they are changed, so that a lost one costs nothing.
"""

from __future__ import annotations

from server.db import jobs, records
from server.db.database import Connection
from server.db.jobs import LiveJob, Value
from server.logic.context import Context, Identity
from server.logic.errors import BadField, Conflict, NotAllowed, NotFound
from server.logic.states import CLAIMED, KILL, OVER, SOFT_KILL

#: Characters; so long is the column of every server of the field.
COMMAND_LENGTH = 250
#: What is an order to end a job is given by kill_jobs alone, which notes who gave it.
_ENDING = frozenset({KILL, SOFT_KILL, "debug", "debugoff"})


def set_debug_mode(context: Context, job_id: int, mode: bool, identity: Identity) -> str:
    """Switch debug mode on or off; a command goes either way. Returns what happens now, in words.

    Raises:
        NotFound, NotAllowed: there is no such job, or it belongs to somebody else.
        Conflict: it is over.
    """
    with context.database.durable() as connection:
        job = _look_up(connection, job_id, identity)
        values: dict[str, Value] = {"debug": mode}
        if job.killedBy is None and job.commandToPilot != SOFT_KILL:
            # Pilots stay in debug mode until they are told to leave it.
            values["commandToPilot"] = None if mode else "debugoff"
        _change(connection, job, values)
    when = "its pilot is told at its next update" if job.jobStatus in CLAIMED else "from its start"
    return f"job {job_id}: debug mode {'on' if mode else 'off'}, {when}"


def set_command(context: Context, job_id: int, command: str, identity: Identity) -> str:
    """Give the pilot of a job a command, in debug mode. Returns what happens now, in words.

    Raises:
        BadField: it is no command.
        NotFound, NotAllowed: there is no such job, or it belongs to somebody else.
        Conflict: no pilot has the job, or it has been told to end it.
    """
    words = command.strip()
    if not words or len(words) > COMMAND_LENGTH or not words.isprintable() or "," in words:
        raise BadField("command", f"must be 1 to {COMMAND_LENGTH} printable characters without a comma")
    if words in _ENDING:
        raise BadField("command", f"'{words}' has a call of its own: job/kill, job/softkill, job/set_debug_mode")
    with context.database.durable() as connection:
        job = _look_up(connection, job_id, identity)
        if job.jobStatus not in CLAIMED or job.reportedStatus is not None:
            raise Conflict(f"job {job_id}: no pilot has it, it is {job.jobStatus}")
        if job.killedBy is not None:
            raise Conflict(f"job {job_id}: its pilot has been told to end it, by {job.killedBy}")
        if job.commandToPilot == SOFT_KILL:
            raise Conflict(f"job {job_id}: it has been told to end when its present event ranges are done")
        _change(connection, job, {"debug": True, "commandToPilot": words})
    return f"job {job_id}: its pilot is told at its next update"


def soft_kill(context: Context, job_id: int, identity: Identity) -> str:
    """Have a job of the event service end when its present ranges are done. Returns what happens now, in words.

    Raises:
        NotFound, NotAllowed: there is no such job, or it belongs to somebody else.
        Conflict: it is no such job, no pilot has it, or it has been told to end at once.
    """
    with context.database.durable() as connection:
        job = _look_up(connection, job_id, identity)
        if "eventService" not in jobs.read_definition(connection, job_id):
            raise Conflict(f"job {job_id}: it is no job of the event service; `pilotkit kill {job_id}` ends it")
        if job.jobStatus not in CLAIMED:
            raise Conflict(f"job {job_id}: no pilot has it, it is {job.jobStatus}; `pilotkit kill {job_id}` ends it")
        if job.killedBy is not None:
            raise Conflict(f"job {job_id}: its pilot has been told to end it, by {job.killedBy}")
        _change(connection, job, {"commandToPilot": SOFT_KILL})
    return f"job {job_id}: it gets no more event ranges, and ends when it has done those it has"


def _look_up(connection: Connection, job_id: int, identity: Identity) -> LiveJob:
    job = records.lock(connection, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    if not identity.may_act_for(job.prodUserName):
        raise NotAllowed(f"Job {job_id} belongs to {job.prodUserName}.")
    if job.jobStatus in OVER:
        raise Conflict(f"job {job_id}: it is over, it is {job.jobStatus}")
    return job


def _change(connection: Connection, job: LiveJob, values: dict[str, Value]) -> None:
    if not jobs.change_job(connection, job, values):
        raise Conflict(f"job {job.PandaID}: its state has changed just now; ask again")
