"""Which place comes first: tables of what is known and what follows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.api.choice import Way, places_to_read, places_to_write, sort_replicas, trace, ways_of_replicas
from pilot.info.replica import Replica

NEAR = ["OWN1", "OWN2"]
SCHEMES = {"xrdcp": ("root",), "https": ("https", "davs")}


def replica(name: str, domain: str = "", priority: int = 0) -> Replica:
    return Replica(name, f"root://{name}//f", domain, priority)


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ([replica("FAR"), replica("OWN2"), replica("OWN1")], ["OWN1", "OWN2", "FAR"]),
        ([replica("X", "wan"), replica("Y", "lan")], ["Y", "X"]),
        ([replica("X", "wan", 1), replica("Y", "wan", 2), replica("Z", "wan", 0)], ["Z", "X", "Y"]),
        ([replica("X", "lan", 9), replica("OWN2", "wan", 9)], ["OWN2", "X"]),
        ([replica("X"), replica("Y")], ["X", "Y"]),
        ([], []),
    ],
)
def test_replicas_are_sorted_by_the_queues_storages_then_nearness_then_priority(
    given_: list[Replica], wanted: list[str]
) -> None:
    assert [one.ddmendpoint for one in sort_replicas(given_, NEAR)] == wanted


@given(
    st.lists(
        st.builds(
            Replica,
            st.sampled_from(["OWN1", "OWN2", "A", "B"]),
            st.sampled_from(["root://h//f", "https://h/f"]),
            st.sampled_from(["", "lan", "wan"]),
            st.integers(0, 3),
        )
    )
)
def test_sorting_loses_no_replica_and_sorting_again_changes_nothing(replicas: list[Replica]) -> None:
    once = sort_replicas(replicas, NEAR)
    assert sort_replicas(once, NEAR) == once
    assert sorted(map(repr, once)) == sorted(map(repr, replicas))
    ways = ways_of_replicas(replicas, NEAR)
    places = places_to_read(ways, ["xrdcp", "https"], SCHEMES)
    assert sorted(place.surl for place in places) == sorted(one.pfn for one in replicas)


A = [Way("A", "root://a//f"), Way("A", "https://a/f"), Way("A", "davs://a/f")]
B = [Way("B", "davs://b/f"), Way("B", "root://b//f")]


def test_reading_goes_to_the_next_replica_then_the_next_protocol_then_the_next_copytool() -> None:
    places = places_to_read([A, B], ["https", "xrdcp"], SCHEMES)
    assert [(place.copytool, place.surl) for place in places] == [
        ("https", "https://a/f"),
        ("https", "davs://b/f"),
        ("https", "davs://a/f"),
        ("xrdcp", "root://a//f"),
        ("xrdcp", "root://b//f"),
    ]


def test_writing_goes_through_all_ways_into_a_storage_before_the_next() -> None:
    places = places_to_write([A, B], ["xrdcp", "https"], SCHEMES)
    assert [(place.copytool, place.surl) for place in places] == [
        ("xrdcp", "root://a//f"),
        ("https", "https://a/f"),
        ("https", "davs://a/f"),
        ("xrdcp", "root://b//f"),
        ("https", "davs://b/f"),
    ]


def test_no_copytool_for_any_scheme_means_no_place() -> None:
    assert places_to_read([[Way("A", "gsiftp://a/f")]], ["xrdcp"], SCHEMES) == []


def test_the_log_tells_every_place_with_its_reason() -> None:
    near = [[Way("A", "root://a//f", "lan")], [Way("B", "root://b//f", "wan")]]
    assert trace("f", places_to_read(near, ["xrdcp"], SCHEMES)) == (
        "places for f, best first:\n"
        "  1. A: root://a//f [lan, protocol 1 (root) for xrdcp]\n"
        "  2. B: root://b//f [wan, protocol 1 (root) for xrdcp]"
    )
