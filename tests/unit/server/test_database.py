"""Migrations, transactions and the statements that other databases must take too."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.dialects import postgresql

from server.db import dispatch, files, jobs, migrate, tables
from server.db.database import Database, DatabaseUnavailable, DatabaseUnusable, Taken, Unstorable
from server.db.files import Promise
from server.db.migrate import HEAD
from tests.components import PATIENCE
from tests.postgres import Postgres
from tests.unit.server.databases import EmptyDatabase, EmptyPostgres


def test_the_migrations_make_exactly_our_tables(empty_database: EmptyDatabase, tmp_path: Path) -> None:
    engine = create_engine(empty_database.put_into(tmp_path))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    engine.dispose()


def test_the_head_we_compare_with_is_the_newest_migration() -> None:
    assert ScriptDirectory(str(migrate._MIGRATIONS)).get_heads() == [HEAD]


def test_several_may_migrate_at_once(empty_database: EmptyDatabase, tmp_path: Path) -> None:
    url = empty_database.make(tmp_path / "new")
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


def test_a_migrated_database_is_in_wal_mode_before_several_processes_open_it(tmp_path: Path) -> None:
    """Those who switch it at the same moment are refused as "locked", however patient they are."""
    migrate.migrate(f"sqlite:///{tmp_path}/pilotkit.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "pilotkit.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.postgresql
def test_a_database_that_cannot_hold_our_tables_is_refused_in_a_sentence(postgres: Postgres) -> None:
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'secret'")
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    of_guest = postgres.url("postgres").replace("postgres@", "guest:secret@", 1)
    for url, says in (
        (postgres.url("nosuch"), r'database "nosuch" does not exist\. PostgreSQL must be running there'),
        (of_guest, r"permission denied for schema public\. PostgreSQL must be running there"),
        (postgres.url("latin"), "its encoding is LATIN1 and must be UTF8"),
    ):
        with pytest.raises(DatabaseUnusable, match=says) as caught:
            migrate.migrate(url)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.postgresql
def test_a_value_that_does_not_fit_its_column_is_told_from_a_database_that_is_away(
    postgres: Postgres, tmp_path: Path
) -> None:
    database = Database(EmptyPostgres(postgres).put_into(tmp_path))
    for name in ("x" * 33, "a\x00b"):
        with pytest.raises(Unstorable), database.durable() as connection:
            jobs.reserve_ids(connection, name, 1)
    with pytest.raises(Unstorable) as caught, database.durable() as connection:
        connection.exec_driver_sql("""SELECT CAST('{"password": Infinity}' AS json)""")
    assert str(caught.value) == "invalid input syntax for type json", "and no piece of the value"
    database.close()


@pytest.mark.postgresql
def test_a_connection_that_postgresql_lost_costs_one_transaction_and_is_made_again(
    postgres: Postgres, tmp_path: Path
) -> None:
    database = Database(EmptyPostgres(postgres).put_into(tmp_path))
    with pytest.raises(DatabaseUnavailable), database.durable() as connection, postgres.connect() as other:
        jobs.reserve_ids(connection, "x", 5)
        other.execute(
            "SELECT pg_terminate_backend(%s, 10000)", [connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()]
        )
        jobs.reserve_ids(connection, "x", 5)
    with database.durable() as connection:
        assert jobs.reserve_ids(connection, "x", 5) == 1
    with postgres.connect() as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'pilotkit'"
        )
    with database.durable() as connection:
        assert jobs.reserve_ids(connection, "x", 5) == 6
    database.close()


@pytest.mark.postgresql
def test_a_class_that_is_removed_while_it_is_wanted_again_is_made_anew(postgres: Postgres, tmp_path: Path) -> None:
    """A job of a class that is not there would never be given to anybody."""
    database = Database(EmptyPostgres(postgres).put_into(tmp_path))
    numbers = ("coreCount", "minRamCount", "maxDiskCount", "maxWalltime")
    wanted: dict[str, jobs.Value] = {name: 1 if name in numbers else "x" for name in tables.CLASS_COLUMNS}
    found: list[int] = []

    def want() -> None:
        with database.durable() as connection:
            found.append(dispatch.class_of(connection, wanted, 200_000.0))

    with database.durable() as connection:
        dispatch.class_of(connection, wanted, 0.0)
    other = threading.Thread(target=want)
    with database.durable() as connection, postgres.connect() as watcher:
        assert dispatch.remove_unused_classes(connection, 100_000.0) == 1
        other.start()
        until = time.monotonic() + PATIENCE
        while not watcher.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchall():
            assert time.monotonic() < until, "the other does not wait for us"
    other.join()
    with database.reading() as connection:
        classes = connection.exec_driver_sql('SELECT "classID" FROM job_classes').scalars().all()
    assert classes == found
    database.close()


@pytest.fixture
def database(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[Database]:
    made = Database(empty_database.put_into(tmp_path))
    yield made
    made.close()


def test_what_raises_is_undone(database: Database) -> None:
    with pytest.raises(RuntimeError), database.durable() as connection:
        jobs.reserve_ids(connection, "x", 5)
        raise RuntimeError
    with database.durable() as connection:
        assert jobs.reserve_ids(connection, "x", 5) == 1
        assert jobs.reserve_ids(connection, "x", 1) == 6


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


def test_claims_are_on_disk_before_the_answer_and_heartbeats_need_not_be(database: Database) -> None:
    ask, durable, relaxed = (
        ("PRAGMA synchronous", 2, 1) if database.is_sqlite else ("SHOW synchronous_commit", "on", "off")
    )
    with database.durable() as connection:
        assert connection.exec_driver_sql(ask).scalar() == durable
    with database.relaxed() as connection:
        assert connection.exec_driver_sql(ask).scalar() == relaxed


def test_a_reader_sees_one_state_while_others_write(database: Database) -> None:
    count = "SELECT count(*) FROM counters"
    with database.reading() as reader:
        assert reader.exec_driver_sql(count).scalar() == 0
        with database.durable() as connection:
            jobs.reserve_ids(connection, "x", 1)
        assert reader.exec_driver_sql(count).scalar() == 0
    with database.reading() as reader:
        assert reader.exec_driver_sql(count).scalar() == 1


def test_a_new_counter_that_several_want_at_once_is_made_once(database: Database) -> None:
    taken: list[int] = []

    def take() -> None:
        with database.durable() as connection:
            taken.append(jobs.reserve_ids(connection, "new", 3))

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [1, 4, 7, 10, 13, 16]


def test_a_name_is_promised_once(database: Database) -> None:
    with database.durable() as connection:
        files.promise(connection, [Promise("s", "a", None, 1, "me")], 0.0)
    with pytest.raises(Taken), database.durable() as connection:
        files.promise(connection, [Promise("s", name, None, 2, "me") for name in "ba"], 0.0)
    with database.reading() as connection:
        assert set(files.find_entries(connection, [("s", "a"), ("s", "b"), ("t", "a")])) == {("s", "a")}


def test_the_claim_skips_locked_rows_where_there_are_such() -> None:
    for statement in dispatch._CLAIM.values():
        text = str(statement.compile(dialect=postgresql.dialect()))
        assert "FOR UPDATE SKIP LOCKED" in text
        assert "\"jobStatus\" = 'activated'" in text


def test_a_failed_statement_says_nothing_of_its_values(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(DatabaseUnavailable) as caught, database.durable() as connection:
        jobs.reserve_ids(connection, "something-secret", 1)
    database.close()
    assert "no such table" in str(caught.value)
    assert "something-secret" not in f"{caught.value} {caught.value.__cause__}"
