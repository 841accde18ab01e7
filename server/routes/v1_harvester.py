"""v1 methods of Harvester (harvester.md section 2.1), and those by which operators see and steer it."""

from __future__ import annotations

from server.logic import harvesters, resourcetypes, statistics, workers
from server.routes.decoding import parse_json
from server.routes.envelope import Reply
from server.routes.registry import (
    ALL_BUT_PILOTS,
    ANY_ROLE,
    HARVESTERS,
    OPERATORS,
    USERS,
    Call,
    Kind,
    Registry,
    optional,
    required,
)

registry = Registry()

#: How many commands Harvester gets that does not say how many it wants.
_COMMANDS = 1
#: Lines of a list when nobody says how many.
_LINES = 100


@registry.method("harvester/heartbeat", "POST", HARVESTERS, required("harvester_id"), required("data", Kind.OBJECT))
def heartbeat(call: Call) -> object:
    """Note that an instance is alive; the first of these registers it."""
    harvesters.heartbeat(call.context, call.text("harvester_id"), call.mapping("data"), call.identity)
    return None


@registry.method("harvester/get_current_worker_id", "GET", HARVESTERS, required("harvester_id"))
def get_current_worker_id(call: Call) -> object:
    """The highest number an instance has given to a worker."""
    return harvesters.current_worker_id(call.context, call.text("harvester_id"))


@registry.method(
    "harvester/update_workers", "POST", HARVESTERS, required("harvester_id"), required("workers", Kind.ITEMS)
)
def update_workers(call: Call) -> object:
    """Store what an instance says of its workers: true or false for each."""
    stored, complaints = workers.update_workers(
        call.context, call.text("harvester_id"), call.items("workers"), call.identity
    )
    return Reply(stored, message="; ".join(complaints))


@registry.method(
    "harvester/report_worker_statistics",
    "POST",
    HARVESTERS,
    required("harvester_id"),
    required("panda_queue"),
    required("statistics", Kind.ANY, "{job type: {resource type: {state: number}}}, or its JSON text"),
)
def report_worker_statistics(call: Call) -> object:
    """Store how many workers an instance has in a queue."""
    names = call.text("harvester_id"), call.text("panda_queue")
    workers.report_statistics(call.context, *names, parsed(call, "statistics"), call.identity)
    return None


@registry.method("harvester/get_worker_statistics", "GET", ALL_BUT_PILOTS)
def get_worker_statistics(call: Call) -> object:
    """How many workers there are, by queue, instance, job type, resource type and state."""
    return workers.read_statistics(call.context)


@registry.method("harvester/add_dialogs", "POST", HARVESTERS, required("harvester_id"), required("dialogs", Kind.ITEMS))
def add_dialogs(call: Call) -> object:
    """Store what an instance's log says."""
    harvesters.add_dialogs(call.context, call.text("harvester_id"), call.items("dialogs"), call.identity)
    return None


@registry.method(
    "harvester/update_service_metrics", "POST", HARVESTERS, required("harvester_id"), required("metrics", Kind.ITEMS)
)
def update_service_metrics(call: Call) -> object:
    """Store memory, CPU, disks and credentials of an instance's hosts."""
    harvesters.add_metrics(call.context, call.text("harvester_id"), call.items("metrics"), call.identity)
    return None


@registry.method(
    "harvester/acquire_commands",
    "POST",
    HARVESTERS,
    required("harvester_id"),
    optional("n_commands", Kind.INTEGER),
    optional("timeout", Kind.INTEGER),
)
def acquire_commands(call: Call) -> object:
    """Give an instance its commands."""
    number = call.integer("n_commands", _COMMANDS)
    return harvesters.take_commands(call.context, call.text("harvester_id"), number, call.identity)


@registry.method(
    "harvester/acknowledge_commands",
    "POST",
    HARVESTERS,
    required("command_ids", Kind.INTEGERS),
    optional("timeout", Kind.INTEGER),
)
def acknowledge_commands(call: Call) -> object:
    """Note that an instance has obeyed commands."""
    harvesters.acknowledge(call.context, call.integers("command_ids"), call.identity)
    return None


