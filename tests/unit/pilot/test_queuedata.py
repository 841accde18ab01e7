"""The descriptions of a queue and of its storages."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, QueuedataNotOK
from pilot.info.queuedata import QueueData
from pilot.info.storagedata import Protocol, StorageData, deterministic_path
from pilot.util.https import Json
from tests.unit.pilot.builders import GOLDEN
from tests.unit.pilot.test_basedata import json_values


def queue(**changes: Json) -> QueueData:
    return QueueData({**GOLDEN["queue"], **changes})


def store(**changes: Json) -> StorageData:
    return StorageData({**GOLDEN["storages"]["SITE_DISK"], **changes})


# ---- queues


def test_the_recorded_queue_is_understood() -> None:
    got = queue()
    assert (got.name, got.resource, got.site, got.state, got.status) == (
        "SITE_QUEUE",
        "SITE_QUEUE",
        "SITE",
        "ACTIVE",
        "online",
    )
    assert (got.corecount, got.maxwdir, got.maxinputsize, got.timefloor) == (1, 20000, 0, 0)
    assert got.copytools == {"mv": {"setup": ""}}
    assert got.activity_list("acopytools", ("pr",)) == ["mv"]
    assert got.activity_list("astorages", ("read_lan", "pr")) == ["SITE_DISK"]
    assert got.is_cvmfs is False and got.container_type == {}


@pytest.mark.parametrize(
    ("field", "raw", "wanted"),
    [
        ("timefloor", 30, 1800),
        ("timefloor", "30", 1800),
        ("timefloor", None, 0),
        ("corecount", 8, 8),
        ("corecount", 0, 1),
        ("corecount", None, 1),
        ("corecount", "-4", 1),
        ("maxwdir", 0, 0),
        ("maxwdir", None, 0),
        ("maxwdir", -1, 0),
        ("maxwdir", "5000", 5000),
        ("maxinputsize", -1, 0),
        ("maxinputsize", 14336, 14336),
        ("maxrss", "2000.0", 2000),
    ],
)
def test_limits_are_cast_and_no_limit_is_zero(field: str, raw: Json, wanted: int) -> None:
    assert getattr(queue(**{field: raw}), field) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("singularity:pilot;docker:wrapper;container:middleware",
         {"pilot": "singularity", "wrapper": "docker", "middleware": "container"}),
        ("singularity:pilot", {"pilot": "singularity"}),
        (" singularity : pilot ; ", {"pilot": "singularity"}),
        ("singularity", {}),
        (":pilot", {}),
        ("", {}),
        (None, {}),
    ],
)  # fmt: skip
def test_the_container_types_are_listed_by_who_starts_them(text: Json, wanted: dict[str, str]) -> None:
    assert queue(container_type=text).container_type == wanted


@pytest.mark.parametrize(
    ("key", "wanted"),
    [("nopenfiles", "5"), ("mv_final_destination", "True"), ("bind", "/a=/b"), ("absent", ""), ("nopen", "")],
)
def test_catchall_holds_words_and_values(key: str, wanted: str) -> None:
    assert queue(catchall="mv_final_destination, nopenfiles=5,bind=/a=/b").catchall_value(key) == wanted


@pytest.mark.parametrize(
    ("table", "activities", "wanted"),
    [
        ({"pr": ["a"], "default": ["d"]}, ("pr",), ["a"]),
        ({"pr": ["a"], "default": ["d"]}, ("read_lan", "pr"), ["a"]),
        ({"read_lan": ["r"], "pr": ["a"]}, ("read_lan", "pr"), ["r"]),
        ({"default": ["d"]}, ("pw",), ["d"]),
        ({"pr": [], "default": ["d"]}, ("pr",), ["d"]),
        ({"pr": "single"}, ("pr",), ["single"]),
        ({"pr": ["a", "b"]}, ("pr",), ["a", "b"]),
        ({}, ("pr",), []),
    ],
)
def test_the_first_activity_that_is_listed_decides(
    table: dict[str, Json], activities: tuple[str, ...], wanted: list[str]
) -> None:
    assert queue(astorages=table).activity_list("astorages", activities) == wanted


def test_a_list_of_names_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(QueuedataNotOK, match=r"astorages\[pr\] is not a list of names"):
        queue(astorages={"pr": {"a": 1}}).activity_list("astorages", ("pr",))


@pytest.mark.parametrize(
    ("field", "raw"),
    [("maxrss", "much"), ("copytools", "mv"), ("is_cvmfs", "perhaps"), ("state", ["ACTIVE"]), ("timefloor", {})],
)
def test_a_mistyped_field_of_a_queue_is_named(field: str, raw: Json) -> None:
    with pytest.raises(QueuedataNotOK, match=f"the queue description is wrong: field {field}: ") as raised:
        queue(**{field: raw})
    assert raised.value.code == ErrorCodes.QUEUEDATANOTOK


def test_two_queues_do_not_share_their_tables() -> None:
    first, second = QueueData({}), QueueData({})
    first.copytools["x"] = 1
    assert second.copytools == {}


@given(st.dictionaries(st.sampled_from(sorted(GOLDEN["queue"])), json_values, max_size=8))
def test_whatever_a_queue_description_holds_only_one_exception_comes(data: dict[str, Json]) -> None:
    try:
        got = QueueData({**GOLDEN["queue"], **data})
        for table in ("acopytools", "astorages"):
            assert all(isinstance(name, str) for name in got.activity_list(table, ("pr", "pw")))
    except QueuedataNotOK:
        pass


# ---- storages


def test_the_recorded_storage_is_understood() -> None:
    got = store()
    assert (got.name, got.state, got.pk, got.is_deterministic) == ("SITE_DISK", "ACTIVE", 1, True)
    assert got.protocols(("read_lan", "pr")) == [Protocol("file://localhost", "/storage/", "local")]


@pytest.mark.parametrize(
    ("scope", "lfn", "surl"),
    [
        # The first two bytes of md5("scope:LFN"), as `printf vo:out.txt | md5sum` has them.
        ("vo", "out.txt", "file://localhost/storage/vo/3d/b9/out.txt"),
        ("vo", "job254.log.tgz", "file://localhost/storage/vo/94/6f/job254.log.tgz"),
        ("vo", "job255.log.tgz", "file://localhost/storage/vo/85/02/job255.log.tgz"),
    ],
)
def test_a_file_lies_where_the_rule_for_deterministic_storages_says(scope: str, lfn: str, surl: str) -> None:
    assert store().surl(store().protocols(("pw",))[0], scope, lfn) == surl


@pytest.mark.parametrize(
    ("scope", "folder"),
    [("mc16_13TeV", "mc16_13TeV"), ("user.jdoe", "user/jdoe"), ("group.phys-higgs", "group/phys-higgs"),
     ("user", "user"), ("data.x", "data.x")],
)  # fmt: skip
def test_the_path_is_spread_by_the_hash_of_scope_and_name(scope: str, folder: str) -> None:
    digest = hashlib.md5(f"{scope}:f.root".encode()).hexdigest()
    assert deterministic_path(scope, "f.root") == f"{folder}/{digest[:2]}/{digest[2:4]}/f.root"


@pytest.mark.parametrize(
    ("endpoint", "path", "wanted"),
    [
        ("root://host:1094", "//rucio/", "root://host:1094//rucio/vo/3d/b9/out.txt"),
        ("root://host:1094/", "/rucio", "root://host:1094//rucio/vo/3d/b9/out.txt"),
        ("/data", "disk", "/data/disk/vo/3d/b9/out.txt"),
        ("file://", "/data", "file:///data/vo/3d/b9/out.txt"),
    ],
)
def test_endpoint_and_path_are_joined_with_one_slash(endpoint: str, path: str, wanted: str) -> None:
    assert store().surl(Protocol(endpoint, path), "vo", "out.txt") == wanted


@pytest.mark.parametrize(
    ("endpoint", "scheme"),
    [("root://h", "root"), ("file://localhost", "file"), ("/data", "file"), ("", "file"), ("davs://h:443", "davs")],
)
def test_the_scheme_is_that_of_the_endpoint(endpoint: str, scheme: str) -> None:
    assert Protocol(endpoint, "/x").scheme == scheme


def test_a_storage_without_a_rule_has_no_place() -> None:
    with pytest.raises(PilotException, match="is not deterministic") as raised:
        store(is_deterministic=False).surl(Protocol("file://", "/x"), "vo", "out.txt")
    assert raised.value.code == ErrorCodes.NONDETERMINISTICDDM


def test_protocols_come_in_the_storages_own_order_for_the_first_activity_it_knows() -> None:
    two: list[Json] = [{"endpoint": "root://a", "path": "/"}, {"endpoint": "davs://b", "path": "/", "flavour": None}]
    got = store(arprotocols={"pr": two, "default": []})
    assert [protocol.scheme for protocol in got.protocols(("read_lan", "pr"))] == ["root", "davs"]
    assert got.protocols(("pw",)) == []


@pytest.mark.parametrize(
    "entry",
    [
        "root://a",
        {"endpoint": "root://a"},
        ["root://a"],
        [{"endpoint": "file://"}, 7],
        [{"path": "/a\0b"}],
        [{"path": "\ud800"}],
    ],
)
def test_protocols_that_are_none_are_refused_by_name(entry: Json) -> None:
    with pytest.raises(QueuedataNotOK, match=r"storage SITE_DISK: arprotocols\[pr\] is"):
        store(arprotocols={"pr": entry}).protocols(("pr",))


def test_a_mistyped_field_of_a_storage_is_named_with_the_storage() -> None:
    with pytest.raises(QueuedataNotOK, match="the storage description of SITE_DISK is wrong: field is_deterministic"):
        store(is_deterministic="perhaps")


@given(st.dictionaries(st.sampled_from(sorted(GOLDEN["storages"]["SITE_DISK"])), json_values, max_size=6))
def test_whatever_a_storage_description_holds_only_named_exceptions_come(data: dict[str, Json]) -> None:
    try:
        got = store(**data)
        for protocol in got.protocols(("pr",)):
            got.surl(protocol, "vo", "f")
    except PilotException:
        pass
