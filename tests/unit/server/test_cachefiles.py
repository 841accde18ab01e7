"""The files below /cache/: served and written, they are the same."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from server.daemon.scripts import configurator
from server.db.information import ConfigValue
from server.logic import configuration, queues, removal
from server.logic.cachefiles import cache_file, write_cache_files
from server.logic.context import ANYBODY, Context
from server.logic.errors import NotFound
from tests.unit.server.dispatcher import QUEUE, Dispatcher

ENDINGS = (".all.json", ".pilot.json", ".factory.json", ".pilot.pilot")


@pytest.fixture
def writing(dispatcher: Dispatcher, tmp_path: Path) -> Context:
    """A dispatcher that is to write its files."""
    queues.add_storages(dispatcher.context, {"DISK": {"site": "SITE"}})
    settings = replace(dispatcher.context.settings, cache_dir=str(tmp_path / "cache"))
    return replace(dispatcher.context, settings=settings)


def files(context: Context) -> dict[str, bytes]:
    folder = Path(context.settings.cache_dir)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_is_what_is_served(writing: Context) -> None:
    assert configurator.run(writing, ["--json_dump"]) is False
    written = files(writing)
    assert written.keys() == {
        "ddmendpoints.json",
        "schedconfig/schedconfig.all.json",
        "schedconfig/pilot_gdp_config.json",
        *(f"schedconfig/{QUEUE}{ending}" for ending in ENDINGS),
    }
    for path, content in written.items():
        assert cache_file(writing, path).encode() == content
    assert json.loads(written["ddmendpoints.json"])["DISK"]["site"] == "SITE"
    assert json.loads(written["schedconfig/schedconfig.all.json"])[QUEUE]["name"] == QUEUE
    assert f"nickname={QUEUE}|" in written[f"schedconfig/{QUEUE}.pilot.pilot"].decode()


def test_only_what_has_changed_is_written(writing: Context) -> None:
    assert write_cache_files(writing) == 7
    assert write_cache_files(writing) == 0
    folder = Path(writing.settings.cache_dir)
    untouched = (folder / "ddmendpoints.json").stat()
    queues.change_queue(writing, QUEUE, {"status": "offline"})
    assert write_cache_files(writing) == 5
    assert (folder / "ddmendpoints.json").stat() == untouched
    assert all(json.loads(files(writing)[f"schedconfig/{QUEUE}{e}"])["status"] == "offline" for e in ENDINGS[:3])
    assert not [path for path in files(writing) if ".new-" in path]


def test_the_files_of_a_queue_that_was_removed_go_and_no_others(writing: Context) -> None:
    queues.add_queues(writing, {"OLD": {}})
    write_cache_files(writing)
    (Path(writing.settings.cache_dir) / "schedconfig" / "readme.txt").write_text("not ours")
    removal.remove_queue(writing, "OLD", ANYBODY)
    assert write_cache_files(writing) == 1 + len(ENDINGS)
    assert "schedconfig/readme.txt" in files(writing)
    assert not [path for path in files(writing) if "OLD" in path]


def test_whoever_reads_meanwhile_has_the_whole_old_file(writing: Context) -> None:
    write_cache_files(writing)
    path = Path(writing.settings.cache_dir) / "ddmendpoints.json"
    with path.open() as reader:
        queues.add_storages(writing, {"OTHER": {}})
        assert write_cache_files(writing) == 1
        assert list(json.load(reader)) == ["DISK"]
    assert list(json.loads(path.read_text())) == ["DISK", "OTHER"]


def test_pilots_get_the_operators_values_for_them_in_their_types(writing: Context) -> None:
    for component, key, value, kind in (
        ("memory", "LIMIT", "5", "int"),
        ("memory", "FACTOR", "1.5", "float"),
        ("log", "LONG", "yes", "bool"),
        ("log", "WORD", "x", "str"),
    ):
        configuration.set_value(writing, ConfigValue("pilot", component, key, "", value, kind, None))
    configuration.set_value(writing, ConfigValue("pandaserver", "watcher", "TIMEOUT_sent", "", "1", "float", None))
    rows = json.loads(cache_file(writing, "schedconfig/pilot_gdp_config.json"))
    assert {row["key"]: row["value"] for row in rows} == {"LIMIT": 5, "FACTOR": 1.5, "LONG": True, "WORD": "x"}
    assert rows[0].keys() == {"component", "key", "vo", "value", "type", "description"}


def test_a_directory_that_cannot_be_written_is_one_line(writing: Context, caplog: pytest.LogCaptureFixture) -> None:
    Path(writing.settings.cache_dir).write_text("in the way")
    with caplog.at_level(logging.ERROR):
        assert configurator.run(writing, ["--json_dump"]) is False
    (record,) = caplog.records
    assert "cannot be written" in record.getMessage()


def test_without_a_directory_nothing_is_written(dispatcher: Dispatcher) -> None:
    assert write_cache_files(dispatcher.context) == 0


@pytest.mark.parametrize("name", ["nothing", "NOPE.all.json", ".all.json", "../x.all.json"])
def test_a_file_that_is_not_there_is_not_found(writing: Context, name: str) -> None:
    with pytest.raises(NotFound):
        cache_file(writing, f"schedconfig/{name}")
