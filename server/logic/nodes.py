"""The machines that jobs run on, as pilots describe them, and which of them have a pause."""

from __future__ import annotations

from collections.abc import Mapping

from server.db import information
from server.db import nodes as node_records
from server.logic.context import Context
from server.logic.dispatch import iso_time
from server.logic.errors import BadField, NotFound
from server.logic.names import shown
from server.logic.throttle import host_of, pauses_hold

#: s after which nodes that have been quiet are forgotten.
_FORGOTTEN_AFTER = 86400
#: s after which machines that no pilot has told of are forgotten.
_GONE_AFTER = 30 * 86400
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


def list_failing_nodes(context: Context) -> list[dict[str, object]]:
    """The nodes on which jobs have failed since the last one finished there, those with a pause first."""
    now, hold = context.clock(), pauses_hold(context)
    with context.database.reading() as connection:
        records = node_records.list_records(connection)
    paused = {record for record in records if hold and (record.throttledUntil or 0.0) > now}
    records.sort(key=lambda record: record not in paused)
    return [
        {
            "queue": record.computingSite,
            "host": record.host,
            "failures": record.failures,
            "last_failure": iso_time(record.failedTime),
            "throttled_until": iso_time(record.throttledUntil) if record in paused else None,
            "reason": record.reason,
        }
        for record in records
    ]


def lift_pause(context: Context, queue: str, host: str) -> None:
    """Forget a node's failures, so that it gets jobs again.

    Raises:
        NotFound: nothing is remembered of it.
    """
    with context.database.durable() as connection:
        found = node_records.forget_node(connection, queue, host_of(host))
    context.policy.forget()
    if not found:
        raise NotFound(f"No failures are noted of {shown(host)} in queue {shown(queue)}: it has no pause.")


def forget_quiet_nodes(context: Context) -> int:
    """Forget failures of nodes that have been quiet for a day, and machines not told of for a month; returns how many
    nodes were quiet.
    """
    with context.database.durable() as connection:
        information.remove_nodes(connection, context.clock() - _GONE_AFTER)
        return node_records.forget_quiet_nodes(connection, context.clock() - _FORGOTTEN_AFTER)
