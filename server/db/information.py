"""Queues, storages, worker nodes and the configuration table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from server.db.dialect import insert_into
from server.db.jobs import batches
from server.db.tables import config, queue_history, queues, storages, worker_nodes

#: A description as JSON gives it.
Description = dict[str, object]


class Queue(NamedTuple):
    """A panda queue: its name, status, state, whole description, and {RSE: why} of storages it may not write to now."""

    name: str
    status: str
    state: str
    description: Description
    excluded: Mapping[str, str] | None = None


_QUEUE = tuple(queues.c[name] for name in Queue._fields)
_READ_QUEUE = select(*_QUEUE).where(queues.c.name == bindparam("name"))


def read_queue(connection: Connection, name: str) -> Queue | None:
    """A queue, or None if there is none of that name."""
    row = connection.execute(_READ_QUEUE, {"name": name}).first()
    return Queue._make(row) if row else None


def find_queues(connection: Connection, names: Iterable[str]) -> set[str]:
    """Those of the names that queues have."""
    found: set[str] = set()
    for some in batches(sorted(names)):
        found.update(connection.scalars(select(queues.c.name).where(queues.c.name.in_(some))))
    return found


def read_queue_to_change(connection: Connection, name: str) -> Queue | None:
    """The same in a writing transaction: nobody else changes the queue until it ends."""
    row = connection.execute(_READ_QUEUE.with_for_update(), {"name": name}).first()
    return Queue._make(row) if row else None


def read_queues(connection: Connection) -> list[Queue]:
    """All queues by name."""
    return [Queue._make(row) for row in connection.execute(select(*_QUEUE).order_by(queues.c.name))]


def store_queue(connection: Connection, queue: Queue, now: float) -> None:
    """Add a queue or replace its description."""
    values = {**queue._asdict(), "modificationTime": now}
    connection.execute(
        insert_into(connection, queues)
        .values(values)
        .on_conflict_do_update(index_elements=[queues.c.name], set_=values)
    )


def remove_queue(connection: Connection, name: str) -> None:
    """Remove a queue; its history stays."""
    connection.execute(delete(queues).where(queues.c.name == name))


def remove_storage(connection: Connection, name: str) -> None:
    """Remove a storage."""
    connection.execute(delete(storages).where(storages.c.name == name))


def set_excluded(connection: Connection, name: str, excluded: Mapping[str, str] | None) -> None:
    """Store which storages a queue may not write to now."""
    connection.execute(update(queues).where(queues.c.name == name).values(excluded=excluded))


def add_queue_history(connection: Connection, queue: Queue, now: float, actor: str, reason: str) -> None:
    """Note a queue's new status or state, and who gave it."""
    values = {"queue": queue.name, "status": queue.status, "state": queue.state, "time": now}
    connection.execute(insert(queue_history).values(**values, actor=actor[:128], reason=reason[:500]))


def read_queue_history(connection: Connection, name: str, limit: int) -> list[dict[str, str | float]]:
    """The last changes of a queue's status or state, the oldest first: time (s), status, state, actor, reason."""
    columns = [queue_history.c[key] for key in ("time", "status", "state", "actor", "reason")]
    query = select(*columns).where(queue_history.c.queue == name).order_by(queue_history.c.changeID.desc()).limit(limit)
    return [dict(row._mapping) for row in reversed(connection.execute(query).all())]


def read_storages(connection: Connection) -> dict[str, Description]:
    """All storage descriptions by RSE name."""
    rows = connection.execute(select(storages.c.name, storages.c.description).order_by(storages.c.name))
    return {row.name: row.description for row in rows}


def read_storage_to_change(connection: Connection, name: str) -> Description | None:
    """A storage's description in a writing transaction: nobody else changes it until that ends."""
    query = select(storages.c.description).where(storages.c.name == name).with_for_update()
    row = connection.execute(query).first()
    return row.description if row else None


def store_storage(connection: Connection, name: str, description: Description, now: float) -> None:
    """Add a storage or replace its description."""
    values = {"name": name, "description": description, "modificationTime": now}
    connection.execute(
        insert_into(connection, storages)
        .values(values)
        .on_conflict_do_update(index_elements=[storages.c.name], set_=values)
    )


def store_node(
    connection: Connection, site: str, host_name: str, kind: str, facts: Mapping[str, object], now: float
) -> None:
    """Store what a pilot says of the machine it runs on."""
    values = {"site": site, "host_name": host_name, "kind": kind, "facts": dict(facts), "modificationTime": now}
    keys = [worker_nodes.c.site, worker_nodes.c.host_name, worker_nodes.c.kind]
    connection.execute(
        insert_into(connection, worker_nodes)
        .values(values)
        .on_conflict_do_update(index_elements=keys, set_={"facts": dict(facts), "modificationTime": now})
    )


def remove_nodes(connection: Connection, before: float) -> int:
    """Forget machines that no pilot has told of since a time; returns how many rows."""
    return connection.execute(delete(worker_nodes).where(worker_nodes.c.modificationTime < before)).rowcount


def read_gpus(connection: Connection, sites: Iterable[str], host_name: str) -> list[tuple[str, str]]:
    """(vendor, model) of the GPUs that pilots have told of on a machine."""
    query = select(worker_nodes.c.kind).where(
        worker_nodes.c.site.in_(sorted(sites)),
        worker_nodes.c.host_name == host_name,
        worker_nodes.c.kind.startswith("gpu:", autoescape=True),
    )
    kinds = (str(kind).split(":", 2) for kind in connection.execute(query).scalars())
    return [(vendor, model) for _, vendor, model in kinds]


class ConfigValue(NamedTuple):
    """A row of the configuration table."""

    application: str
    component: str
    key: str
    vo: str
    value: str
    type: str
    description: str | None


_CONFIG = tuple(config.c[name] for name in ConfigValue._fields)
_CONFIG_KEYS = [config.c[name] for name in ("application", "component", "key", "vo")]


def read_config(connection: Connection) -> list[ConfigValue]:
    """All of the configuration table, by component, key and VO."""
    order = (config.c.component, config.c.key, config.c.vo, config.c.application)
    return [ConfigValue._make(row) for row in connection.execute(select(*_CONFIG).order_by(*order))]


def store_config(connection: Connection, value: ConfigValue) -> None:
    """Add a value or replace it."""
    values = value._asdict()
    connection.execute(
        insert_into(connection, config).values(values).on_conflict_do_update(index_elements=_CONFIG_KEYS, set_=values)
    )


def remove_config(connection: Connection, application: str, component: str, key: str, vo: str) -> bool:
    """Remove a value; False if there is none."""
    wanted = zip(_CONFIG_KEYS, (application, component, key, vo), strict=True)
    return connection.execute(delete(config).where(*(column == value for column, value in wanted))).rowcount == 1
