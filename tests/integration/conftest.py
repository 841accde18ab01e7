"""For integration tests: one server a module with a site on it, since starting one takes a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import RunningServer, pause_no_nodes, running_server
from tests.site import Site, add_site


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is below this folder: one run has these tests and a part of the unit tests."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("integration")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that nobody kills or stops. Pilots that find no job are sent away for a second only.

    Tests of failures are what a pause for nodes that only fail is made for: here they have none.
    """
    data = tmp_path_factory.mktemp("server")
    pause_no_nodes(data)
    with running_server(data, environment={"PILOTKIT_RETRY_AFTER": "1"}) as started:
        yield started


@pytest.fixture(scope="module")
def site(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Queue and storage on that server. The time floor lets a pilot run one job after the other."""
    return add_site(server.url, tmp_path_factory.mktemp("site"), timefloor=60)


@pytest.fixture
def rundir(tmp_path: Path) -> Path:
    """Where a pilot is started."""
    return tmp_path / "run"
