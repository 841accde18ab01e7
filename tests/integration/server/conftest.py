"""For the server's integration tests: the module's server, on each of the databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.postgres import Postgres, require_postgres, running_postgres
from tests.servers import RunningServer, running_server


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """The module's PostgreSQL."""
    require_postgres()
    with running_postgres() as started:
        yield started


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def make_database(request: pytest.FixtureRequest) -> Callable[[str], dict[str, str]]:
    """Name -> the settings of a server with a database of that name."""
    if request.param == "sqlite":
        return lambda _name: {}
    server: Postgres = request.getfixturevalue("postgres")
    return lambda name: {"PILOTKIT_DATABASE": server.create(name)}


@pytest.fixture(scope="module")
def server(
    make_database: Callable[[str], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server on one of the databases that nobody kills or stops."""
    environment = {"PILOTKIT_RETRY_AFTER": "1", **make_database("common")}
    with running_server(tmp_path_factory.mktemp("server"), environment=environment) as started:
        yield started
