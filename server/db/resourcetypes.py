"""The table of resource types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select

from server.db.tables import resource_types


class ResourceType(NamedTuple):
    """A kind of jobs, by cores and memory; None is no limit. The fields are columns of `resource_types`.

    Attributes:
        minrampercore, maxrampercore: MB a core.
    """

    resource_name: str
    mincore: int | None
    maxcore: int | None
    minrampercore: int | None
    maxrampercore: int | None


def read_types(connection: Connection) -> list[ResourceType]:
    """The resource types in the order in which they are tried; none if nobody has set any."""
    query = select(*(resource_types.c[name] for name in ResourceType._fields)).order_by(resource_types.c.position)
    return [ResourceType._make(row) for row in connection.execute(query)]


def store_types(connection: Connection, types: Sequence[ResourceType]) -> None:
    """Store resource types in place of those that were there."""
    connection.execute(delete(resource_types))
    if types:
        rows = [{"position": position, **kind._asdict()} for position, kind in enumerate(types)]
        connection.execute(insert(resource_types), rows)
