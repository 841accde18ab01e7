"""What is told of sites: their queues, storages and links, and what the information service said of them."""

from __future__ import annotations

import pytest

from server.daemon.scripts import configurator
from server.logic import queues, sites
from server.logic.errors import BadField, NotFound
from tests.unit.server.configured import Configured
from tests.unit.server.dispatcher import QUEUE, Dispatcher


@pytest.fixture
def told(configured: Configured) -> Configured:
    """A site with a queue that has lost one of its storages."""
    configured.says("sites", {"SITE": {"state": "ACTIVE", "country": "CH"}, "EMPTY": {"state": "ACTIVE"}})
    configured.says("storages", {"D1": {"site": "SITE"}, "D2": {"site": "SITE"}})
    configured.says("blacklist", {"D1": {"write_wan": {"status": {"value": "OFF", "reason": "full"}}}})
    configured.says("queues", {"Q1": {"site": "SITE", "corecount": 8, "astorages": {"pw": ["D1", "D2"]}}, "Q2": {}})
    configured.says("software", {"Q1": {"cmtconfigs": ["x86_64-el9-gcc13-opt"]}})
    configured.says(
        "network", [{"src": "SITE", "dst": "EMPTY", "closeness": 3}, {"src": "A", "dst": "B", "closeness": 1}]
    )
    for arguments in ([], ["--network"], ["--sw_tags"]):
        configurator.run(configured.dispatcher.context, arguments)
    return configured


def test_a_site_is_known_from_the_service_or_from_what_names_it(told: Configured) -> None:
    found = {str(site["name"]): site for site in sites.list_sites(told.dispatcher.context)}
    assert found.keys() == {"SITE", "EMPTY", "Q2", QUEUE}
    assert (found["SITE"]["queues"], found["SITE"]["storages"]) == (["Q1"], ["D1", "D2"])
    assert found["SITE"]["described"] == "2027-01-15T08:00:00.000+00:00"
    assert found[QUEUE] == {"name": QUEUE, "state": "", "queues": [QUEUE], "storages": [], "described": None}


def test_a_site_shows_what_is_closed(told: Configured) -> None:
    site = sites.read_site(told.dispatcher.context, "SITE")
    (queue,) = site["queues"]  # type: ignore[misc,attr-defined]
    assert queue["closed_storages"] == {"D1": "full"}
    assert [storage["closed"] for storage in site["storages"]] == [{"write": "full"}, {}]  # type: ignore[attr-defined]
    assert site["description"] == {"state": "ACTIVE", "country": "CH"}
    with pytest.raises(NotFound, match="no site 'NOPE'"):
        sites.read_site(told.dispatcher.context, "NOPE")


def test_a_queues_history_tells_what_was_set_by_hand(told: Configured) -> None:
    context = told.dispatcher.context
    queues.change_queue(context, "Q1", {"status": "offline", "corecount": 4}, "alice")
    story = sites.queue_history(context, "Q1")
    assert story["by_hand"] == {"corecount": {"here": 4, "there": 8}}
    assert story["closed_storages"] == {"D1": "full"}
    first, second = story["history"]  # type: ignore[misc]
    assert (first["actor"], first["status"], second["actor"], second["status"]) == (
        "configurator",
        "online",
        "alice",
        "offline",
    )
    assert "status, corecount" in second["reason"]
    by_hand = sites.queue_history(context, QUEUE)
    assert (by_hand["described"], by_hand["by_hand"]) == (None, {})
    told.says("queues", {"Q2": {}})
    told.run()
    assert sites.queue_history(context, "Q1")["vanished"]


def test_links_and_software_can_be_read(told: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    context = told.dispatcher.context
    (link,) = sites.read_network(context, "SITE", "", "")
    assert (link["destination"], link["key"], link["value"]) == ("EMPTY", "closeness", 3)
    assert len(sites.read_network(context, "", "", "closeness")) == 2
    monkeypatch.setattr(sites, "MOST_LINKS", 1)
    with pytest.raises(BadField, match="more than 1 links"):
        sites.read_network(context, "", "", "")
    assert sites.read_software(context, "Q1")["software"] == {"cmtconfigs": ["x86_64-el9-gcc13-opt"]}
    with pytest.raises(NotFound):
        sites.read_software(context, "Q2")


def test_sources_tell_when_they_were_asked_and_what_came_of_it(told: Configured) -> None:
    told.says("queues", {"Q1": {"corecount": -1}, "Q2": {}})
    told.says("sites", "", status=503)
    told.run()
    found = {source["name"]: source for source in sites.list_sources(told.dispatcher.context)}
    assert found.keys() == {"sites", "storages", "blacklist", "queues", "network", "software"}
    assert "answered 503" in str(found["sites"]["failure"])
    assert str(found["sites"]["checked"]) > str(found["sites"]["fetched"])
    (complaint,) = found["queues"]["complaints"]  # type: ignore[misc]
    assert "corecount must not be negative" in complaint


def test_a_server_that_was_never_told_anything_has_no_sources(dispatcher: Dispatcher) -> None:
    assert sites.list_sources(dispatcher.context) == []
