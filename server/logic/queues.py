"""Descriptions of panda queues and storages: what pilots need of them, with defaults for what a site leaves out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from server.db import information, jobs
from server.db.information import Description, Queue
from server.logic.context import Context
from server.logic.errors import BadField, NotFound
from server.logic.names import complaint_about_queue, shown

#: What an existing pilot reads of a queue (wire.md section 1), with values that mean "nothing special". maxwdir is MB:
#: an existing pilot takes 0 for "nothing allowed".
QUEUE_DEFAULTS: Mapping[str, object] = {
    "atlas_site": "",
    "site": "",
    "gstat": "",
    "state": "ACTIVE",
    "status": "online",
    "type": "production",
    "resource_type": "grid",
    "cloud": "",
    "corecount": 1,
    "maxrss": 0,
    "maxwdir": 100_000,
    "maxtime": 0,
    "maxinputsize": -1,
    "timefloor": 0,
    "pledgedcpu": 0,
    "copytools": {"mv": {"setup": ""}},
    "acopytools": {"default": ["mv"]},
    "astorages": {},
    "catchall": "",
    "container_type": "",
    "container_options": "",
    "appdir": "",
    "cmtconfig": "",
    "environ": "",
    "is_cvmfs": False,
    "allow_lan": True,
    "allow_wan": False,
    "direct_access_lan": False,
    "direct_access_wan": False,
    "params": {},
    "workflow": "",
    "heartbeat": 0,
    "lost_heartbeat": 0,
}
_NAME_KEYS = ("name", "nickname", "siteid", "panda_resource")
STATUSES = ("online", "offline", "test", "brokeroff", "paused")
#: Activities that say where outputs go, the most particular first.
_OUTPUT_ACTIVITIES = ("pw", "write_lan", "default")


def add_queues(context: Context, descriptions: Mapping[str, object]) -> list[str]:
    """Add queues or replace their descriptions, all or none; returns their names.

    Raises:
        BadField: a name or description cannot be used.
    """
    queues = [_checked_queue(name, description) for name, description in descriptions.items()]
    now = context.clock()
    with context.database.durable() as connection:
        for queue in queues:
            information.store_queue(connection, queue, now)
    return [queue.name for queue in queues]


def change_queue(context: Context, name: str, changes: Mapping[str, object]) -> Description:
    """Change keys of a queue's description; returns the new description.

    Raises:
        NotFound: there is no such queue.
        BadField: a key is not known, or its value cannot be used.
    """
    with context.database.durable() as connection:
        queue = information.read_queue(connection, name)
        if queue is None:
            raise NotFound(_no_queue(name))
        for key in changes:
            if key not in QUEUE_DEFAULTS and key not in queue.description:
                raise BadField(key, f"is no key of a queue description{_guess(key)}")
        changed = _checked_queue(name, {**queue.description, **changes})
        information.store_queue(connection, changed, context.clock())
    return changed.description


def read_queue(context: Context, name: str) -> Description:
    """The whole description of a queue.

    Raises:
        NotFound: there is no such queue.
    """
    with context.database.reading() as connection:
        queue = information.read_queue(connection, name)
    if queue is None:
        raise NotFound(_no_queue(name))
    return queue.description


def read_queues(context: Context) -> dict[str, Description]:
    """All descriptions by name."""
    with context.database.reading() as connection:
        return {queue.name: queue.description for queue in information.read_queues(connection)}


def list_queues(context: Context) -> list[Description]:
    """A line for each queue, with the number of its jobs by state."""
    with context.database.reading() as connection:
        queues = information.read_queues(connection)
        counts = jobs.count_jobs(connection)
    return [
        {
            "name": queue.name,
            "status": queue.status,
            "state": queue.state,
            **{key: queue.description.get(key) for key in ("resource_type", "corecount", "maxrss")},
            "jobs": counts.get(queue.name, {}),
        }
        for queue in queues
    ]


def add_storages(context: Context, descriptions: Mapping[str, object]) -> list[str]:
    """Add storages or replace their descriptions, all or none; returns their names.

    Raises:
        BadField: a name or description cannot be used.
    """
    checked: dict[str, Description] = {}
    for name, description in descriptions.items():
        if complaint := complaint_about_queue(name):
            raise BadField("storages", f"has a bad name: {complaint}")
        if not isinstance(description, dict):
            raise BadField(
                f"storages.{name}", f"must be an object with the storage's description, not {shown(description)}"
            )
        checked[name] = {"state": "ACTIVE", "is_deterministic": True, "rprotocols": {}, **description, "name": name}
    now = context.clock()
    with context.database.durable() as connection:
        for name, description in checked.items():
            information.store_storage(connection, name, description, now)
    return list(checked)


def read_storages(context: Context) -> dict[str, Description]:
    """All storage descriptions by RSE."""
    with context.database.reading() as connection:
        return information.read_storages(connection)


def output_endpoint(description: Description) -> str:
    """The storage outputs of jobs in this queue go to; empty if the queue does not say."""
    storages = description.get("astorages")
    if not isinstance(storages, dict):
        return ""
    for activity in _OUTPUT_ACTIVITIES:
        endpoints = storages.get(activity)
        if isinstance(endpoints, list) and endpoints and isinstance(endpoints[0], str):
            return endpoints[0]
    return ""


def number_of(description: Description, key: str) -> int:
    """A number of a description; 0 if there is none."""
    value = description.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _checked_queue(name: str, description: object) -> Queue:
    if complaint := complaint_about_queue(name):
        raise BadField("queues", f"has a bad name: {complaint}")
    if not isinstance(description, dict):
        raise BadField(f"queues.{name}", f"must be an object with the queue's description, not {shown(description)}")
    checked: Description = {key: _cast(key, value, QUEUE_DEFAULTS.get(key)) for key, value in description.items()}
    whole: Description = {**QUEUE_DEFAULTS, **checked, **dict.fromkeys(_NAME_KEYS, name)}
    for key in ("site", "atlas_site", "gstat"):
        whole[key] = whole[key] or name
    status, state = str(whole["status"]), str(whole["state"])
    if status not in STATUSES:
        raise BadField("status", f"must be one of {', '.join(STATUSES)}, not {shown(status)}")
    if len(state) > 20:
        raise BadField("state", f"must be a word like ACTIVE, not {shown(state)}")
    return Queue(name, status, state, whole)


def _cast(key: str, value: object, default: object) -> object:
    """A value in the type its key has; texts of numbers and truth values are understood, as command lines give them."""
    if default is None or value is None:
        return default if value is None else value
    if isinstance(default, bool):
        words = {"true": True, "1": True, "false": False, "0": False}
        known = words.get(str(value).lower())
        if known is None:
            raise BadField(key, f"must be true or false, not {shown(value)}")
        return known
    if isinstance(default, int):
        try:
            number = int(str(value))
        except ValueError:
            raise BadField(key, f"must be a whole number, not {shown(value)}") from None
        if abs(number) >= 2**53:
            raise BadField(key, "is too large a number")
        return number
    if not isinstance(value, type(default)):
        kind = "a text" if isinstance(default, str) else "an object"
        raise BadField(key, f"must be {kind}, not {shown(value)}")
    return value


def _guess(key: str) -> str:
    near = difflib.get_close_matches(key, QUEUE_DEFAULTS, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _no_queue(name: str) -> str:
    return f"This server has no queue {shown(name)}. `pilotkit queue list` shows those it has."
