"""The panda queues and storages this server knows: adding, changing and reading their descriptions."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from server.db import information
from server.db.database import Connection
from server.db.information import Description, Queue
from server.logic.context import Context
from server.logic.descriptions import (
    NAME_KEYS,
    QUEUE_DEFAULTS,
    checked_queue,
    checked_storage,
    remarks,
)
from server.logic.errors import BadField, NotFound
from server.logic.exclusions import closed_storages, exclude_closed, excluded_of
from server.logic.names import shown

#: Who changes a queue by hand, where there are no names.
_ADMINISTRATOR = "operator"
#: HS06 of a core where the queue's description does not say (corepower): about what the WLCG's cores have.
CORE_POWER = 10.0
#: Activities that say where outputs go, the most particular first.
_OUTPUT_ACTIVITIES = ("pw", "write_lan", "default")


@dataclass(frozen=True)
class Story:
    """When a queue was changed (s since 1970), who did it, and why."""

    time: float
    actor: str
    reason: str


def add_queues(context: Context, descriptions: Mapping[str, object], actor: str = _ADMINISTRATOR) -> list[str]:
    """Add queues or replace their descriptions, all or none.

    Args:
        actor: who does it, for the queues' history.

    Returns:
        What the site should know about them, in sentences.

    Raises:
        BadField: a name or description cannot be used.
    """
    queues = [checked_queue(name, description) for name, description in descriptions.items()]
    now = context.clock()
    with context.database.durable() as connection:
        closed = closed_storages(connection)
        for queue in queues:
            before = information.read_queue_to_change(connection, queue.name)
            store_queue(connection, before, queue, closed, Story(now, actor, "described by hand"))
        storages = information.read_storages(connection)
    return [remark for queue in queues for remark in remarks(queue, storages)]


def change_queue(
    context: Context, name: str, changes: Mapping[str, object], actor: str = _ADMINISTRATOR
) -> tuple[Description, list[str]]:
    """Change keys of a queue's description.

    Args:
        actor: who does it, for the queue's history.

    Returns:
        The new description, and what the site should know about it, in sentences.

    Raises:
        NotFound: there is no such queue.
        BadField: a key is not known, or its value cannot be used.
    """
    with context.database.durable() as connection:
        queue = information.read_queue_to_change(connection, name)
        if queue is None:
            raise NotFound(no_queue(name))
        for key in changes:
            if key in NAME_KEYS:
                raise BadField(key, "cannot be changed: it is the queue's name; add a queue of the new name instead")
            if key not in QUEUE_DEFAULTS and key not in queue.description:
                raise BadField(key, f"is no key of a queue description{_guess(key)}")
        changed = checked_queue(name, {**queue.description, **changes})
        story = Story(context.clock(), actor, f"set by hand: {', '.join(changes)}")
        store_queue(connection, queue, changed, closed_storages(connection), story)
        storages = information.read_storages(connection)
    return changed.description, remarks(changed, storages)


def store_queue(
    connection: Connection, before: Queue | None, queue: Queue, closed: Mapping[str, str], story: Story
) -> None:
    """Store a queue in the caller's transaction, with its history if its status or state is another now.

    Args:
        before: the queue as it was; None if it is new.
        closed: {RSE: why} of all storages to which nothing may be written.
    """
    information.store_queue(connection, queue._replace(excluded=excluded_of(queue.description, closed)), story.time)
    if before is None or (before.status, before.state) != (queue.status, queue.state):
        information.add_queue_history(connection, queue, story.time, story.actor, story.reason)


def read_queue(context: Context, name: str) -> Description:
    """The whole description of a queue.

    Raises:
        NotFound: there is no such queue.
    """
    with context.database.reading() as connection:
        queue = information.read_queue(connection, name)
    if queue is None:
        raise NotFound(no_queue(name))
    return queue.description


def read_queues(context: Context) -> dict[str, Description]:
    """All descriptions by name."""
    with context.database.reading() as connection:
        return {queue.name: queue.description for queue in information.read_queues(connection)}


def add_storages(context: Context, descriptions: Mapping[str, object]) -> list[str]:
    """Add storages or replace their descriptions, all or none; returns their names.

    Raises:
        BadField: a name or description cannot be used.
    """
    checked = {name: checked_storage(name, description) for name, description in descriptions.items()}
    now = context.clock()
    with context.database.durable() as connection:
        for name, description in checked.items():
            information.store_storage(connection, name, description, now)
        exclude_closed(connection)
    return list(checked)


def read_storages(context: Context) -> dict[str, Description]:
    """All storage descriptions by RSE."""
    with context.database.reading() as connection:
        return information.read_storages(connection)


def output_endpoint(queue: Queue) -> str:
    """The storage outputs of jobs in this queue go to: the first that is open; empty if the queue does not say."""
    return next((name for name in _output_endpoints(queue) if name not in (queue.excluded or {})), "")


def without_storage(queue: Queue) -> str:
    """Why outputs of this queue have no place to go to, in a sentence; empty if they have, or it names none."""
    named = list(dict.fromkeys(_output_endpoints(queue)))
    if not named or output_endpoint(queue):
        return ""
    reasons = "; ".join(f"{name}: {(queue.excluded or {}).get(name)}" for name in named)
    return f"every storage for the outputs of queue {queue.name} is closed for writing ({reasons})"


def _output_endpoints(queue: Queue) -> Iterator[str]:
    storages = queue.description.get("astorages")
    for activity in _OUTPUT_ACTIVITIES:
        endpoints = storages.get(activity) if isinstance(storages, dict) else None
        yield from (name for name in endpoints if isinstance(name, str)) if isinstance(endpoints, list) else ()


def number_of(description: Description, key: str) -> int:
    """A number of a description; 0 if there is none."""
    value = description.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def power_of(description: Description) -> float:
    """The HS06 of a core of this queue."""
    value = description.get("corepower")
    return float(value) if isinstance(value, int | float) and value > 0 else CORE_POWER


def _guess(key: str) -> str:
    near = difflib.get_close_matches(key, QUEUE_DEFAULTS, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def no_queue(name: str) -> str:
    """The sentence that there is no such queue."""
    return f"This server has no queue {shown(name)}. `pilotkit queue list` shows those it has."
