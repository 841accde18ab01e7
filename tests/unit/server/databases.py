"""The databases that the server's tests run on: each is given out empty, with all tables."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg import sql

from server.db.migrate import migrate
from tests.postgres import Postgres

_NAME = "unit"
# Bytes of an identifier in PostgreSQL.
_LONGEST = 63
# The days of the archive, which are made when they are needed.
_DAYS = "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid AND relkind = 'r'"


class EmptyDatabase(Protocol):
    """A database with all tables and nothing in them, as often as it is wanted; one at a time."""

    def put_into(self, folder: Path) -> str:
        """An empty database for a server with this data directory; its URL."""

    def make(self, folder: Path) -> str:
        """One without tables, for a server with this data directory; its URL."""


class EmptySqlite:
    """Copies of one file: migrating takes longer."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "pilotkit.db"
        migrate(f"sqlite:///{self._file}")

    def put_into(self, folder: Path) -> str:
        copy = folder / "pilotkit.db"
        shutil.copy(self._file, copy)
        return f"sqlite:///{copy}"

    def make(self, folder: Path) -> str:
        return f"sqlite:///{folder / 'pilotkit.db'}"


class EmptyPostgres:
    """One database that is emptied: making another takes longer than most tests."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._url = server.url(_NAME) if server.has(_NAME) else server.create(_NAME)
        migrate(self._url)

    def put_into(self, folder: Path) -> str:
        with self._server.connect(_NAME) as connection:
            for (day,) in connection.execute(_DAYS).fetchall():
                connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(day)))
            tables = _tables(connection)
            connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(sql.SQL(", ").join(tables)))
        return self._url

    def make(self, folder: Path) -> str:
        return self._server.create(str(folder)[-_LONGEST:])


def _tables(connection: psycopg.Connection) -> list[sql.Identifier]:
    rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return [sql.Identifier(name) for (name,) in rows if name != "alembic_version"]
