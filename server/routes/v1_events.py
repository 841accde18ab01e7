"""v1 methods of the event service."""

from __future__ import annotations

import ast
import json
import re

from server.logic import events, eventstatus
from server.logic.eventstatus import Place, Wanted
from server.logic.names import shown
from server.routes.decoding import BadArgument
from server.routes.envelope import Reply, failure
from server.routes.panda_events import RANGES, reports_of
from server.routes.registry import PILOTS, USERS, Call, Kind, Registry, optional, required

registry = Registry()

#: Characters of a question about ranges: many more than the most jobs of one need.
_QUESTION_LENGTH = 100_000
#: Jobs and ranges have numbers of 64 bits.
_LARGEST = 2**63
#: Where a page begins: PandaID-rangeID.
_PLACE = re.compile(r"(\d{1,18})-(\d{1,18})\Z", re.ASCII)


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


@registry.method(
    "event/get_event_range_statuses",
    "GET",
    USERS,
    required("job_task_ids", Kind.ANY, "{'task_id': 3, 'panda_id': 17} or a list of such, as JSON or Python writes it"),
    optional("after", Kind.TEXT, "where the page begins: `next` of the answer before"),
    optional("limit", Kind.INTEGER, "ranges of a page"),
    optional("timeout", Kind.INTEGER),
)
def get_event_range_statuses(call: Call) -> object:
    """The state of the event ranges that one's jobs have, or had last, by job and range."""
    wanted = _wanted(call.values["job_task_ids"])
    limit = call.integer("limit", eventstatus.MOST_RANGES)
    page = eventstatus.list_ranges(call.context, wanted, call.identity, _place(call.text("after")), limit)
    data = {str(job_id): ranges for job_id, ranges in page.ranges.items()}
    if page.following is None:
        return Reply(data)
    following = f"{page.following.job_id}-{page.following.range_id}"
    message = f"There are more ranges: ask again with after={following}"
    return Reply(data, message=message, extra={"next": following})


def _wanted(value: object) -> list[Wanted]:
    """The jobs of a question: objects as JSON or, as panda-client does, in Python's own words (client.md 1.4)."""
    texts = value if isinstance(value, list) else [value]
    items: list[object] = []
    for text in texts:
        read = _read(text) if isinstance(text, str) else text
        items += read if isinstance(read, list | tuple) else [read]
    if len(items) > eventstatus.MOST_JOBS:
        raise BadArgument("Argument error", f"job_task_ids has {len(items)} jobs; {eventstatus.MOST_JOBS} is the most")
    return [_job_of(item) for item in items]


def _read(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text[:_QUESTION_LENGTH])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # what its documentation names
        raise BadArgument(
            "Type error", f"job_task_ids must be JSON or Python's form of it, not {shown(text)}"
        ) from None


def _job_of(item: object) -> Wanted:
    if not isinstance(item, dict):
        return Wanted(_number(item, item))
    return Wanted(_number(item.get("panda_id", item.get("job_id")), item), _number(item.get("task_id") or 0, item))


def _number(value: object, item: object) -> int:
    """A number of a job or task, which clients may also write as text."""
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < _LARGEST):
        raise BadArgument(
            "Type error", f"job_task_ids must be objects like {{'task_id': 3, 'panda_id': 17}}, not {shown(item)}"
        )
    return int(text)


def _place(text: str) -> Place:
    if not text:
        return Place()
    match = _PLACE.match(text)
    if match is None:
        raise BadArgument("Argument error", f"after must be `next` of the answer before, not {shown(text)}")
    return Place(*map(int, match.groups()))