@registry.method(
    "harvester/add_command",
    "POST",
    OPERATORS,
    required("harvester_id"),
    required("command", Kind.TEXT, "SET_N_WORKERS_JOBTYPE, REPORT_WORKER_STATS, KILL_WORKERS or SYNC_WORKERS_KILL"),
    optional("panda_queue"),
    optional("params", Kind.ANY),
)
def add_command(call: Call) -> object:
    """Give an instance a command; the answer is its number."""
    words = call.text("harvester_id"), call.text("command"), call.text("panda_queue")
    return harvesters.order(call.context, *words, call.values.get("params"), call.identity)


@registry.method("harvester/list", "GET", USERS)
def list_instances(call: Call) -> object:
    """All instances: version, host, when they started and were heard of last, how many workers they have."""
    return harvesters.list_instances(call.context)


@registry.method(
    "harvester/list_workers",
    "GET",
    USERS,
    optional("harvester_id"),
    optional("panda_queue"),
    optional("status", Kind.TEXTS, "a state, or several"),
    optional("limit", Kind.INTEGER),
)
def list_workers(call: Call) -> object:
    """The workers heard of last, with their jobs."""
    return workers.list_workers(
        call.context,
        harvester_id=call.text("harvester_id") or None,
        queue=call.text("panda_queue") or None,
        statuses=[word for text in call.texts("status") for word in text.split(",") if word],
        limit=call.integer("limit", _LINES),
    )


@registry.method("harvester/list_commands", "GET", OPERATORS, optional("harvester_id"), optional("limit", Kind.INTEGER))
def list_commands(call: Call) -> object:
    """The newest commands and what became of them."""
    return harvesters.list_commands(call.context, call.text("harvester_id") or None, call.integer("limit", _LINES))


@registry.method(
    "harvester/list_dialogs",
    "GET",
    OPERATORS,
    optional("harvester_id"),
    optional("level", Kind.TEXT, "ERROR, WARNING ..."),
    optional("limit", Kind.INTEGER),
)
def list_dialogs(call: Call) -> object:
    """The newest messages of instances' logs."""
    names = call.text("harvester_id") or None, call.text("level") or None
    return harvesters.list_dialogs(call.context, *names, call.integer("limit", _LINES))


@registry.method("harvester/list_metrics", "GET", OPERATORS, optional("harvester_id"), optional("limit", Kind.INTEGER))
def list_metrics(call: Call) -> object:
    """The newest service metrics of instances' hosts."""
    return harvesters.list_metrics(call.context, call.text("harvester_id") or None, call.integer("limit", _LINES))


@registry.method("metaconfig/get_resource_types", "GET", ANY_ROLE)
def get_resource_types(call: Call) -> object:
    """The resource types jobs are sorted into."""
    return resourcetypes.listed(call.context)


@registry.method(
    "metaconfig/set_resource_types",
    "POST",
    OPERATORS,
    required("resource_types", Kind.ITEMS, "objects {resource_name, mincore, maxcore, minrampercore, maxrampercore}"),
)
def set_resource_types(call: Call) -> object:
    """Set the resource types jobs are sorted into, in the order in which they are tried."""
    return resourcetypes.set_types(call.context, call.items("resource_types"))


@registry.method("statistics/active_job_stats_by_site", "GET", ALL_BUT_PILOTS)
def active_job_stats_by_site(call: Call) -> object:
    """How many jobs each queue has that are not over, by state."""
    return statistics.by_queue(call.context)


@registry.method("statistics/active_job_detailed_stats_by_site", "GET", ALL_BUT_PILOTS)
def active_job_detailed_stats_by_site(call: Call) -> object:
    """The same by prodSourceLabel, resource type and state."""
    return statistics.by_label(call.context)


def parsed(call: Call, name: str) -> object:
    """The value of an argument that is JSON text, or the value itself."""
    value = call.values[name]
    return parse_json(value) if isinstance(value, str) else value
