"""Workers, the machines they run on, and the resource types jobs are sorted into."""

from __future__ import annotations

from collections.abc import Mapping

from server.db import information
from server.logic.context import Context
from server.logic.errors import BadField
from server.logic.names import shown

#: PanDA's resource types (RAM in MB a core); what fits nowhere is Undefined.
RESOURCE_TYPES: tuple[dict[str, str | int | None], ...] = (
    {"resource_name": "SCORE", "mincore": 1, "maxcore": 1, "minrampercore": None, "maxrampercore": 2000},
    {"resource_name": "SCORE_HIMEM", "mincore": 1, "maxcore": 1, "minrampercore": 2001, "maxrampercore": None},
    {"resource_name": "MCORE", "mincore": 2, "maxcore": None, "minrampercore": None, "maxrampercore": 2000},
    {"resource_name": "MCORE_HIMEM", "mincore": 2, "maxcore": None, "minrampercore": 2001, "maxrampercore": None},
)
_WORKER_STATUSES = ("started", "finished")
#: Longest name of anything here: the columns' own length.
_LENGTHS = {"harvester_id": 64, "worker_id": 64, "site": 128, "host_name": 128, "node_id": 128}


def update_worker(context: Context, *, harvester_id: str, worker_id: str, status: str, site: str, node_id: str) -> None:
    """Note that the pilot of a worker has started or finished; a worker we did not know is added.

    Raises:
        BadField: the status is another word, or a name is too long.
    """
    if status not in _WORKER_STATUSES:
        raise BadField("status", f"must be {' or '.join(_WORKER_STATUSES)}, not {shown(status)}")
    _check_lengths(harvester_id=harvester_id, worker_id=worker_id, site=site, node_id=node_id)
    now = context.clock()
    values: dict[str, str | float | None] = {"status": status, "site": site, "modificationTime": now}
    values["startTime" if status == "started" else "endTime"] = now
    if node_id:
        values["nodeID"] = node_id
    with context.database.durable() as connection:
        information.store_worker(connection, harvester_id, worker_id, values)


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
