"""The daemon's configuration, in the form of PanDA's documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.daemon.config import DEFAULTS, read_scripts
from server.daemon.worker import load
from server.db import locks
from server.settings import ConfigurationError
from tests.unit.server.dispatcher import Dispatcher


def config(folder: Path, content: object) -> str:
    path = folder / "daemon.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_our_own_scripts_run_without_a_file_and_all_of_them_are_there() -> None:
    scripts = read_scripts("")
    assert [script.name for script in scripts] == list(DEFAULTS)
    for script in scripts:
        assert callable(load(script))


def test_a_file_changes_adds_and_switches_off(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        {
            "add_main": {"period": 240},
            "tmpwatch": {"enable": False},
            "mine": {"module": "watcher", "period": 200, "arguments": ["--network", 5], "sync": True},
        },
    )
    scripts = {script.name: script for script in read_scripts(path)}
    assert "tmpwatch" not in scripts
    assert (scripts["add_main"].period, scripts["add_main"].loop) == (240, True)
    mine = scripts["mine"]
    assert (mine.module, mine.arguments, mine.sync, mine.loop, mine.timeout) == (
        "watcher",
        ("--network", "5"),
        True,
        False,
        600,
    )


def test_the_time_out_is_at_most_an_hour_longer_than_the_period(tmp_path: Path) -> None:
    (script,) = [s for s in read_scripts(config(tmp_path, {"x": {"period": 10_000}})) if s.name == "x"]
    assert script.timeout == 13_600


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        {"x": 5},
        {"x": {}},
        {"x": {"period": 0}},
        {"x": {"period": "often"}},
        {"x": {"period": True}},
        {"x": {"period": 5, "enable": "yes"}},
        {"x": {"period": 5, "arguments": "a"}},
        {"x": {"period": 5, "colour": "red"}},
    ],
)
def test_a_bad_entry_is_refused_by_its_name(tmp_path: Path, content: object) -> None:
    with pytest.raises(ConfigurationError, match="daemon configuration"):
        read_scripts(config(tmp_path, content))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_scripts(str(tmp_path / "none.json"))


def test_a_synchronised_script_runs_on_one_machine_and_once_a_period(dispatcher: Dispatcher) -> None:
    def turn(owner: str, now: float) -> bool:
        with dispatcher.context.database.durable() as connection:
            return locks.take_turn(connection, "script", owner, 100, 50, now)

    assert turn("a", 1000)
    assert not turn("b", 1001)
    with dispatcher.context.database.durable() as connection:
        locks.give_back(connection, "script", "b")
        locks.give_back(connection, "script", "a")
    assert not turn("b", 1099)
    assert turn("b", 1100)
    assert not turn("a", 1149)
    assert turn("a", 1200)  # b never gave it back: its time-out did
