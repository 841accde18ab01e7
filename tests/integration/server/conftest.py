"""For the server's integration tests: the databases that a server of a module can have."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.postgres import Postgres, require_postgres, running_postgres


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
