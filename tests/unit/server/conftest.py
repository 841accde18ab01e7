"""For the server's unit tests: a dispatcher without HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.db.migrate import migrate
from tests.unit.server.dispatcher import Dispatcher, dispatcher_in


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables and nothing in them."""
    path = tmp_path_factory.mktemp("empty") / "pilotkit.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def dispatcher(tmp_path: Path, empty_database: Path) -> Iterator[Dispatcher]:
    """A dispatcher with one queue, on a database of its own."""
    with dispatcher_in(tmp_path, empty_database) as made:
        yield made
