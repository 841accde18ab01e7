"""The machines that jobs run on, as pilots describe them."""

from __future__ import annotations

from collections.abc import Mapping

from server.db import information
from server.logic.context import Context
from server.logic.errors import BadField

#: Longest name of anything here: the columns' own length.
_LENGTHS = {"site": 128, "host_name": 128}


def update_node(context: Context, site: str, host_name: str, kind: str, facts: Mapping[str, object]) -> None:
    """Store what a pilot says of the machine it runs on.

    Args:
        kind: "node", or "gpu:" with the vendor and model.

    Raises:
        BadField: a name is too long.
    """
    _check_lengths(site=site, host_name=host_name)
    with context.database.relaxed() as connection:
        information.store_node(connection, site, host_name, kind[:160], facts, context.clock())


def _check_lengths(**names: str) -> None:
    for name, value in names.items():
        if len(value) > _LENGTHS[name]:
            raise BadField(name, f"has {len(value)} characters; {_LENGTHS[name]} is the most")
