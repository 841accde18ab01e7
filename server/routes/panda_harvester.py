"""The legacy names of Harvester's calls, as older instances of it say them (wire.md section 6)."""

from __future__ import annotations

from server.logic import harvesters, resourcetypes, workers
from server.routes.decoding import BadArgument, parse_json
from server.routes.envelope import Encoded
from server.routes.registry import ALL_BUT_PILOTS, ANY_ROLE, HARVESTERS, Call, Kind, Registry, optional, required

registry = Registry()

_SUCCESS = 0


@registry.method("getResourceTypes", "GET POST", ANY_ROLE, optional("timeout", Kind.ANY))
def get_resource_types(call: Call) -> object:
    """The resource types jobs are sorted into."""
    return {"StatusCode": _SUCCESS, "Returns": 0, "ResourceTypes": resourcetypes.listed(call.context)}


@registry.method(
    "harvesterIsAlive", "GET POST", HARVESTERS, required("harvesterID"), optional("data", Kind.ANY, "a JSON object")
)
def harvester_is_alive(call: Call) -> object:
    """Note that an instance is alive; the first of these registers it."""
    data = _parsed(call, "data") if "data" in call.values else {}
    if not isinstance(data, dict):
        raise BadArgument("Type error", "data must be a JSON object")
    harvesters.heartbeat(call.context, call.text("harvesterID"), data, call.identity)
    return _done("")


@registry.method("updateWorkers", "GET POST", HARVESTERS, required("harvesterID"), required("workers", Kind.ANY))
def update_workers(call: Call) -> object:
    """Store what an instance says of its workers: true or false for each."""
    stored, _ = workers.update_workers(call.context, call.text("harvesterID"), _items(call, "workers"), call.identity)
    return Encoded([True, stored], as_json=True)


@registry.method(
    "reportWorkerStats_jobtype",
    "GET POST",
    HARVESTERS,
    required("harvesterID"),
    required("siteName"),
    required("paramsList", Kind.ANY, "JSON {job type: {resource type: {state: number}}}"),
)
def report_worker_stats(call: Call) -> object:
    """Store how many workers an instance has in a queue."""
    names = call.text("harvesterID"), call.text("siteName")
    workers.report_statistics(call.context, *names, _parsed(call, "paramsList"), call.identity)
    return _done("OK")


@registry.method("getWorkerStats", "GET POST", ALL_BUT_PILOTS)
def get_worker_stats(call: Call) -> object:
    """How many workers there are, by queue, instance, job type, resource type and state."""
    return Encoded([True, workers.read_statistics(call.context)], as_json=True)


@registry.method("addHarvesterDialogs", "GET POST", HARVESTERS, required("harvesterID"), required("dialogs", Kind.ANY))
def add_harvester_dialogs(call: Call) -> object:
    """Store what an instance's log says."""
    harvesters.add_dialogs(call.context, call.text("harvesterID"), _items(call, "dialogs"), call.identity)
    return _done("")


@registry.method("updateServiceMetrics", "GET POST", HARVESTERS, required("harvesterID"), required("metrics", Kind.ANY))
def update_service_metrics(call: Call) -> object:
    """Store memory, CPU, disks and credentials of an instance's hosts."""
    harvesters.add_metrics(call.context, call.text("harvesterID"), _items(call, "metrics"), call.identity)
    return _done("")


@registry.method(
    "getCommands",
    "GET POST",
    HARVESTERS,
    required("harvester_id"),
    required("n_commands", Kind.INTEGER),
    optional("timeout", Kind.ANY),
)
def get_commands(call: Call) -> object:
    """Give an instance its commands."""
    number = call.integer("n_commands")
    taken = harvesters.take_commands(call.context, call.text("harvester_id"), number, call.identity)
    return {"StatusCode": _SUCCESS, "Commands": taken}


@registry.method(
    "ackCommands",
    "GET POST",
    HARVESTERS,
    required("command_ids", Kind.ANY, "a JSON list"),
    optional("timeout", Kind.ANY),
)
def ack_commands(call: Call) -> object:
    """Note that an instance has obeyed commands."""
    ids = _items(call, "command_ids")
    if not all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**63 for item in ids):
        raise BadArgument("Type error", "command_ids must be a JSON list of whole numbers")
    harvesters.acknowledge(call.context, [item for item in ids if isinstance(item, int)], call.identity)
    return {"StatusCode": _SUCCESS}


@registry.method("get_max_worker_id", "GET POST", HARVESTERS, required("harvester_id"))
def get_max_worker_id(call: Call) -> object:
    """The highest number an instance has given to a worker."""
    return Encoded(harvesters.current_worker_id(call.context, call.text("harvester_id")), as_json=True)


def _parsed(call: Call, name: str) -> object:
    value = call.values[name]
    return parse_json(value) if isinstance(value, str) else value


def _items(call: Call, name: str) -> list[object]:
    value = _parsed(call, name)
    if not isinstance(value, list):
        raise BadArgument("Type error", f"{name} must be a JSON list")
    return value


def _done(text: str) -> Encoded:
    return Encoded([True, text], as_json=True)
