"""The configurator, with an information service that answers well, badly or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from server.daemon.scripts import configurator
from server.db import network, sources
from server.db.information import ConfigValue
from server.db.network import Link
from server.logic import configuration, queues
from server.logic.cric import merged
from tests.cric import Page
from tests.unit.server.configured import Configured
from tests.unit.server.dispatcher import QUEUE, Dispatcher, for_pilots


def test_queues_and_storages_are_described_as_the_service_says(configured: Configured) -> None:
    assert configured.run() == []
    assert configured.queue("Q1")["corecount"] == 8
    assert configured.queue("Q2")["status"] == "test"
    assert queues.read_storages(configured.dispatcher.context)["DISK"]["site"] == "SITE"
    assert configured.history("Q2") == [("test", "ACTIVE", "configurator")]
    assert configured.queue(QUEUE)["state"] == "ACTIVE", "what was described by hand stays"


def test_only_what_is_new_is_asked_for_and_written(configured: Configured) -> None:
    configured.says("queues", {"Q1": {"corecount": 8}}, etag='"1"')
    configured.run()
    with configured.dispatcher.context.database.reading() as connection:
        first = sources.read_entry(connection, "queues", "Q1")
    configured.run()
    configured.says("queues", {"Q1": {"corecount": 8}, "Q2": {}}, etag='"2"')
    configured.run()
    with configured.dispatcher.context.database.reading() as connection:
        assert sources.read_entry(connection, "queues", "Q1") == first
        state = sources.read_source(connection, "queues")
    assert state is not None
    assert (state.entries, state.checkedTime) == (2, configured.dispatcher.clock.now)
    assert [status for path, status in configured.cric.asked if path == "/queues"] == [200, 304, 200]


def test_a_new_status_counts_at_the_next_getjob_and_is_in_the_history(configured: Configured) -> None:
    configured.run()
    configured.dispatcher.submit({"queue": "Q1"})
    configured.says("queues", {"Q1": {"corecount": 8, "status": "offline"}, "Q2": {"status": "test"}})
    configured.run()
    assert configured.dispatcher.no_job(queue="Q1").reason == "queue_offline"
    configured.says("queues", {"Q1": {"corecount": 8, "status": "online"}, "Q2": {"status": "test"}})
    configured.run()
    assert configured.dispatcher.get_job(queue="Q1")["PandaID"]
    assert [status for status, _, _ in configured.history("Q1")] == ["online", "offline", "online"]


def test_a_queue_that_vanishes_is_inactive_and_comes_back_as_it_is_described_then(configured: Configured) -> None:
    configured.says("queues", {"Q1": {"corecount": 8}, "Q2": {}, "Q3": {}})
    configured.run()
    configured.dispatcher.submit({"queue": "Q1"})
    configured.says("queues", {"Q2": {}, "Q3": {}})
    configured.run()
    assert configured.dispatcher.no_job(queue="Q1").reason == "queue_inactive"
    assert configured.queue("Q1")["corecount"] == 8
    configured.says("queues", {"Q1": {"corecount": 1}, "Q2": {}, "Q3": {}})
    configured.run()
    assert configured.dispatcher.get_job(queue="Q1")["PandaID"]
    assert configured.queue("Q1")["corecount"] == 1
    assert [state for _, state, _ in configured.history("Q1")] == ["ACTIVE", "INACTIVE", "ACTIVE"]


def test_what_was_set_by_hand_stays_until_the_service_changes_it(configured: Configured) -> None:
    configured.run()
    queues.change_queue(configured.dispatcher.context, "Q1", {"status": "offline", "maxrss": 500}, "alice")
    configured.says("queues", {"Q1": {"corecount": 16, "maxtime": 100}, "Q2": {}})
    configured.run()
    changed = configured.queue("Q1")
    assert (changed["status"], changed["maxrss"], changed["corecount"], changed["maxtime"]) == ("offline", 500, 16, 100)
    configured.says("queues", {"Q1": {"status": "online"}, "Q2": {}})
    configured.run()
    changed = configured.queue("Q1")
    assert (changed["status"], changed["maxrss"], changed["corecount"], changed["maxtime"]) == ("online", 500, 1, 0)
    assert [actor for _, _, actor in configured.history("Q1")] == ["configurator", "alice", "configurator"]


@pytest.mark.parametrize(
    ("current", "said", "says", "expected"),
    [
        ({}, {}, {"a": 1}, {"a": 1}),
        ({"a": 2}, {"a": 1}, {"a": 1}, {"a": 2}),
        ({"a": 2}, {"a": 1}, {"a": 3}, {"a": 3}),
        ({"a": 1, "b": 2}, {"a": 1}, {}, {"b": 2}),
        ({"a": 1}, {}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": None}, {"a": 1}, {"a": None}, {"a": None}),
    ],
)
def test_only_changes_are_merged(
    current: dict[str, object], said: dict[str, object], says: dict[str, object], expected: dict[str, object]
) -> None:
    assert merged(current, said, says) == expected


def test_an_entry_that_cannot_be_used_is_one_line_and_its_old_one_stays(configured: Configured) -> None:
    configured.run()
    bad = {"Q1": {"corecount": "many"}, "Q2": {"status": "offline"}, "../Q3": {}, "Q4": 5, "Q5": {"x": 7}}
    configured.says("queues", bad)
    lines = configured.run()
    assert len(lines) == 3
    assert any("Q1 cannot be used as it is now: corecount must be a whole number" in line for line in lines)
    assert any("'../Q3' cannot be a name" in line for line in lines)
    assert any("Q4 must be an object" in line for line in lines)
    assert configured.queue("Q1")["corecount"] == 8
    assert configured.queue("Q2")["status"] == "offline"
    assert configured.queue("Q5")["x"] == 7
    assert configured.run() == [], "what was told once is not told each time"
    configured.says("queues", {**bad, "Q1": {"corecount": 4}})
    configured.run()
    assert configured.queue("Q1")["corecount"] == 4


@pytest.mark.parametrize(
    ("content", "page", "complaint"),
    [
        ("", {}, "the answer is not JSON"),
        ('{"Q1": {"status": "offl', {}, "the answer is not JSON"),
        ('{"Q1": {"corecount": NaN}}', {}, "NaN is no number"),
        ("[" * 200_000, {}, "the answer is not JSON"),
        ({}, {}, "no entry that can be used"),
        (None, {}, "must be an object or a list"),
        ({"error": "in maintenance"}, {}, "no entry that can be used"),
        ({"Q1": {"status": "offline"}}, {}, "only 1 of the 3 names known, fewer than 50 %"),
        ({"Q1": {"status": "offline"}}, {"status": 500}, "answered 500"),
        ({"Q1": {"status": "offline"}}, {"cut": 3}, "no whole answer"),
    ],
)
def test_an_answer_that_cannot_be_used_changes_nothing(
    configured: Configured, content: object, page: dict[str, object], complaint: str
) -> None:
    configured.says("queues", {"Q1": {}, "Q2": {}, "Q3": {}})
    configured.run()
    known = queues.read_queues(configured.dispatcher.context)
    configured.says("queues", content, **page)
    (line,) = configured.run()
    assert complaint in line
    assert line.endswith("what is known stays as it is")
    assert queues.read_queues(configured.dispatcher.context) == known
    assert configured.run() == []
    configured.says("queues", {"Q1": {}, "Q2": {}, "Q3": {"status": "paused"}})
    assert configured.run() == []
    assert configured.queue("Q3")["status"] == "paused"


def test_an_operator_may_lower_how_much_an_answer_must_have(configured: Configured) -> None:
    configured.says("queues", {name: {} for name in ("Q1", "Q2", "Q3")})
    configured.run()
    configured.says("queues", {"Q1": {}}, etag='"1"')
    assert len(configured.run()) == 1
    least = ConfigValue("pandaserver", "configurator", "LEAST_PERCENT", "", "10", "", None)
    configuration.set_value(configured.dispatcher.context, least)
    assert configured.run() == []
    assert [configured.queue(name)["state"] for name in ("Q1", "Q2", "Q3")] == ["ACTIVE", "INACTIVE", "INACTIVE"]


def test_another_address_is_asked_for_everything(configured: Configured) -> None:
    configured.says("queues", {"Q1": {}}, etag='"1"')
    configured.run()
    context = configured.dispatcher.context
    configured.cric.pages["/others"] = Page({"Q1": {"corecount": 2}}, etag='"1"')
    settings = replace(context.settings, cric_url_schedconfig=f"{configured.cric.url}/others")
    configurator.run(replace(context, settings=settings), [])
    assert configured.queue("Q1")["corecount"] == 2


def test_without_addresses_nothing_is_asked_and_an_argument_we_do_not_have_is_a_line(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    for arguments in ([], ["--network"], ["--sw_tags"]):
        assert configurator.run(dispatcher.context, arguments) is False
    assert not caplog.records
    configurator.run(dispatcher.context, ["--nonsense"])
    (record,) = caplog.records
    assert "--nonsense" in record.getMessage()


def test_a_queue_writes_to_a_storage_that_is_open_and_gets_no_job_without_one(configured: Configured) -> None:
    places = {"astorages": {"pr": ["D1"], "pw": ["D1", "TAPE"], "default": ["D1"]}}
    configured.says("storages", {"D1": {}, "TAPE": {}, "OTHER": {}})
    configured.says("queues", {"Q1": places, "Q2": {}})
    configured.run()
    first, second, _ = configured.dispatcher.submit(*({"queue": "Q1"} for _ in range(3)))
    assert configured.dispatcher.get_job(queue="Q1")["ddmEndPointOut"] == "D1"
    configured.says("blacklist", {"D1": {"write_wan": {"status": {"value": "OFF", "reason": "disk\n full"}}}})
    assert configured.run() == ["blacklist: queue Q1 does not write to D1 now"]
    assert configured.dispatcher.get_job(queue="Q1")["ddmEndPointOut"] == "TAPE"
    seen = for_pilots(configured.dispatcher, "Q1")["astorages"]
    assert seen == {"pr": ["D1"], "pw": ["TAPE"], "default": ["D1"]}
    configured.says("storages", {"D1": {}, "TAPE": {"state": "DISABLED"}, "OTHER": {}})
    configured.run()
    nothing = configured.dispatcher.no_job(queue="Q1")
    assert nothing.reason == "storage_closed"
    assert "D1: disk full" in nothing.sentence
    assert "TAPE: it is in state DISABLED" in nothing.sentence
    configured.says("blacklist", {})
    assert configured.run() == ["blacklist: queue Q1 does not write to TAPE now"]
    assert configured.dispatcher.get_job(queue="Q1")["ddmEndPointOut"] == "D1"
    assert configured.dispatcher.status(first) == configured.dispatcher.status(second) == "sent"


def test_a_queue_that_is_described_later_knows_the_blacklist_too(configured: Configured) -> None:
    configured.says("blacklist", ["D1"])
    configured.run()
    queues.add_queues(configured.dispatcher.context, {"NEW": {"astorages": {"default": ["D1"]}}})
    assert configured.dispatcher.no_job(queue="NEW").reason == "storage_closed"


def test_a_storage_that_is_closed_for_reading_may_be_written(configured: Configured) -> None:
    configured.says("blacklist", {"D1": {"read_wan": {"status": {"value": "OFF"}}}})
    configured.says("queues", {"Q1": {"astorages": {"pw": ["D1"]}}, "Q2": {}})
    configured.run()
    configured.dispatcher.submit({"queue": "Q1"})
    assert configured.dispatcher.get_job(queue="Q1")["ddmEndPointOut"] == "D1"


def test_a_storage_from_which_nothing_may_be_deleted_may_be_written(configured: Configured) -> None:
    configured.says("queues", {"Q1": {"astorages": {"pw": ["D1"]}}, "Q2": {}})
    configured.run()
    configured.says("blacklist", {"D1": {"delete_wan": {"status": {"value": "OFF", "reason": "tapes are full"}}}})
    assert configured.run() == []
    configured.says("blacklist", {"D1": {"status": {"value": "OFF", "reason": "it names no activity"}}})
    assert configured.run() == ["blacklist: queue Q1 does not write to D1 now"]


def test_the_network_matrix_is_kept_with_the_time_of_each_value(configured: Configured) -> None:
    links = [{"src": "A", "dst": "B", "closeness": 3}, {"src": "B", "dst": "A", "closeness": 4, "note": "x"}]
    configured.says("network", [*links, {"src": "A/", "dst": "B"}, 7])
    complaints = configured.run("--network")
    first = configured.dispatcher.clock.now
    assert len(complaints) == 2
    configured.says("network", [links[0], {**links[1], "closeness": 5}])
    assert configured.run("--network") == []
    second = configured.dispatcher.clock.now
    context = configured.dispatcher.context
    with context.database.reading() as connection:
        assert network.read_links(connection) == {
            Link("A", "B", "closeness"): (3, first),
            Link("B", "A", "closeness"): (5, second),
        }
        assert list(network.read_links(connection, src="B")) == [Link("B", "A", "closeness")]
    configured.says("network", [links[0]])
    configured.run("--network")
    with context.database.reading() as connection:
        assert list(network.read_links(connection)) == [Link("A", "B", "closeness")]
    configured.says("network", [])
    (line,) = configured.run("--network")
    assert "no entry that can be used" in line


def test_texts_that_no_database_takes_are_kept_as_json_or_refused(configured: Configured) -> None:
    strange = {"catchall": "\x00\ud800", "x\ud800": [1e308]}
    configured.says("queues", {"Q1": {**strange, "astorages": {"pw": ["D1"]}}, "\ud800": {}, "Q2": {}})
    configured.says("blacklist", {"D1": {"write": {"reason": "\x00\udfff"}}})
    (line,) = configured.run()
    assert r"\ud800" in line
    assert configured.dispatcher.no_job(queue="Q1").sentence.endswith("(D1: ??)")
    assert configured.queue("Q1")["catchall"] == "\x00\ud800"
