"""The legacy methods of the event service (wire.md section 6)."""

from __future__ import annotations

import json

from server.logic import events
from server.logic.events import RangeAnswers, RangeReport
from server.routes.decoding import parse_json
from server.routes.envelope import Encoded
from server.routes.registry import PILOTS, Call, Kind, Registry, optional, required

registry = Registry()

_SUCCESS = 0
#: What pilots get that do not say how many ranges they want, as PanDA's servers have it.
RANGES = 10


@registry.method(
    "getEventRanges",
    "GET POST",
    PILOTS,
    required("pandaID", Kind.INTEGER),
    required("jobsetID", Kind.ANY),
    optional("taskID", Kind.ANY),
    optional("nRanges", Kind.INTEGER),
    optional("timeout", Kind.ANY),
    optional("scattered", Kind.ANY),
    optional("segment_id", Kind.ANY),
    optional("claim_id"),
)
def get_event_ranges(call: Call) -> object:
    """Give event ranges to the pilot that has the job."""
    number = call.integer("nRanges", RANGES)
    found = events.acquire_ranges(call.context, call.integer("pandaID"), number, call.claim, call.identity)
    return {"StatusCode": _SUCCESS, "eventRanges": found}


@registry.method(
    "updateEventRanges",
    "GET POST",
    PILOTS,
    required("eventRanges", Kind.ANY),
    optional("timeout", Kind.ANY),
    optional("version", Kind.ANY),
    optional("claim_id"),
)
def update_event_ranges(call: Call) -> object:
    """Take what a pilot says of several event ranges."""
    answers = events.update_ranges(call.context, reports_of(call, "eventRanges"), call.claim, call.identity)
    # JSON texts inside the answer, as existing pilots expect them.
    return {"StatusCode": _SUCCESS, "Returns": json.dumps(answers.taken), "Command": commands_of(answers)}


@registry.method(
    "updateEventRange",
    "GET POST",
    PILOTS,
    required("eventRangeID"),
    required("eventStatus"),
    optional("coreCount", Kind.NUMBER),
    optional("cpuConsumptionTime", Kind.NUMBER, "s"),
    optional("objstoreID", Kind.ANY),
    optional("timeout", Kind.ANY),
    optional("claim_id"),
)
def update_event_range(call: Call) -> object:
    """Take what a pilot says of one event range."""
    reports = events.read_reports([dict(call.values)])
    answers = events.update_ranges(call.context, reports, call.claim, call.identity)
    return Encoded({"StatusCode": _SUCCESS, "Command": commands_of(answers)}, as_json=False)


@registry.method(
    "checkEventsAvailability",
    "GET POST",
    PILOTS,
    required("pandaID", Kind.INTEGER),
    required("jobsetID", Kind.ANY),
    optional("taskID", Kind.ANY),
    optional("timeout", Kind.ANY),
)
def check_events_availability(call: Call) -> object:
    """How many event ranges a job could still have."""
    number = events.count_ranges(call.context, call.integer("pandaID")).get("ready", 0)
    return Encoded({"StatusCode": _SUCCESS, "nEventRanges": number}, as_json=True)


def reports_of(call: Call, name: str) -> list[RangeReport]:
    """The reports in an argument that is a JSON text, or the list itself."""
    value = call.values[name]
    return events.read_reports(parse_json(value) if isinstance(value, str) else value)


def commands_of(answers: RangeAnswers) -> str:
    """Orders by PandaID, as JSON text."""
    return json.dumps({str(job_id): command for job_id, command in answers.commands.items()})
