"""Harvester's instances: they register themselves, fetch commands, and tell what their log and their hosts say.

Whoever speaks first for an instance speaks for it from then on: what comes with another token is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NoReturn

from server.db import harvesters, information, workers
from server.db.database import Connection
from server.db.harvesters import Instance
from server.logic import workerform
from server.logic.context import Context, Identity, Role
from server.logic.dispatch import iso_time
from server.logic.errors import BadField, NotAllowed, NotFound
from server.logic.fields import read_integer
from server.logic.names import QUEUE_LENGTH, has_control_characters, shown
from server.logic.queues import no_queue

#: Most items of one call; Harvester sends some hundred.
MOST_ITEMS = 10_000
#: Most commands of one answer; Harvester asks for 20.
MOST_COMMANDS = 1000
#: A command that is to be acknowledged and is not, this many s after it was fetched, is given out again: its answer may
#: have been lost. Harvester asks every 5 s and acknowledges when it has obeyed.
_ACKNOWLEDGE = 600
#: An instance that has not been heard of for this long, in s, is not there: it beats every 10 minutes.
ALIVE = 3600
#: Nobody waits longer than this for a command to be obeyed, in s.
_LIFETIME = 86400
_NAME_LENGTH = 64
#: The longest service metrics of one host and moment, in characters of JSON.
_METRICS_LENGTH = 20_000

#: What operators may order: the word -> whether a queue follows it after a colon.
COMMANDS = {
    "SET_N_WORKERS_JOBTYPE": True,
    "REPORT_WORKER_STATS": True,
    "KILL_WORKERS": False,
    "SYNC_WORKERS_KILL": False,
}
#: These must be known to have arrived: a lost one leaves workers alive that somebody wanted to end.
_ACKNOWLEDGED = frozenset({"KILL_WORKERS", "SYNC_WORKERS_KILL"})
#: What KILL_WORKERS chooses workers by; each a list, or ALL.
_CHOICES = ("status", "computingSite", "computingElement", "submissionHost")


def speak_for(connection: Connection, harvester_id: str, identity: Identity, now: float) -> Instance:
    """The instance a caller speaks for, registered now if it is new; part of the caller's transaction.

    Raises:
        BadField: the name cannot be one.
        NotAllowed: it belongs to somebody else.
    """
    if not harvester_id or len(harvester_id) > _NAME_LENGTH or has_control_characters(harvester_id):
        raise BadField("harvester_id", f"must be 1 to {_NAME_LENGTH} printable characters, not {shown(harvester_id)}")
    instance = harvesters.register(connection, harvester_id, identity.name or None, now)
    check_owner(instance, identity)
    return instance


def check_owner(instance: Instance, identity: Identity) -> None:
    """Refuse who does not speak for an instance.

    Raises:
        NotAllowed: it belongs to somebody else.
    """
    if instance.owner and identity.name and instance.owner != identity.name and Role.OPERATOR not in identity.roles:
        raise NotAllowed(f"Harvester {instance.harvesterID} belongs to {instance.owner}, not to {identity.name}.")


def heartbeat(context: Context, harvester_id: str, data: Mapping[str, object], identity: Identity) -> None:
    """Note that an instance is alive; its first words are when it started, its version and what it obeys.

    Raises:
        BadField: a value cannot be used.
        NotAllowed: the instance belongs to somebody else.
    """
    now = context.clock()
    values: dict[str, object] = {"lastUpdate": now}
    if data.get("startTime") is not None:
        values["startTime"] = workerform.read_moment("startTime", data["startTime"])
    for name, length in (("sw_version", 50), ("commit_stamp", 100), ("hostname", 128)):
        if data.get(name) is not None:
            values[name] = workerform.cut(name, data[name], length)
    if data.get("commands") is not None:
        values["commands"] = _obeyed(data["commands"])
    with context.database.durable() as connection:
        speak_for(connection, harvester_id, identity, now)
        harvesters.change_instance(connection, harvester_id, values)


def _obeyed(commands: object) -> list[dict[str, str]]:
    """The commands an instance says it obeys: {command, computingSite, resourceType} of each."""
    if not isinstance(commands, list) or len(commands) > MOST_ITEMS:
        raise BadField("commands", f"must be a list of at most {MOST_ITEMS} objects, not {shown(commands)}")
    keys = ("command", "computingSite", "resourceType")
    return [
        {key: workerform.cut(key, item[key], QUEUE_LENGTH) for key in keys if item.get(key) is not None}
        for item in commands
        if isinstance(item, dict)
    ]


def current_worker_id(context: Context, harvester_id: str) -> int:
    """The highest number an instance has given to a worker; 0 if there is none."""
    with context.database.reading() as connection:
        instance = harvesters.find_instance(connection, harvester_id)
    return instance.maxWorkerID if instance else 0


def order(context: Context, harvester_id: str, command: str, queue: str, params: object, identity: Identity) -> int:
    """Give an instance a command; it is fetched within seconds. Returns the command's number.

    Args:
        command: one of COMMANDS.
        queue: the queue it is about; empty for commands that are about none.
        params: as documented for each (docs/harvester.md); None where there are none.

    Raises:
        BadField: command, queue or parameters do not fit.
        NotFound: there is no such instance or queue.
    """
    with context.database.durable() as connection:
        if harvesters.find_instance(connection, harvester_id) is None:
            raise NotFound(f"No Harvester {shown(harvester_id)} has been heard of. `pilotkit harvester list` has them.")
        return add_order(connection, harvester_id, command, queue, params, identity.name or "operator", context.clock())


def add_order(
    connection: Connection, harvester_id: str, command: str, queue: str, params: object, actor: str, now: float
) -> int:
    """The same in the caller's transaction, for an instance that is known to be there.

    What is ordered of a queue takes the place of the same order that has not been fetched yet; kills add up.
    """
    about_queue = COMMANDS.get(command)
    if about_queue is None:
        raise BadField("command", f"must be one of {', '.join(COMMANDS)}, not {shown(command)}")
    if about_queue != bool(queue):
        raise BadField("panda_queue", f"{'is needed for' if about_queue else 'has no meaning for'} {command}")
    if queue and information.read_queue(connection, queue) is None:
        raise NotFound(no_queue(queue))
    words = f"{command}:{queue}" if queue else command
    if queue:
        harvesters.replace_commands(connection, harvester_id, words, now)
    values = {
        "harvesterID": harvester_id,
        "command": words,
        "params": _parameters(command, params),
        "ackRequested": command in _ACKNOWLEDGED,
        "actor": actor,
    }
    return harvesters.add_command(connection, values, now)


def _parameters(command: str, params: object) -> object:
    if command == "REPORT_WORKER_STATS":
        return None
    if command == "SYNC_WORKERS_KILL":
        if not isinstance(params, list) or not params:
            raise BadField("params", f"must be a list of worker numbers, not {shown(params)}")
        return [int(workerform.read_worker_id("params", item)) for item in params[:MOST_ITEMS]]
    if not isinstance(params, dict):
        raise BadField("params", f"must be an object, not {shown(params)}")
    return _choice(params) if command == "KILL_WORKERS" else _wanted(params)


def _choice(params: Mapping[str, object]) -> dict[str, object]:
    """What KILL_WORKERS ends: of each key a list of names, or ALL."""
    choice: dict[str, object] = {}
    for key, value in params.items():
        if key not in _CHOICES:
            raise BadField("params", f"does not know {shown(key)}; it may have {', '.join(_CHOICES)}")
        names = value if isinstance(value, list) else [value]
        if value != "ALL" and not (names and all(isinstance(name, str) and name for name in names)):
            raise BadField("params", f"{key} must be a list of names or ALL, not {shown(value)}")
        choice[key] = "ALL" if value == "ALL" else names
    if not choice.keys() & {"status", "computingSite"}:
        raise BadField("params", "must name status or computingSite: else it would end all workers")
    return {key: choice.get(key, "ALL") for key in _CHOICES}


def _wanted(params: Mapping[str, object]) -> dict[str, dict[str, int]]:
    """How many workers SET_N_WORKERS_JOBTYPE wants: {job type: {resource type: number}}."""
    wanted: dict[str, dict[str, int]] = {}
    for job_type, numbers in params.items():
        if not isinstance(numbers, dict):
            raise BadField("params", "must be like {'managed': {'SCORE': 2}}: a number for each resource type")
        for resource_type, number in numbers.items():
            count = read_integer("params", number, wide=False)
            if count < 0:
                raise BadField("params", f"{job_type} {resource_type} must not be negative")
            wanted.setdefault(job_type, {})[resource_type] = count
    return wanted


def take_commands(context: Context, harvester_id: str, number: int, identity: Identity) -> list[dict[str, object]]:
    """Give an instance its commands, each once; those that were to be acknowledged and were not come again.

    Raises:
        BadField, NotAllowed: as of `speak_for`.
    """
    now = context.clock()
    with context.database.durable() as connection:
        speak_for(connection, harvester_id, identity, now)
        for lost in harvesters.find_unacknowledged(connection, harvester_id, now - _ACKNOWLEDGE, now - _LIFETIME):
            # Under a number of its own: Harvester keeps commands by number, and may have the first in its hands.
            if harvesters.mark_commands(connection, [lost.commandID], "repeated", now):
                harvesters.add_command(connection, _again(lost), now)
        taken = harvesters.take_commands(connection, harvester_id, max(0, min(number, MOST_COMMANDS)), now)
    return [
        {
            "command_id": command.commandID,
            "command": command.command,
            "params": command.params,
            "ack_requested": command.ackRequested,
            "creation_date": iso_time(command.creationTime),
        }
        for command in taken
    ]


def _again(lost: harvesters.Command) -> dict[str, object]:
    return {key: getattr(lost, key) for key in ("harvesterID", "command", "params", "ackRequested", "actor")}


def acknowledge(context: Context, command_ids: Sequence[int], identity: Identity) -> int:
    """Note that commands have been obeyed; returns how many of them were waited for.

    Raises:
        NotAllowed: one is for somebody else's instance.
    """
    with context.database.durable() as connection:
        for harvester_id in harvesters.owners_of_commands(connection, command_ids):
            speak_for(connection, harvester_id, identity, context.clock())
        return harvesters.mark_commands(connection, command_ids, "acknowledged", context.clock())


def add_dialogs(context: Context, harvester_id: str, dialogs: Sequence[object], identity: Identity) -> None:
    """Store what an instance's log says.

    Raises:
        BadField: a message cannot be stored; none was.
        NotAllowed: the instance belongs to somebody else.
    """
    rows = [_dialog(harvester_id, item, context.clock()) for item in _items("dialogs", dialogs)]
    with context.database.durable() as connection:
        speak_for(connection, harvester_id, identity, context.clock())
        harvesters.add_dialogs(connection, rows)


def _dialog(harvester_id: str, item: object, now: float) -> dict[str, str | int | float | None]:
    if not isinstance(item, dict):
        raise BadField("dialogs", f"must be a list of objects, not of {shown(item)}")
    made = item.get("creationTime")
    lengths = {"moduleName": 100, "identifier": 100, "messageLevel": 10, "diagMessage": 500}
    return {
        "harvesterID": harvester_id,
        "diagID": read_integer("diagID", item.get("diagID"), wide=True),
        "creationTime": now if made is None else workerform.read_moment("creationTime", made),
        **{name: workerform.cut(name, item.get(name) or "", length) for name, length in lengths.items()},
    }


def add_metrics(context: Context, harvester_id: str, metrics: Sequence[object], identity: Identity) -> None:
    """Store service metrics: memory, CPU, disks and credentials of an instance's hosts, [time, host, JSON text] each.

    Raises:
        BadField: one cannot be stored; none was.
        NotAllowed: the instance belongs to somebody else.
    """
    rows = [_metrics(harvester_id, item) for item in _items("metrics", metrics)]
    with context.database.durable() as connection:
        speak_for(connection, harvester_id, identity, context.clock())
        harvesters.add_metrics(connection, rows)


def _metrics(harvester_id: str, item: object) -> dict[str, object]:
    if not isinstance(item, list) or len(item) != 3:
        raise BadField("metrics", f"must be a list of [time, host, JSON text], not of {shown(item)}")
    text = item[2] if isinstance(item[2], str) else json.dumps(item[2])
    values = read_json("metrics", text)
    if not isinstance(values, dict) or len(text) > _METRICS_LENGTH:
        raise BadField("metrics", f"must be JSON objects of at most {_METRICS_LENGTH} characters, not {shown(text)}")
    return {
        "harvesterID": harvester_id,
        "creationTime": workerform.read_moment("metrics", item[0]),
        "hostName": workerform.cut("metrics", item[1], 128),
        "metrics": values,
    }


def read_json(name: str, text: str) -> object:
    """The value in a JSON text; NUL, which databases refuse inside of it too, becomes visible.

    Raises:
        BadField: it is none.
    """
    try:
        value: object = json.loads(text.replace("\\u0000", "\\u2400"), parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()  # halves of surrogate pairs are no text
    except (ValueError, RecursionError):
        raise BadField(name, f"is not JSON: {shown(text[:60])}") from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _items(name: str, items: Sequence[object]) -> Sequence[object]:
    if len(items) > MOST_ITEMS:
        raise BadField(name, f"has {len(items)} items; {MOST_ITEMS} is the most of one call")
    return items


def alive_instances(connection: Connection, now: float) -> set[str]:
    """The instances that have been heard of lately."""
    rows = harvesters.read_instances(connection)
    return {str(row["harvesterID"]) for row in rows if float(str(row["lastUpdate"])) >= now - ALIVE}


def list_instances(context: Context) -> list[dict[str, object]]:
    """All instances, with the number of their workers by state as they count them."""
    with context.database.reading() as connection:
        found = harvesters.read_instances(connection)
        counts: dict[str, dict[str, int]] = {}
        for row in workers.read_statistics(connection):
            of_one = counts.setdefault(str(row["harvesterID"]), {})
            of_one[str(row["status"])] = of_one.get(str(row["status"]), 0) + int(str(row["n"]))
    return [{**with_times(row), "workers": counts.get(str(row["harvesterID"]), {})} for row in found]


def list_commands(context: Context, harvester_id: str | None, limit: int) -> list[dict[str, object]]:
    """The newest commands and what became of them."""
    with context.database.reading() as connection:
        return [with_times(row) for row in harvesters.find_commands(connection, harvester_id, _most(limit))]


def list_dialogs(context: Context, harvester_id: str | None, level: str | None, limit: int) -> list[dict[str, object]]:
    """The newest messages of instances' logs."""
    with context.database.reading() as connection:
        return [with_times(row) for row in harvesters.find_dialogs(connection, harvester_id, level, _most(limit))]


def list_metrics(context: Context, harvester_id: str | None, limit: int) -> list[dict[str, object]]:
    """The newest service metrics."""
    with context.database.reading() as connection:
        return [with_times(row) for row in harvesters.find_metrics(connection, harvester_id, _most(limit))]


def _most(limit: int) -> int:
    return max(0, min(limit, MOST_ITEMS))


def with_times(row: Mapping[str, object]) -> dict[str, object]:
    """A row for people: times as text."""
    return {
        key: iso_time(value) if key.endswith(("Time", "lastUpdate")) and isinstance(value, float) else value
        for key, value in row.items()
    }
