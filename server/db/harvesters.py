"""Harvester's instances, and what passes between them and this server: commands, dialogs, service metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Table, delete, insert, select, update

from server.db.dialect import insert_into
from server.db.jobs import Value
from server.db.tables import harvester_commands, harvester_dialogs, harvester_instances, harvester_metrics


class Instance(NamedTuple):
    """An instance as decisions see it; the fields are columns of `harvester_instances`."""

    harvesterID: str
    owner: str | None
    maxWorkerID: int
    lastUpdate: float


class Command(NamedTuple):
    """An order to an instance; the fields are columns of `harvester_commands`."""

    commandID: int
    harvesterID: str
    command: str
    params: object
    ackRequested: bool
    actor: str
    creationTime: float


_INSTANCE = tuple(harvester_instances.c[name] for name in Instance._fields)
_COMMAND = tuple(harvester_commands.c[name] for name in Command._fields)


def register(connection: Connection, harvester_id: str, owner: str | None, now: float) -> Instance:
    """The row of an instance, made now if it is new."""
    fresh = {"harvesterID": harvester_id, "owner": owner, "creationTime": now, "lastUpdate": now}
    connection.execute(insert_into(connection, harvester_instances).values(fresh).on_conflict_do_nothing())
    query = select(*_INSTANCE).where(harvester_instances.c.harvesterID == harvester_id)
    return Instance._make(connection.execute(query).one())


def change_instance(connection: Connection, harvester_id: str, values: Mapping[str, object]) -> None:
    """Change columns of an instance."""
    same = harvester_instances.c.harvesterID == harvester_id
    connection.execute(update(harvester_instances).where(same).values(dict(values)))


def raise_worker_id(connection: Connection, harvester_id: str, worker_id: int) -> None:
    """Note the highest number an instance has given to a worker."""
    highest = harvester_instances.c.maxWorkerID
    connection.execute(
        update(harvester_instances)
        .where(harvester_instances.c.harvesterID == harvester_id, highest < worker_id)
        .values(maxWorkerID=worker_id)
    )


def read_instances(connection: Connection) -> list[dict[str, object]]:
    """All instances by name."""
    query = select(harvester_instances).order_by(harvester_instances.c.harvesterID)
    return [dict(row._mapping) for row in connection.execute(query)]


def find_instance(connection: Connection, harvester_id: str) -> Instance | None:
    """An instance, or None if there is none of that name."""
    row = connection.execute(select(*_INSTANCE).where(harvester_instances.c.harvesterID == harvester_id)).first()
    return Instance._make(row) if row else None


def replace_commands(connection: Connection, harvester_id: str, command: str, now: float) -> None:
    """Take back commands of these words that nobody has fetched yet."""
    table = harvester_commands
    same = (table.c.harvesterID == harvester_id) & (table.c.status == "new") & (table.c.command == command)
    connection.execute(update(table).where(same).values(status="replaced", statusTime=now))


def add_command(connection: Connection, values: Mapping[str, object], now: float) -> int:
    """Store a command.

    Args:
        values: harvesterID, command, params, ackRequested and actor.
    """
    table = harvester_commands
    fresh = {**values, "status": "new", "creationTime": now, "statusTime": now}
    return int(connection.execute(insert(table).values(fresh).returning(table.c.commandID)).scalar_one())


def take_commands(connection: Connection, harvester_id: str, number: int, now: float) -> list[Command]:
    """Give new commands to their instance, at most `number`, the oldest first."""
    table = harvester_commands
    wanted = (
        select(table.c.commandID)
        .where(table.c.harvesterID == harvester_id, table.c.status == "new")
        .order_by(table.c.commandID)
        .limit(number)
        .with_for_update(skip_locked=True)  # SQLite, which has one writer at a time, leaves this out
    )
    ids = list(connection.execute(wanted).scalars())
    if not ids:
        return []
    rows = connection.execute(
        update(table).where(table.c.commandID.in_(ids)).values(status="retrieved", statusTime=now).returning(*_COMMAND)
    )
    return sorted((Command._make(row) for row in rows), key=lambda command: command.commandID)


def find_unacknowledged(connection: Connection, harvester_id: str, before: float, after: float) -> list[Command]:
    """Commands an instance has fetched before a time, and not acknowledged as it should; none older than `after`."""
    table = harvester_commands
    query = select(*_COMMAND).where(
        table.c.harvesterID == harvester_id,
        table.c.status == "retrieved",
        table.c.ackRequested,
        table.c.statusTime < before,
        table.c.creationTime > after,
    )
    return [Command._make(row) for row in connection.execute(query)]


def mark_commands(connection: Connection, command_ids: Iterable[int], status: str, now: float) -> int:
    """Bring commands that have been fetched into another state; returns how many there were."""
    table = harvester_commands
    same = table.c.commandID.in_(list(command_ids)) & (table.c.status == "retrieved")
    return connection.execute(update(table).where(same).values(status=status, statusTime=now)).rowcount


def owners_of_commands(connection: Connection, command_ids: Iterable[int]) -> set[str]:
    """The instances that these commands are for."""
    table = harvester_commands
    return set(
        connection.execute(
            select(table.c.harvesterID).where(table.c.commandID.in_(list(command_ids))).distinct()
        ).scalars()
    )


def find_commands(connection: Connection, harvester_id: str | None, limit: int) -> list[dict[str, object]]:
    """The newest commands, newest first."""
    query = select(harvester_commands).order_by(harvester_commands.c.commandID.desc()).limit(limit)
    if harvester_id is not None:
        query = query.where(harvester_commands.c.harvesterID == harvester_id)
    return [dict(row._mapping) for row in connection.execute(query)]


def add_dialogs(connection: Connection, rows: Sequence[Mapping[str, Value]]) -> None:
    """Store messages of an instance's log; one that is there already stays."""
    if rows:
        statement = insert_into(connection, harvester_dialogs).on_conflict_do_nothing()
        connection.execute(statement, [dict(row) for row in rows])


def find_dialogs(
    connection: Connection, harvester_id: str | None, level: str | None, limit: int
) -> list[dict[str, object]]:
    """The newest messages, newest first."""
    table = harvester_dialogs
    query = select(table).order_by(table.c.creationTime.desc(), table.c.diagID.desc()).limit(limit)
    if harvester_id is not None:
        query = query.where(table.c.harvesterID == harvester_id)
    if level is not None:
        query = query.where(table.c.messageLevel == level)
    return [dict(row._mapping) for row in connection.execute(query)]


def add_metrics(connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Store service metrics; those of a host and time that are there already stay."""
    if rows:
        statement = insert_into(connection, harvester_metrics).on_conflict_do_nothing()
        connection.execute(statement, [dict(row) for row in rows])


def find_metrics(connection: Connection, harvester_id: str | None, limit: int) -> list[dict[str, object]]:
    """The newest service metrics, newest first."""
    query = select(harvester_metrics).order_by(harvester_metrics.c.creationTime.desc()).limit(limit)
    if harvester_id is not None:
        query = query.where(harvester_metrics.c.harvesterID == harvester_id)
    return [dict(row._mapping) for row in connection.execute(query)]


def remove_old(connection: Connection, before: float) -> None:
    """Remove commands, dialogs and metrics made before a time."""
    tables: tuple[Table, ...] = (harvester_commands, harvester_dialogs, harvester_metrics)
    for table in tables:
        connection.execute(delete(table).where(table.c.creationTime < before))
