"""Descriptions of queues and storages: what is accepted, what is refused by its key, and what is said about it."""

from __future__ import annotations

import pytest

from server.logic import queues
from server.logic.errors import BadField
from tests.unit.server.dispatcher import QUEUE, Dispatcher, for_pilots

BAD_IN_QUEUES: list[tuple[str, object]] = [
    ("corecount", "many"),
    ("corecount", -1),
    ("maxrss", [2000]),
    ("maxwdir", -5),
    ("status", "onlin"),
    ("state", ""),
    ("state", "x" * 30),
    ("allow_lan", "perhaps"),
    ("cloud", 5),
    ("copytools", "mv"),
    ("copytools", {"mv": "x"}),
    ("acopytools", {"default": "mv"}),
    ("astorages", ["DISK"]),
    ("astorages", {"default": [5]}),
    ("params", []),
]


@pytest.mark.parametrize(("key", "value"), BAD_IN_QUEUES)
def test_adding_and_setting_refuse_the_same_by_its_key(dispatcher: Dispatcher, key: str, value: object) -> None:
    with pytest.raises(BadField) as added:
        queues.add_queues(dispatcher.context, {"Q": {key: value}})
    with pytest.raises(BadField) as changed:
        queues.change_queue(dispatcher.context, QUEUE, {key: value})
    assert str(added.value) == str(changed.value)
    assert added.value.field == key
    assert queues.read_queues(dispatcher.context).keys() == {QUEUE}


def test_keys_nobody_here_knows_are_kept_when_a_queue_is_added_and_can_be_set_then(dispatcher: Dispatcher) -> None:
    strange = {"CRIC key": {"a": [1, None]}, "corepower": 11.5}
    queues.add_queues(dispatcher.context, {"Q": strange})
    assert queues.read_queue(dispatcher.context, "Q").items() >= strange.items()
    changed, _ = queues.change_queue(dispatcher.context, "Q", {"corepower": "12"})
    assert changed["corepower"] == "12"
    with pytest.raises(BadField, match="did you mean corecount"):
        queues.change_queue(dispatcher.context, "Q", {"corecounts": 2})


@pytest.mark.parametrize("key", ["name", "nickname", "siteid", "panda_resource"])
def test_a_queue_cannot_be_renamed(dispatcher: Dispatcher, key: str) -> None:
    with pytest.raises(BadField, match=f"{key} cannot be changed"):
        queues.change_queue(dispatcher.context, QUEUE, {key: "OTHER"})


def test_a_storage_that_is_not_described_is_pointed_out_and_one_that_is_not(dispatcher: Dispatcher) -> None:
    wanted = {"Q": {"astorages": {"pr": ["HERE", "THERE"], "pw": ["THERE"]}}}
    queues.add_storages(dispatcher.context, {"HERE": {}})
    (remark,) = queues.add_queues(dispatcher.context, wanted)
    assert "queue Q uses the storage THERE, which is not described" in remark
    queues.add_storages(dispatcher.context, {"THERE": {}})
    assert queues.add_queues(dispatcher.context, wanted) == []


def test_a_state_that_keeps_jobs_back_is_accepted_and_explained(dispatcher: Dispatcher) -> None:
    (remark,) = queues.add_queues(dispatcher.context, {"Q": {"state": "DISABLED"}})
    assert "state DISABLED" in remark
    assert "ACTIVE" in remark
    assert queues.change_queue(dispatcher.context, "Q", {"state": "ACTIVE"})[1] == []


def test_no_limit_of_a_work_directory_is_a_large_number_to_pilots(dispatcher: Dispatcher) -> None:
    queues.add_queues(dispatcher.context, {"Q": {"maxwdir": 0}, "SMALL": {"maxwdir": 10}})
    description = queues.read_queue(dispatcher.context, "Q")
    assert description["maxwdir"] == 0
    assert for_pilots(dispatcher, "Q")["maxwdir"] == 100_000
    assert for_pilots(dispatcher, "SMALL")["maxwdir"] == 10


OFFER = {"endpoint": "file://localhost", "path": "/data/"}


@pytest.mark.parametrize(
    ("description", "field"),
    [
        ("text", "storages.DISK"),
        ({"state": 5}, "storages.DISK.state"),
        ({"is_deterministic": "perhaps"}, "storages.DISK.is_deterministic"),
        ({"arprotocols": [OFFER]}, "storages.DISK.arprotocols"),
        ({"arprotocols": {"pr": OFFER}}, "storages.DISK.arprotocols.pr"),
        ({"arprotocols": {"pr": ["file:///data"]}}, "storages.DISK.arprotocols.pr"),
        ({"arprotocols": {"pr": [{"path": "/data"}]}}, "storages.DISK.arprotocols.pr.endpoint"),
        ({"arprotocols": {"pr": [{"endpoint": "x"}]}}, "storages.DISK.arprotocols.pr.path"),
        ({"arprotocols": {"pr": [{**OFFER, "path": "/data/../etc"}]}}, "storages.DISK.arprotocols.pr.path"),
        ({"arprotocols": {"pr": [{**OFFER, "path": "/data/%2e%2e/etc"}]}}, "storages.DISK.arprotocols.pr.path"),
        ({"arprotocols": {"pr": [{**OFFER, "endpoint": "file:///a/.."}]}}, "storages.DISK.arprotocols.pr.endpoint"),
        ({"arprotocols": {"pr": [{**OFFER, "path": "/a\nb"}]}}, "storages.DISK.arprotocols.pr.path"),
    ],
)
def test_a_storage_pilots_could_not_use_is_refused_by_its_key(
    dispatcher: Dispatcher, description: object, field: str
) -> None:
    with pytest.raises(BadField) as caught:
        queues.add_storages(dispatcher.context, {"GOOD": {}, "DISK": description})
    assert caught.value.field == field
    assert queues.read_storages(dispatcher.context) == {}


def test_a_storage_keeps_what_nobody_here_knows(dispatcher: Dispatcher) -> None:
    given = {"arprotocols": {"pr": [{**OFFER, "id": 1, "flavour": "local"}]}, "quota": {"x": 1}, "type": "DATADISK"}
    assert queues.add_storages(dispatcher.context, {"DISK": given}) == ["DISK"]
    stored = queues.read_storages(dispatcher.context)["DISK"]
    assert stored.items() >= given.items()
    assert (stored["name"], stored["state"], stored["is_deterministic"]) == ("DISK", "ACTIVE", True)
