"""Where an object lies and which keys open it, as the storage's description says."""

from __future__ import annotations

from typing import Any

import pytest

from pilot.api.data import StageOutClient
from pilot.common.exception import NotDefined, QueuedataNotOK
from pilot.info.objectstore import KeyNames, Location, key_names, locate
from pilot.info.storagedata import Protocol, StorageData
from tests.unit.pilot import builders

SETTINGS = {"access_key": "a.pub", "secret_key": "a.key"}


def storage(**description: Any) -> StorageData:
    return StorageData({"name": "STORE", **description})


@pytest.mark.parametrize(
    ("surl", "description", "wanted"),
    [
        ("s3://h:443/b/dir/f", {}, Location("https://h:443", "b", "dir/f")),
        ("s3://h:443//b//f", {}, Location("https://h:443", "b", "f")),
        ("s3://127.0.0.1:9/b/f", {}, Location("http://127.0.0.1:9", "b", "f")),
        ("s3://b/dir/f", {}, Location("", "b", "dir/f")),
        ("s3://b/f", {"resource": {"endpoint": "https://h:9"}}, Location("https://h:9", "b", "f")),
        ("s3://h:9/b/f", {"resource": {"endpoint": "http://h:9"}}, Location("http://h:9", "b", "f")),
        ("s3://b/f", {"resource": {"endpoint": "http://h/"}}, Location("http://h", "b", "f")),
        ("s3://h/b/f", {"resource": {"endpoint": "https://h"}}, Location("https://h", "b", "f")),
        (
            "s3://h:80/b/f",
            {"rprotocols": {"1": {"endpoint": "s3://h:80/", "settings": {"is_secure": False}}}},
            Location("http://h:80", "b", "f"),
        ),
        (
            "s3://127.0.0.1:80/b/f",
            {"rprotocols": {"1": {"endpoint": "s3://127.0.0.1:80/", "settings": {"is_secure": True}}}},
            Location("https://127.0.0.1:80", "b", "f"),
        ),
        ("gs://b/f", {}, Location("", "b", "f")),
        ("gs://storage.googleapis.com/b/f", {}, Location("https://storage.googleapis.com", "b", "f")),
        ("s3://b/hash#sign%20x", {}, Location("", "b", "hash#sign%20x")),
    ],
)
def test_an_object_is_found_from_its_url_and_the_description(
    surl: str, description: dict[str, Any], wanted: Location
) -> None:
    assert locate(surl, storage(**description), "") == wanted


def test_without_any_description_the_queues_endpoint_counts() -> None:
    assert locate("s3://b/f", None, "https://d:1/") == Location("https://d:1", "b", "f")


@pytest.mark.parametrize(
    ("surl", "said"), [("s3://h:1/b", "no object"), ("s3://h:1/", "no bucket"), ("s3://b/", "no object")]
)
def test_what_names_no_object_is_refused(surl: str, said: str) -> None:
    with pytest.raises(QueuedataNotOK, match=said):
        locate(surl, None, "")


def test_a_service_without_tls_on_another_machine_must_be_described_as_such() -> None:
    with pytest.raises(QueuedataNotOK, match="http://d is not encrypted"):
        locate("s3://b/f", None, "http://d")
    assert locate("s3://b/f", None, "http://localhost:1").endpoint == "http://localhost:1"


def test_the_keys_are_those_of_the_protocol_that_fits() -> None:
    other = {"access_key": "b.pub", "secret_key": "b.key"}
    described = storage(
        arprotocols={"pr": [{"endpoint": "root://x", "path": "/"}]},
        rprotocols={
            "1": {"endpoint": "s3://one:1/", "settings": SETTINGS},
            "2": {"endpoint": "s3://two:1/", "settings": other},
        },
    )
    assert key_names(described, "s3://one:1/b/f") == KeyNames("a.pub", "a.key")
    assert key_names(described, "s3://two:1/b/f") == KeyNames("b.pub", "b.key")
    assert key_names(described, "s3://b/f") == KeyNames("a.pub", "a.key")
    assert key_names(storage(), "s3://b/f") == key_names(None, "s3://b/f") == KeyNames()


@pytest.mark.parametrize(
    ("description", "wanted"),
    [
        ({"resource": {"endpoint": "https://h:1", "bucket_id": "b"}}, [Protocol("s3://h:1", "b/rucio")]),
        ({"resource": {"endpoint": "gs://", "bucket_id": "b"}}, [Protocol("gs://b", "rucio")]),
        (
            {"resource": {"endpoint": "https://storage.googleapis.com", "bucket_id": "b"}},
            [Protocol("gs://b", "rucio")],
        ),
        ({"resource": {"endpoint": "https://h:1", "bucket_id": 41}}, []),
        ({"resource": {"endpoint": "https://h:1"}}, []),
        ({"resource": {}}, []),
        (
            {
                "rprotocols": {"2": {"endpoint": "s3://h:1/", "path": "/b/p"}, "3": {"endpoint": "root://h"}},
                "resource": {"endpoint": "https://h:1", "bucket_id": "other"},
            },
            [Protocol("s3://h:1/", "/b/p")],
        ),
        (
            {"arprotocols": {"pw": []}, "resource": {"endpoint": "https://h:1", "bucket_id": "b"}},
            [],
        ),
    ],
)
def test_a_storage_without_protocols_for_an_activity_has_those_of_its_bucket(
    description: dict[str, Any], wanted: list[Protocol]
) -> None:
    assert storage(**description).protocols(("pw",)) == wanted


def test_a_bucket_that_is_no_text_is_a_wrong_description() -> None:
    with pytest.raises(QueuedataNotOK, match="STORE"):
        storage(resource={"endpoint": "https://h", "bucket_id": "\0"}).protocols(("pw",))


def test_an_object_lies_where_get_path_says() -> None:
    described = storage(resource={"endpoint": "https://h:1", "bucket_id": "b"})
    surl = described.surl(described.protocols(("pw",))[0], "mc", "f.root")
    assert locate(surl, described, "").name == StageOutClient.get_path("mc", "f.root")


def test_a_signed_url_is_for_one_file_and_one_direction() -> None:
    described = storage(resource={"signed": {"f": {"get": "https://h/f?sig=1"}, "bad": "https://h"}})
    assert described.signed_url("f", read=True) == "https://h/f?sig=1"
    assert described.surls(("pr",), "mc", "f", read=True) == ["https://h/f?sig=1"]
    assert described.signed_url("f", read=False) == described.signed_url("g", read=True) == ""
    assert described.signed_url("bad", read=True) == storage().signed_url("f", read=True) == ""


def test_storages_are_known_by_their_numbers_and_those_of_their_buckets() -> None:
    service = builders.infosys(
        {},
        {"A": {"id": 1}, "B": {"id": 2, "resource": {"bucket_id": 41}}, "C": {"resource": {"bucket_id": "name"}},
         "BAD": {"id": []}},
    )  # fmt: skip
    assert service.resolve_ddmendpoint_storageid() == {1: "A", 2: "B", 41: "B"}
    assert service.resolve_ddmendpoint_storageid(["A"]) == {1: "A"}
    assert (service.get_storage_id("B"), service.get_ddmendpoint(41)) == (2, "B")
    with pytest.raises(NotDefined):
        service.get_storage_id("C")
    with pytest.raises(NotDefined):
        service.get_ddmendpoint(3)
