"""Transactions of SQLite, which this server begins by itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server.db import database as module
from server.db import jobs
from server.db.database import Connection, Database, DatabaseUnavailable
from server.db.tables import counters
from tests.unit.server.databases import EmptySqlite


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    url = EmptySqlite(tmp_path).make(tmp_path)
    made = Database(url, connections=2)
    yield made
    made.close()


def count(connection: Connection) -> int:
    return len(connection.execute(counters.select()).all())


def test_a_reader_sees_one_state_whatever_is_written_meanwhile(database: Database) -> None:
    with database.reading() as reader:
        before = count(reader)
        with database.durable() as writer:
            jobs.reserve_ids(writer, "x", 1)
        assert count(reader) == before
    with database.reading() as reader:
        assert count(reader) == before + 1


def test_a_database_that_another_program_holds_is_unavailable_and_works_again_afterwards(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT", 10)
    with closing(sqlite3.connect(str(database.url.database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for transaction in (database.durable, database.relaxed):
            with pytest.raises(DatabaseUnavailable, match="locked"), transaction() as connection:
                jobs.reserve_ids(connection, "x", 1)
        other.execute("ROLLBACK")
    for transaction in (database.durable, database.relaxed):
        with transaction() as connection:
            jobs.reserve_ids(connection, "x", 1)


def test_a_writer_has_the_database_from_its_first_moment(database: Database) -> None:
    """One that began as a reader could find its state overtaken, and would have to give up."""
    with (
        closing(sqlite3.connect(str(database.url.database), timeout=0.01)) as other,
        database.durable(),
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("BEGIN IMMEDIATE")
