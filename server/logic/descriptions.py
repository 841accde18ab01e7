"""What descriptions of queues and storages may look like. Adding one and changing one are checked alike.

Descriptions come from sites' catalogues (CRIC), which have many keys this server does not know: those are kept as they
are and given to pilots. What is known must be what pilots read (wire.md, section 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from server.db.information import Description, Queue
from server.logic.cricforms import READ, closed_by
from server.logic.errors import BadField
from server.logic.names import complaint_about_queue, has_control_characters, shown

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
STATUSES = ("online", "offline", "test", "brokeroff", "paused")
#: Keys that say what the queue is called: its name, whatever a description has there.
NAME_KEYS = ("name", "nickname", "siteid", "panda_resource")
#: Numbers below zero make no sense in these.
_AMOUNTS = frozenset({"corecount", "maxrss", "maxwdir", "maxtime", "timefloor", "heartbeat", "lost_heartbeat"})
#: {activity: [names]}.
_ACTIVITIES = frozenset({"acopytools", "astorages"})
_STATE_LENGTH = 20

STORAGE_DEFAULTS: Mapping[str, object] = {
    "state": "ACTIVE",
    "site": "",
    "type": "",
    "token": "",
    "is_deterministic": True,
    "arprotocols": {},
    "rprotocols": {},
    "resource": {},
}
#: {activity: [{endpoint, path, ...}]}, which is what pilots take the place of a file from.
_PROTOCOLS = "arprotocols"


def checked_queue(name: str, description: object) -> Queue:
    """A queue with its whole description, defaults filled in.

    Raises:
        BadField: with the key that is wrong.
    """
    where = f"queues.{name}"
    given = _object("queues", where, name, description)
    checked: Description = {key: _cast(key, value, QUEUE_DEFAULTS.get(key)) for key, value in given.items()}
    whole: Description = {**QUEUE_DEFAULTS, **checked, **dict.fromkeys(NAME_KEYS, name)}
    for key in ("site", "atlas_site", "gstat"):
        whole[key] = whole[key] or name
    for key in _AMOUNTS:
        if isinstance(amount := whole[key], int) and amount < 0:
            raise BadField(key, f"must not be negative; it is {amount}")
    for key in _ACTIVITIES:
        _check_activities(key, whole[key])
    for tool, settings in _items(whole["copytools"]):
        if not isinstance(settings, dict):
            raise BadField("copytools", f"must be like {{'mv': {{'setup': ''}}}}; {shown(tool)} has {shown(settings)}")
    status, state = str(whole["status"]), str(whole["state"])
    if status not in STATUSES:
        raise BadField("status", f"must be one of {', '.join(STATUSES)}, not {shown(status)}")
    _check_state(state)
    return Queue(name, status, state, whole)


def checked_storage(name: str, description: object) -> Description:
    """The whole description of a storage, defaults filled in.

    Raises:
        BadField: with the key that is wrong.
    """
    where = f"storages.{name}"
    given = _object("storages", where, name, description)
    whole: Description = {**STORAGE_DEFAULTS, "name": name}
    for key, value in given.items():
        try:
            whole[key] = _cast(key, value, STORAGE_DEFAULTS.get(key))
        except BadField as error:
            raise BadField(f"{where}.{key}", error.why) from None
    whole["name"] = name
    _check_state(str(whole["state"]))
    for activity, offers in _items(whole[_PROTOCOLS]):
        _check_offers(f"{where}.{_PROTOCOLS}.{activity}", offers)
    return whole


def remarks(queue: Queue, storages: Mapping[str, Description]) -> list[str]:
    """What a site should know about a queue that was accepted, in sentences."""
    found: list[str] = []
    if queue.state != "ACTIVE":
        found.append(f"queue {queue.name} is in state {queue.state}: it gives out jobs only while that is ACTIVE")
    named = {name for _, names in _items(queue.description["astorages"]) for name in _names(names)}
    for name in sorted(named - storages.keys()):
        found.append(f"queue {queue.name} uses the storage {name}, which is not described: `pilotkit storage add` it")
    return found


def for_pilots(queue: Queue) -> Description:
    """A queue's description as pilots get it.

    An existing pilot takes a maxwdir of 0, no limit here, for "nothing". Storages that are closed are not among those
    to write to, unless no other is left: a pilot that has a job's outputs must try somewhere.
    """
    description = {**queue.description, "maxwdir": queue.description.get("maxwdir") or QUEUE_DEFAULTS["maxwdir"]}
    if queue.excluded:
        description["astorages"] = {
            activity: _open(activity, names, queue.excluded) for activity, names in _items(description["astorages"])
        }
    return description


def _open(activity: str, names: object, closed: Mapping[str, str]) -> object:
    if closed_by(activity) == READ or not isinstance(names, list):
        return names
    return [name for name in names if name not in closed] or names


def _object(field: str, where: str, name: str, description: object) -> Description:
    if complaint := complaint_about_queue(name):
        raise BadField(field, f"has a bad name: {complaint}")
    if not isinstance(description, dict):
        raise BadField(where, f"must be an object with the description, not {shown(description)}")
    return description


def _check_state(state: str) -> None:
    if not state or len(state) > _STATE_LENGTH or not state.isprintable():
        raise BadField("state", f"must be a word like ACTIVE, not {shown(state)}")


def _check_activities(key: str, activities: object) -> None:
    for activity, names in _items(activities):
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise BadField(key, f"must be like {{'default': ['NAME']}}; {shown(activity)} has {shown(names)}")


def _check_offers(where: str, offers: object) -> None:
    """A list of protocols, in which a path may not lead out of the storage."""
    if not isinstance(offers, list) or not all(isinstance(offer, dict) for offer in offers):
        raise BadField(where, f"must be a list of {{'endpoint': ..., 'path': ...}}, not {shown(offers)}")
    for offer in offers:
        for key in ("endpoint", "path"):
            text = offer.get(key)
            if not isinstance(text, str) or has_control_characters(text):
                raise BadField(f"{where}.{key}", f"must be a text, not {shown(text)}")
            if ".." in unquote(text).split("/"):
                raise BadField(f"{where}.{key}", f"must not have '..' in it: {shown(text)}")


def _items(value: object) -> list[tuple[str, object]]:
    return list(value.items()) if isinstance(value, dict) else []


def _names(value: object) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


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
