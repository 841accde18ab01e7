"""The information service: where descriptions come from, which queues take pilots, what a job may override."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import CommunicationFailure, PilotException, QueuedataFailure, QueuedataNotOK
from pilot.info import infoservice
from pilot.info.infoservice import InfoService, Sources, check_open, load
from pilot.info.queuedata import QueueData
from pilot.util.https import Json
from tests.unit.pilot.builders import GOLDEN, SETTINGS

QUEUE: dict[str, Json] = GOLDEN["queue"]
STORAGES: dict[str, Json] = GOLDEN["storages"]
SERVER = "http://127.0.0.1:25080"
QUEUE_URL, STORAGE_URL = f"{SERVER}/cache/schedconfig/SITE_QUEUE.all.json", f"{SERVER}/cache/ddmendpoints.json"


class Pages(dict[str, Any]):
    """Pages by address; a page that is not here does not answer."""

    asked: list[str]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked = []

    def fetch(self, address: str) -> bytes:
        self.asked.append(address)
        if address not in self:
            raise CommunicationFailure(f"{urlsplit(address).netloc} does not answer")
        page = self[address]
        return page if isinstance(page, bytes) else json.dumps(page).encode()


def sources(pages: Pages, cache: Path | None = None, **changes: Any) -> Sources:
    made = Sources(
        settings=SETTINGS.information,
        server=SERVER,
        queue="SITE_QUEUE",
        queue_address="",
        storage_address="",
        override="",
        cache_dir=cache,
        fetch=pages.fetch,
        log=lambda text: None,
    )
    return replace(made, **changes)


def good() -> Pages:
    return Pages({QUEUE_URL: QUEUE, STORAGE_URL: STORAGES})


# ---- where they come from


def test_queue_and_storages_come_from_the_servers_cache() -> None:
    pages = good()
    service = load(sources(pages))
    assert service.queuedata.name == "SITE_QUEUE"
    assert service.storage("SITE_DISK").site == "SITE"
    assert pages.asked == [QUEUE_URL, STORAGE_URL]


def test_a_name_of_a_queue_is_quoted_in_an_address() -> None:
    pages = Pages({f"{SERVER}/cache/schedconfig/A%2F..%20B.all.json": QUEUE, STORAGE_URL: STORAGES})
    assert load(sources(pages, queue="A/.. B")).queuedata.name == "SITE_QUEUE"


def test_the_command_line_gives_another_address(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text(json.dumps(QUEUE))
    pages = Pages({"https://cric/SITE_QUEUE": STORAGES})
    service = load(sources(pages, queue_address=str(tmp_path / "q.json"), storage_address="https://cric/{pandaqueue}"))
    assert (service.queuedata.name, service.storage("SITE_DISK").pk) == ("SITE_QUEUE", 1)


def test_shared_file_system_and_information_system_follow(tmp_path: Path) -> None:
    (tmp_path / "storages.json").write_text(json.dumps(STORAGES))
    settings = replace(
        SETTINGS.information,
        queuedata_shared=str(tmp_path / "none.json"),
        queuedata_infosys="https://cric/{pandaqueue}",
        storagedata_shared=str(tmp_path / "storages.json"),
    )
    pages = Pages({"https://cric/SITE_QUEUE": QUEUE})
    said: list[str] = []
    service = load(sources(pages, settings=settings, log=said.append))
    assert service.queuedata.name == "SITE_QUEUE"
    assert said == ["queue description from information system, storage descriptions from shared file system"]


def test_a_source_may_hold_many_queues() -> None:
    pages = Pages({QUEUE_URL: {"OTHER": {}, "SITE_QUEUE": QUEUE}, STORAGE_URL: STORAGES})
    assert load(sources(pages)).queuedata.name == "SITE_QUEUE"


def test_a_server_that_is_gone_is_bridged_by_the_copies(tmp_path: Path) -> None:
    load(sources(good(), cache=tmp_path))
    said: list[str] = []
    service = load(sources(Pages(), cache=tmp_path, log=said.append))
    assert service.queuedata.name == "SITE_QUEUE"
    assert sum("the copy in" in text for text in said) == 2


def test_copies_of_different_queues_are_kept_apart(tmp_path: Path) -> None:
    load(sources(good(), cache=tmp_path))
    with pytest.raises(QueuedataFailure):
        load(sources(Pages(), cache=tmp_path, queue="OTHER"))


def test_no_answer_at_all_is_one_error_and_a_wrong_answer_another() -> None:
    with pytest.raises(QueuedataFailure, match=r"no queuedata for queue SITE_QUEUE: .*does not answer"):
        load(sources(Pages()))
    with pytest.raises(QueuedataFailure, match=r"no storagedata for queue SITE_QUEUE: .*does not answer"):
        load(sources(Pages({QUEUE_URL: QUEUE})))
    with pytest.raises(QueuedataNotOK, match=r"no usable queuedata for queue SITE_QUEUE: .*not JSON"):
        load(sources(Pages({QUEUE_URL: b"<html>", STORAGE_URL: STORAGES})))


@pytest.mark.parametrize("page", [{}, {"OTHER": QUEUE}, {"error": "no such queue"}, {"SITE_QUEUE": "soon"}])
def test_an_answer_without_this_queue_says_what_it_holds(page: dict[str, Json]) -> None:
    holds = ", ".join(page) or "nothing"
    with pytest.raises(QueuedataNotOK, match=f"it holds no queue SITE_QUEUE \\(it holds: {holds}\\)"):
        load(sources(Pages({QUEUE_URL: page, STORAGE_URL: STORAGES})))


def test_an_answer_without_storages_is_none() -> None:
    with pytest.raises(QueuedataNotOK, match=r"it holds no storage descriptions \(it holds: StatusCode\)"):
        load(sources(Pages({QUEUE_URL: QUEUE, STORAGE_URL: {"StatusCode": 30}})))


def test_a_site_without_storages_is_fine() -> None:
    assert load(sources(Pages({QUEUE_URL: QUEUE, STORAGE_URL: {}}))).queuedata.name == "SITE_QUEUE"


def test_one_bad_storage_somewhere_stops_nobody_who_does_not_use_it() -> None:
    storages = {**STORAGES, "FAR_AWAY": {"is_deterministic": "perhaps"}, "ODD": 7}
    service = load(sources(Pages({QUEUE_URL: QUEUE, STORAGE_URL: storages})))
    with pytest.raises(QueuedataNotOK, match="the storage description of FAR_AWAY is wrong: field is_deterministic"):
        service.storage("FAR_AWAY")
    with pytest.raises(QueuedataNotOK, match="the storage description of ODD is not an object"):
        service.storage("ODD")


def test_a_bad_storage_of_this_queue_stops_the_pilot() -> None:
    with pytest.raises(QueuedataNotOK, match="the storage description of SITE_DISK is wrong"):
        load(sources(Pages({QUEUE_URL: QUEUE, STORAGE_URL: {"SITE_DISK": {"rprotocols": 5}}})))


def test_a_storage_that_nobody_described_is_named_with_those_there_are() -> None:
    with pytest.raises(PilotException, match=r"storage NONE has no description \(described are: SITE_DISK\)") as raised:
        load(sources(good())).storage("NONE")
    assert raised.value.code == ErrorCodes.NOSTORAGE


# ---- what takes pilots


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        ("ACTIVE", "online", 0),
        ("active", "online", 0),
        ("ACTIVE", "test", 0),
        ("ACTIVE", "brokeroff", 0),
        ("ACTIVE", "paused", 0),
        ("ACTIVE", "", 0),
        ("ACTIVE", "offline", ErrorCodes.PANDAQUEUENOTONLINE),
        ("ACTIVE", "OFFLINE", ErrorCodes.PANDAQUEUENOTONLINE),
        ("INACTIVE", "online", ErrorCodes.PANDAQUEUENOTACTIVE),
        ("DISABLED", "offline", ErrorCodes.PANDAQUEUENOTACTIVE),
        ("", "online", ErrorCodes.PANDAQUEUENOTACTIVE),
    ],
)
def test_a_queue_takes_pilots_unless_it_is_inactive_or_offline(state: str, status: str, code: int) -> None:
    queue = QueueData({**QUEUE, "state": state, "status": status})
    if not code:
        check_open(queue)
        return
    with pytest.raises(PilotException, match="queue SITE_QUEUE") as raised:
        check_open(queue)
    assert raised.value.code == code


def test_a_queue_that_is_closed_ends_the_pilot() -> None:
    with pytest.raises(PilotException, match="is set offline") as raised:
        load(sources(Pages({QUEUE_URL: {**QUEUE, "status": "offline"}, STORAGE_URL: STORAGES})))
    assert (raised.value.code, raised.value.info.shell_code) == (1386, 83)


# ---- what is laid over


def test_the_environment_overrides_a_queue(tmp_path: Path) -> None:
    assert load(sources(good(), override='{"corecount": 8}')).queuedata.corecount == 8
    (tmp_path / "o.json").write_text('{"corecount": 4, "status": "test"}')
    got = load(sources(good(), override=str(tmp_path / "o.json"))).queuedata
    assert (got.corecount, got.status, got.maxwdir) == (4, "test", 20000)


@pytest.mark.parametrize("text", ["{", "[1]", "/nonexistent.json", "{" * 100_000, "a\0b"])
def test_an_override_that_is_none_is_named(text: str) -> None:
    with pytest.raises(QueuedataNotOK, match=r"PILOTKIT_QUEUEDATA is n"):
        load(sources(good(), override=text))


def test_a_job_overrides_for_itself_alone() -> None:
    service = InfoService.build(QUEUE, STORAGES)
    changed = service.for_job({"corecount": 8}, {"SITE_DISK": {"state": "DISABLED"}, "NEW": {"site": "X"}})
    assert (changed.queuedata.corecount, service.queuedata.corecount) == (8, 1)
    assert (changed.storage("SITE_DISK").state, service.storage("SITE_DISK").state) == ("DISABLED", "ACTIVE")
    assert changed.storage("SITE_DISK").pk == 1
    assert changed.storage("NEW").site == "X"
    with pytest.raises(PilotException):
        service.storage("NEW")


def test_a_job_that_overrides_nothing_has_the_pilots_own_service() -> None:
    service = InfoService.build(QUEUE, STORAGES)
    assert service.for_job({}, {}) is service


@pytest.mark.parametrize(
    ("queue", "storages", "said"),
    [
        ({"maxrss": "much"}, {}, "field maxrss"),
        ({"copytools": "mv"}, {}, "field copytools"),
        ({}, {"SITE_DISK": {"is_deterministic": "perhaps"}}, "SITE_DISK"),
        ({}, {"SITE_DISK": 7}, "SITE_DISK"),
    ],
)
def test_a_bad_override_of_a_job_is_named(queue: dict[str, Json], storages: dict[str, Json], said: str) -> None:
    with pytest.raises(QueuedataNotOK, match=said):
        InfoService.build(QUEUE, STORAGES).for_job(queue, storages)


def test_the_local_queue_is_open_and_has_no_limits() -> None:
    queue = infoservice.local().queuedata
    check_open(queue)
    assert (queue.name, queue.maxwdir, queue.timefloor) == ("LOCAL", 0, 0)
