"""Resource types: the kinds of jobs that workers are made for, by cores and memory a core.

A job is of the first type it fits, and of 'Undefined' if it fits none: what is listed always ends with that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from server.db import resourcetypes
from server.db.database import Connection
from server.db.resourcetypes import ResourceType
from server.logic.context import Context
from server.logic.errors import BadField
from server.logic.names import shown

#: What fits nowhere (chapter 5.5.4 of PanDA's documents).
UNDEFINED = ResourceType("Undefined", 1, None, None, None)
#: PanDA's own types, which are those of a server that has been given none (2000 MB a core and more is "high memory").
STOCK = (
    ResourceType("SCORE", 1, 1, None, 2000),
    ResourceType("SCORE_HIMEM", 1, 1, 2001, None),
    ResourceType("MCORE", 2, None, None, 2000),
    ResourceType("MCORE_HIMEM", 2, None, 2001, None),
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,15}\Z")
_MOST_TYPES = 100
_LARGEST = 10**9


def read_types(connection: Connection) -> Sequence[ResourceType]:
    """The resource types in the order in which they are tried, in the caller's transaction."""
    return resourcetypes.read_types(connection) or STOCK


def type_of(types: Sequence[ResourceType], cores: int, memory: int) -> str:
    """The name of the resource type of a job.

    Args:
        memory: MB of the whole job; 0 if it did not say.
    """
    per_core = -(-memory // cores)  # rounded up: half a MB over the limit is over it
    found = next((kind for kind in types if _fits(kind, cores, per_core)), UNDEFINED)
    return found.resource_name


def _fits(kind: ResourceType, cores: int, per_core: int) -> bool:
    return _between(kind.mincore, cores, kind.maxcore) and _between(kind.minrampercore, per_core, kind.maxrampercore)


def _between(least: int | None, value: int, most: int | None) -> bool:
    return (least is None or least <= value) and (most is None or value <= most)


def listed(context: Context) -> list[dict[str, str | int | None]]:
    """The resource types as Harvester and pilots are told them, the catch-all last."""
    with context.database.reading() as connection:
        types = read_types(connection)
    return [kind._asdict() for kind in (*types, UNDEFINED)]


def set_types(context: Context, items: Sequence[object]) -> list[str]:
    """Set the resource types, in the order in which they are tried; none brings PanDA's own back. Returns their names.

    Jobs that are there keep the type that they have.

    Raises:
        BadField: one cannot be used; nothing was changed.
    """
    if len(items) > _MOST_TYPES:
        raise BadField("resource_types", f"has {len(items)} types; {_MOST_TYPES} is the most")
    types = [_checked(item) for item in items]
    types = [kind for kind in types if kind.resource_name != UNDEFINED.resource_name]
    names = [kind.resource_name for kind in types]
    if len(set(names)) < len(names):
        raise BadField("resource_types", "names a type twice")
    with context.database.durable() as connection:
        resourcetypes.store_types(connection, types)
    return names


def _checked(item: object) -> ResourceType:
    if not isinstance(item, dict) or item.keys() - set(ResourceType._fields):
        known = ", ".join(ResourceType._fields)
        raise BadField("resource_types", f"must be a list of objects with {known}, not of {shown(item)}")
    name = item.get("resource_name")
    if not isinstance(name, str) or not _NAME.match(name):
        raise BadField("resource_name", f"must be 1 to 16 letters, digits and _, not {shown(name)}")
    limits = []
    for key in ResourceType._fields[1:]:
        value = item.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST):
            raise BadField(key, f"of {name} must be a whole number or null, not {shown(value)}")
        limits.append(value)
    return ResourceType(name, *limits)
