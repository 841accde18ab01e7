"""The legacy methods by which owners and operators order about jobs (wire.md section 8)."""

from __future__ import annotations

from server.logic import kills, orders
from server.routes.decoding import BadArgument, parse_json
from server.routes.envelope import Encoded
from server.routes.registry import USERS, Call, Kind, Registry, optional, required

registry = Registry()

#: More jobs than this in one order is a mistake.
_MOST_IDS = 10_000


@registry.method(
    "killJobs",
    "GET POST",
    USERS,
    required("ids", Kind.ANY, "a JSON list of PandaIDs"),
    optional("code", Kind.INTEGER, "why: PanDA's number"),
    optional("useMailAsID", Kind.ANY),
    optional("keepUnmerged", Kind.ANY),
    optional("jobSubStatus"),
)
def kill_jobs(call: Call) -> object:
    """Kill jobs: for each whether it ends because of this."""
    sub_status = call.text("jobSubStatus")
    results = kills.kill_jobs(call.context, _ids(call.values["ids"]), call.identity, call.integer("code"), sub_status)
    return Encoded([result.killed for result in results], as_json=True)


@registry.method("setDebugMode", "GET POST", USERS, required("pandaID", Kind.INTEGER), required("modeOn", Kind.FLAG))
def set_debug_mode_of_old(call: Call) -> object:
    """The same as set_debug_mode, as PanDA's clients of that generation say it."""
    return orders.set_debug_mode(call.context, call.integer("pandaID"), call.flag("modeOn"), call.identity)


@registry.method("set_debug_mode", "GET POST", USERS, required("job_id", Kind.INTEGER), required("mode", Kind.FLAG))
def set_debug_mode(call: Call) -> object:
    """Have the pilot of a job report more often, with the end of the payload's output, or no longer."""
    return _done(orders.set_debug_mode(call.context, call.integer("job_id"), call.flag("mode"), call.identity))


@registry.method("set_command", "GET POST", USERS, required("job_id", Kind.INTEGER), required("command"))
def set_command(call: Call) -> object:
    """Give the pilot of a running job a command that looks into it: tail, ls, ps, du or gdb."""
    return _done(orders.set_command(call.context, call.integer("job_id"), call.text("command"), call.identity))


@registry.method("softkill", "GET POST", USERS, required("job_id", Kind.INTEGER))
def softkill(call: Call) -> object:
    """Have a job of the event service end when its present ranges are done."""
    return _done(orders.soft_kill(call.context, call.integer("job_id"), call.identity))


def _done(text: str) -> dict[str, object]:
    return {"StatusCode": 0, "message": text}


def _ids(value: object) -> list[int]:
    items = parse_json(value) if isinstance(value, str) else value
    items = items if isinstance(items, list) else [items]
    if len(items) > _MOST_IDS or not all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**63 for item in items
    ):
        raise BadArgument("Type error", f"ids must be a JSON list of at most {_MOST_IDS} PandaIDs")
    return [item for item in items if isinstance(item, int)]
