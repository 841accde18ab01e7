"""What is known of the files of the sandbox cache; the files themselves lie in the data directory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, select, update

from server.db.dialect import insert_into
from server.db.tables import cache_files


class CacheFile(NamedTuple):
    """A row of `cache_files`: size in bytes, checksum as panda-client computes it (see `logic.sandboxes`)."""

    name: str
    owner: str
    size: int
    checksum: int


_COLUMNS = tuple(cache_files.c[name] for name in CacheFile._fields)


def add_cache_file(connection: Connection, file: CacheFile, now: float) -> bool:
    """Enter a file; False if there is one of that name."""
    values = {**file._asdict(), "creationTime": now, "usedTime": now}
    statement = insert_into(connection, cache_files).values(values).on_conflict_do_nothing()
    return connection.execute(statement.returning(cache_files.c.name)).first() is not None


def find_cache_file(connection: Connection, name: str) -> CacheFile | None:
    """A file by name."""
    row = connection.execute(select(*_COLUMNS).where(cache_files.c.name == name)).first()
    return CacheFile._make(row) if row else None


def find_same_file(connection: Connection, owner: str, size: int, checksum: int) -> CacheFile | None:
    """The newest file of an owner with the same content."""
    query = (
        select(*_COLUMNS)
        .where(cache_files.c.size == size, cache_files.c.checksum == checksum, cache_files.c.owner == owner)
        .order_by(cache_files.c.creationTime.desc())
    )
    row = connection.execute(query).first()
    return CacheFile._make(row) if row else None


def mark_used(connection: Connection, name: str, now: float) -> None:
    """Note that a file is still wanted."""
    connection.execute(update(cache_files).where(cache_files.c.name == name).values(usedTime=now))


def find_unused(connection: Connection, unused_since: float, limit: int) -> list[str]:
    """Names of files nobody wanted since a time."""
    query = select(cache_files.c.name).where(cache_files.c.usedTime < unused_since).limit(limit)
    return list(connection.execute(query).scalars())


def remove_cache_files(connection: Connection, names: Sequence[str]) -> None:
    """Forget files."""
    connection.execute(delete(cache_files).where(cache_files.c.name.in_(names)))
