"""Migrations, transactions and the statements that other databases must take too."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.dialects import postgresql

from server.db import dispatch, files, jobs, migrate, tables
from server.db.database import Database, Taken
from server.db.migrate import HEAD


def test_the_migrations_make_exactly_our_tables(empty_database: Path) -> None:
    engine = create_engine(f"sqlite:///{empty_database}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    engine.dispose()


def test_the_head_we_compare_with_is_the_newest_migration() -> None:
    assert ScriptDirectory(str(migrate._MIGRATIONS)).get_heads() == [HEAD]


def test_several_may_migrate_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/pilotkit.db"
    failures: list[Exception] = []

    def run() -> None:
        try:
            migrate.migrate(url)
        except Exception as error:  # whatever it is, the test shows it
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    engine = create_engine(url)
    with engine.connect() as connection:
        assert migrate.revision_of(connection) == HEAD
    engine.dispose()


def test_a_migrated_database_is_in_wal_mode_before_several_processes_open_it(empty_database: Path) -> None:
    """Those who switch it at the same moment are refused as "locked", however patient they are."""
    with contextlib.closing(sqlite3.connect(empty_database)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.fixture
def database(tmp_path: Path, empty_database: Path) -> Database:
    path = tmp_path / "pilotkit.db"
    path.write_bytes(empty_database.read_bytes())
    return Database(f"sqlite:///{path}")


def test_what_raises_is_undone(database: Database) -> None:
    with pytest.raises(RuntimeError), database.durable() as connection:
        jobs.reserve_ids(connection, "x", 5)
        raise RuntimeError
    with database.durable() as connection:
        assert jobs.reserve_ids(connection, "x", 5) == 1
        assert jobs.reserve_ids(connection, "x", 1) == 6
    database.close()


def test_writers_wait_for_each_other_and_readers_do_not(database: Database) -> None:
    begun, may_end = threading.Event(), threading.Event()
    order: list[str] = []

    def slow() -> None:
        with database.durable() as connection:
            jobs.reserve_ids(connection, "x", 1)
            begun.set()
            may_end.wait(10)
            order.append("slow")

    def quick() -> None:
        with database.relaxed() as connection:
            jobs.reserve_ids(connection, "x", 1)
            order.append("quick")

    first, second = threading.Thread(target=slow), threading.Thread(target=quick)
    first.start()
    begun.wait(10)
    second.start()
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM counters").scalar() == 0
    may_end.set()
    first.join()
    second.join()
    assert order == ["slow", "quick"]
    database.close()


def test_claims_are_on_disk_before_the_answer_and_heartbeats_need_not_be(database: Database) -> None:
    with database.durable() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    with database.relaxed() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
    database.close()


def test_a_name_is_promised_once(database: Database) -> None:
    with database.durable() as connection:
        files.promise(connection, 1, [("s", "a")], 0.0)
    with pytest.raises(Taken), database.durable() as connection:
        files.promise(connection, 2, [("s", "b"), ("s", "a")], 0.0)
    with database.reading() as connection:
        assert set(files.find_entries(connection, [("s", "a"), ("s", "b"), ("t", "a")])) == {("s", "a")}
    database.close()


def test_the_claim_skips_locked_rows_where_there_are_such() -> None:
    for statement in dispatch._CLAIM.values():
        text = str(statement.compile(dialect=postgresql.dialect()))
        assert "FOR UPDATE SKIP LOCKED" in text
        assert "\"jobStatus\" = 'activated'" in text
