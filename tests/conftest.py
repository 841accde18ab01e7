"""For all tests: nothing is left behind, neither by a test nor by the fixtures of a module or of the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.leaks import Snapshot, adopt_orphans, leaks_since


def pytest_configure() -> None:
    """Before the first test: from here on every orphaned descendant comes to this process."""
    adopt_orphans()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes many minutes, unless it is asked for."""
    if "soak" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


def _watch(what: str) -> Iterator[None]:
    before = Snapshot.take()
    yield
    leaks = leaks_since(before)
    if leaks:
        pytest.fail(f"{what} left behind:\n" + "\n".join(f"  - {leak}" for leak in leaks), pytrace=False)


@pytest.fixture(autouse=True, scope="session")
def the_session_leaves_nothing_behind() -> Iterator[None]:
    """Set up first and torn down last: whatever the fixtures of the session forget shows up here."""
    yield from _watch("the fixtures of the session")


@pytest.fixture(autouse=True, scope="module")
def a_module_leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    yield from _watch(f"the fixtures of {request.node.nodeid}")


@pytest.fixture(autouse=True)
def a_test_leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    yield from _watch(request.node.nodeid)
