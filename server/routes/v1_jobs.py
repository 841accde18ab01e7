"""v1 methods about jobs, for users and operators."""

from __future__ import annotations

from server.logic import details, kills, orders, submission, throttling
from server.routes.decoding import BadArgument
from server.routes.envelope import Reply
from server.routes.registry import ANY_ROLE, OPERATORS, USERS, Call, Kind, Registry, optional, required

registry = Registry()

#: More jobs than this in one question is a mistake.
_MOST_IDS = 10_000


@registry.method("job/submit_jobs", "POST", USERS, required("jobs", Kind.ITEMS))
def submit_jobs(call: Call) -> object:
    """Submit jobs, all or none."""
    return submission.submit_jobs(call.context, call.items("jobs"), call.identity)


@registry.method(
    "job/list",
    "GET",
    USERS,
    optional("status", Kind.TEXTS, "a state, or several"),
    optional("queue"),
    optional("job_ids", Kind.INTEGERS),
    optional("user", Kind.TEXT, "whose jobs: prodUserName"),
    optional("task_id", Kind.INTEGER, "of a task alone"),
    optional("limit", Kind.INTEGER),
)
def list_jobs(call: Call) -> object:
    """The newest jobs that fulfil all conditions given."""
    statuses = [word for text in call.texts("status") for word in text.split(",") if word]
    return details.list_jobs(
        call.context,
        call.identity,
        statuses=statuses[:_MOST_IDS],
        queue=call.text("queue") or None,
        job_ids=_ids(call),
        user=call.text("user"),
        task_id=call.integer("task_id"),
        limit=call.integer("limit", 1000),
    )


@registry.method("job/get_details", "GET", USERS, required("job_id", Kind.INTEGER))
def get_details(call: Call) -> object:
    """Everything about a job."""
    return details.job_details(call.context, call.integer("job_id"), call.identity)


@registry.method(
    "job/kill",
    "POST",
    USERS,
    required("job_ids", Kind.INTEGERS),
    optional("code", Kind.INTEGER, "why: PanDA's number, docs/compatibility.md has them"),
    optional("use_email_as_id", Kind.ANY),
    optional("kill_options", Kind.TEXTS, "jobSubStatus=WORD; others are for JEDI"),
)
def kill(call: Call) -> object:
    """Kill jobs; the message says what happened to each."""
    prefix = "jobSubStatus="
    words = [word.removeprefix(prefix) for word in call.texts("kill_options") if word.startswith(prefix)]
    sub_status = words[-1] if words else ""
    results = kills.kill_jobs(call.context, _ids(call), call.identity, call.integer("code"), sub_status)
    return Reply([result.killed for result in results], message="; ".join(result.text for result in results))


@registry.method("job/softkill", "POST", USERS, required("job_id", Kind.INTEGER))
def softkill(call: Call) -> object:
    """Have a job of the event service end when its present ranges are done."""
    return Reply(True, message=orders.soft_kill(call.context, call.integer("job_id"), call.identity))


@registry.method("job/set_debug_mode", "POST", USERS, required("job_id", Kind.INTEGER), required("mode", Kind.FLAG))
def set_debug_mode(call: Call) -> object:
    """Have the pilot of a job report more often, with the end of the payload's output, or no longer."""
    text = orders.set_debug_mode(call.context, call.integer("job_id"), call.flag("mode"), call.identity)
    return Reply(True, message=text)


@registry.method("job/set_command", "POST", USERS, required("job_id", Kind.INTEGER), required("command"))
def set_command(call: Call) -> object:
    """Give the pilot of a running job a command that looks into it: tail, ls, ps, du or gdb."""
    return Reply(
        True, message=orders.set_command(call.context, call.integer("job_id"), call.text("command"), call.identity)
    )


@registry.method("job/throttle_task", "POST", OPERATORS, required("task_id", Kind.INTEGER), optional("reason"))
def throttle_task(call: Call) -> object:
    """Take the jobs of a task that no pilot has out of the queue; how many there were."""
    reason = call.text("reason") or "on request"
    return throttling.throttle_task(call.context, call.integer("task_id"), reason, call.identity)


@registry.method("job/release_task", "POST", OPERATORS, required("task_id", Kind.INTEGER))
def release_task(call: Call) -> object:
    """Put the throttled jobs of a task back into the queue; how many there were."""
    return throttling.release_task(call.context, call.integer("task_id"), call.identity)


@registry.method(
    "job/get_status", "GET", ANY_ROLE, required("job_ids", Kind.INTEGERS), optional("timeout", Kind.INTEGER)
)
def get_status(call: Call) -> object:
    """State, attempt and order of jobs."""
    return details.job_orders(call.context, _ids(call))


def _ids(call: Call) -> list[int]:
    ids = call.integers("job_ids")
    if len(ids) > _MOST_IDS:
        raise BadArgument("Argument error", f"job_ids has {len(ids)} items; {_MOST_IDS} is the most")
    return ids
