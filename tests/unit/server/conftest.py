"""For the server's unit tests: a dispatcher without HTTP, on each of the databases.

The tests on PostgreSQL need a server: `make check` leaves them out, and they run with the integration tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import Postgres, is_installed, require_postgres, running_postgres
from tests.unit.server.configured import Configured, configured_in
from tests.unit.server.databases import EmptyDatabase, EmptyPostgres, EmptySqlite
from tests.unit.server.dispatcher import Dispatcher, dispatcher_in


@pytest.fixture(scope="session", autouse=True)
def started_postgres(request: pytest.FixtureRequest) -> Iterator[Postgres | None]:
    """The session's PostgreSQL, if a test is there that needs it and it is installed.

    For all tests, so that it is there before the first module is watched for what it leaves behind.
    """
    wanted = any(item.get_closest_marker("postgresql") for item in request.session.items)
    if not wanted or not is_installed():
        yield None
        return
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres(started_postgres: Postgres | None) -> Postgres:
    """The session's PostgreSQL; whoever asks for it is marked `postgresql`."""
    require_postgres()
    assert started_postgres is not None, "a test that needs PostgreSQL is not marked so"
    return started_postgres


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def empty_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EmptyDatabase:
    """A database with all tables and nothing in them."""
    if request.param == "sqlite":
        return EmptySqlite(tmp_path_factory.mktemp("empty"))
    return EmptyPostgres(request.getfixturevalue("postgres"))


@pytest.fixture
def dispatcher(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[Dispatcher]:
    """A dispatcher with one queue, on a database of its own."""
    with dispatcher_in(tmp_path, empty_database) as made:
        yield made


@pytest.fixture
def configured(tmp_path: Path, empty_database: EmptyDatabase, caplog: pytest.LogCaptureFixture) -> Iterator[Configured]:
    """A dispatcher with an information service."""
    with configured_in(tmp_path, empty_database, caplog) as made:
        yield made
