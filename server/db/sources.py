"""The information service's sources and what each said last of every name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, delete, select, update

from server.db.dialect import insert_into
from server.db.jobs import batches
from server.db.tables import source_entries, sources


class SourceState(NamedTuple):
    """How it stands with a source; times in seconds since 1970.

    Attributes:
        complaints: about entries of the last answer that was taken over, one a line.
        failure: why the last request gave nothing that could be used; empty if it did.
    """

    name: str
    address: str
    validator: str
    digest: str
    entries: int
    fetchedTime: float | None
    checkedTime: float
    complaints: str
    failure: str


class SourceEntry(NamedTuple):
    """What a source said of a name, since when it says so, and since when it says nothing any more."""

    name: str
    entry: object
    modificationTime: float
    vanishedTime: float | None


_STATE = tuple(sources.c[name] for name in SourceState._fields)
_ENTRY = tuple(source_entries.c[name] for name in SourceEntry._fields)


def read_sources(connection: Connection) -> list[SourceState]:
    """All sources that were ever asked."""
    return [SourceState._make(row) for row in connection.execute(select(*_STATE).order_by(sources.c.name))]


def read_source(connection: Connection, name: str) -> SourceState | None:
    """A source, or None if it was never asked."""
    row = connection.execute(select(*_STATE).where(sources.c.name == name)).first()
    return SourceState._make(row) if row else None


def store_source(connection: Connection, state: SourceState) -> None:
    """Store how it stands with a source."""
    values = state._asdict()
    connection.execute(
        insert_into(connection, sources)
        .values(values)
        .on_conflict_do_update(index_elements=[sources.c.name], set_=values)
    )


def read_entries(connection: Connection, source: str) -> dict[str, SourceEntry]:
    """All that a source says or has said, by name."""
    query = select(*_ENTRY).where(source_entries.c.source == source).order_by(source_entries.c.name)
    return {row.name: SourceEntry._make(row) for row in connection.execute(query)}


def read_entry(connection: Connection, source: str, name: str) -> SourceEntry | None:
    """What a source says or has said of a name; None if nothing."""
    query = select(*_ENTRY).where(source_entries.c.source == source, source_entries.c.name == name)
    row = connection.execute(query).first()
    return SourceEntry._make(row) if row else None


def store_entries(connection: Connection, source: str, entries: Mapping[str, object], now: float) -> None:
    """Store what a source says of names; they have not vanished, then."""
    rows = [
        {"source": source, "name": name, "entry": entry, "modificationTime": now, "vanishedTime": None}
        for name, entry in entries.items()
    ]
    if not rows:
        return
    statement = insert_into(connection, source_entries)
    changed = {key: statement.excluded[key] for key in ("entry", "modificationTime", "vanishedTime")}
    keys = [source_entries.c.source, source_entries.c.name]
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)


def mark_vanished(connection: Connection, source: str, names: Collection[str], now: float) -> None:
    """Note that a source says nothing of these names any more."""
    for some in batches(list(names)):
        connection.execute(
            update(source_entries)
            .where(source_entries.c.source == source, source_entries.c.name.in_(some))
            .values(vanishedTime=now)
        )


def remove_entries(connection: Connection, source: str, names: Collection[str]) -> None:
    """Forget what a source said of these names."""
    for some in batches(list(names)):
        connection.execute(
            delete(source_entries).where(source_entries.c.source == source, source_entries.c.name.in_(some))
        )
