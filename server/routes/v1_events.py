"""v1 methods of the event service."""

from __future__ import annotations

from server.logic import events
from server.routes.envelope import failure
from server.routes.panda_events import RANGES, reports_of
from server.routes.registry import PILOTS, Call, Kind, Registry, optional, required

registry = Registry()


@registry.method(
    "event/acquire_event_ranges",
    "POST",
    PILOTS,
    required("job_id", Kind.INTEGER),
    required("jobset_id", Kind.INTEGER),
    optional("task_id", Kind.INTEGER),
    optional("n_ranges", Kind.INTEGER),
    optional("timeout", Kind.INTEGER),
    optional("scattered", Kind.ANY),
    optional("segment_id", Kind.ANY),
    optional("claim_id"),
)
def acquire_event_ranges(call: Call) -> object:
    """Give event ranges to the pilot that has the job."""
    number = call.integer("n_ranges", RANGES)
    found = events.acquire_ranges(call.context, call.integer("job_id"), number, call.claim, call.identity)
    return {"StatusCode": 0, "eventRanges": found}


@registry.method(
    "event/update_event_ranges",
    "POST",
    PILOTS,
    required("event_ranges", Kind.ANY),
    optional("version", Kind.INTEGER),
    optional("timeout", Kind.INTEGER),
    optional("claim_id"),
)
def update_event_ranges(call: Call) -> object:
    """Take what a pilot says of several event ranges."""
    answers = events.update_ranges(call.context, reports_of(call, "event_ranges"), call.claim, call.identity)
    commands = {str(job_id): command for job_id, command in answers.commands.items()}
    return {"StatusCode": 0, "Returns": answers.taken, "Command": commands}


@registry.method(
    "event/update_single_event_range",
    "POST",
    PILOTS,
    required("event_range_id"),
    required("event_range_status"),
    optional("core_count", Kind.NUMBER),
    optional("cpu_consumption_time", Kind.NUMBER, "s"),
    optional("objectstore_id", Kind.ANY),
    optional("timeout", Kind.INTEGER),
    optional("claim_id"),
)
def update_single_event_range(call: Call) -> object:
    """Take what a pilot says of one event range."""
    names = {
        "eventRangeID": "event_range_id",
        "eventStatus": "event_range_status",
        "coreCount": "core_count",
        "cpuConsumptionTime": "cpu_consumption_time",
        "objstoreID": "objectstore_id",
    }
    item = {legacy: call.values[name] for legacy, name in names.items() if name in call.values}
    answers = events.update_ranges(call.context, events.read_reports([item]), call.claim, call.identity)
    command = next(iter(answers.commands.values()), None)
    if answers.taken == [False]:
        return failure("this event range is not the job's, or not in a state to be changed", {"Command": command})
    return {"StatusCode": 0, "Command": command}


@registry.method(
    "event/get_available_event_range_count",
    "GET",
    PILOTS,
    required("job_id", Kind.INTEGER),
    required("jobset_id", Kind.INTEGER),
    optional("task_id", Kind.INTEGER),
    optional("timeout", Kind.INTEGER),
)
def get_available_event_range_count(call: Call) -> object:
    """How many event ranges a job could still have."""
    return events.count_ranges(call.context, call.integer("job_id")).get("ready", 0)
