"""v1 methods of the live log: pilots write, users read. They are ours; servers of others have none."""

from __future__ import annotations

from server.logic import livelog
from server.logic.fields import JobReport
from server.routes.panda import NULL, SUCCESS
from server.routes.registry import PILOTS, USERS, Call, Kind, Registry, optional, required

registry = Registry()


@registry.method(
    "pilot/append_log",
    "POST",
    PILOTS,
    required("job_id", Kind.INTEGER),
    required("attempt_nr", Kind.INTEGER),
    required("position", Kind.INTEGER, "bytes that the log has, as the last answer said"),
    required("records", Kind.ITEMS, "objects {name, offset, text, dropped}"),
    optional("claim_id"),
)
def append_log(call: Call) -> object:
    """Add to the live log of a job."""
    report = JobReport(call.integer("job_id"), "", call.integer("attempt_nr"), call.claim)
    done = livelog.append(call.context, report, call.integer("position"), call.items("records"), call.identity)
    command = str(done.word) if done.word is livelog.Word.STRANGE else NULL
    return {
        "StatusCode": SUCCESS,
        "command": command,
        "result": str(done.word),
        "position": done.position,
        "interval": livelog.INTERVAL,
    }


@registry.method(
    "job/get_log",
    "GET",
    USERS,
    required("job_id", Kind.INTEGER),
    optional("attempt_nr", Kind.INTEGER, "the present one unless given"),
    optional("position", Kind.INTEGER, "where the last answer ended"),
)
def get_log(call: Call) -> object:
    """The live log of a job from a position on."""
    attempt = call.integer_or_none("attempt_nr")
    return livelog.read(call.context, call.integer("job_id"), attempt, call.integer("position"), call.identity)
