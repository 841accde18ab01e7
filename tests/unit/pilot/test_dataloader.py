"""Descriptions come from the first source that has one, and from a copy when no source answers."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from pilot.common.exception import CommunicationFailure
from pilot.info.dataloader import Loaded, NoSourceAnswered, NoSourceValid, Source, load
from pilot.util.https import Json

GOOD, OTHER = b'{"who": "first"}', b'{"who": "second"}'


class World:
    """Addresses and what they answer; an address that is not here does not answer."""

    def __init__(self, tmp_path: Path, **answers: bytes) -> None:
        self.answers = {f"http://{name}/": body for name, body in answers.items()}
        self.asked: list[str] = []
        self.said: list[str] = []
        self.cache = tmp_path / "cache.json"

    def fetch(self, address: str) -> bytes:
        self.asked.append(address)
        if address not in self.answers:
            raise CommunicationFailure("nobody there")
        return self.answers[address]

    def load(self, *names: str, cache: bool = True, max_age: float = 100.0) -> Loaded:
        sources = [Source(name, name if "/" in name else f"http://{name}/") for name in names]
        return load(sources, self.fetch, self.accept, self.cache if cache else None, max_age, self.said.append)

    @staticmethod
    def accept(data: dict[str, Json]) -> dict[str, Json]:
        if "who" not in data:
            raise ValueError("it says nobody")
        return data


@pytest.mark.parametrize(
    ("answers", "names", "who", "source", "asked"),
    [
        ({"a": GOOD, "b": OTHER}, ["a", "b"], "first", "a", 1),
        ({"b": OTHER}, ["a", "b"], "second", "b", 2),
        ({"a": b"<html>", "b": OTHER}, ["a", "b"], "second", "b", 2),
        ({"a": b"", "b": OTHER}, ["a", "b"], "second", "b", 2),
        ({"a": b"[1]", "b": OTHER}, ["a", "b"], "second", "b", 2),
        ({"a": b'{"error": 1}', "b": OTHER}, ["a", "b"], "second", "b", 2),
        ({"a": b"[" * 100_000, "b": OTHER}, ["a", "b"], "second", "b", 2),
        ({"c": GOOD}, ["a", "b", "c"], "first", "c", 3),
    ],
)
def test_the_first_source_with_a_description_is_taken(
    tmp_path: Path, answers: dict[str, bytes], names: list[str], who: str, source: str, asked: int
) -> None:
    world = World(tmp_path, **answers)
    assert world.load(*names) == Loaded({"who": who}, source)
    assert len(world.asked) == asked


def test_a_source_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_bytes(GOOD)
    world = World(tmp_path)
    assert world.load(str(tmp_path / "q.json")).data == {"who": "first"}
    assert world.load(f"file://{tmp_path}/q.json").data == {"who": "first"}
    assert world.asked == []


def test_what_was_loaded_is_kept(tmp_path: Path) -> None:
    World(tmp_path, a=GOOD).load("a")
    assert json.loads((tmp_path / "cache.json").read_text()) == {"who": "first"}


def test_the_copy_is_used_when_no_source_answers_and_that_is_said(tmp_path: Path) -> None:
    World(tmp_path, a=GOOD).load("a")
    world = World(tmp_path)
    got = world.load("a", "b")
    assert got.data == {"who": "first"}
    assert got.source == f"copy in {world.cache}"
    assert "a (http://a/): nobody there" in world.said[0] and "b (http://b/): nobody there" in world.said[0]


@pytest.mark.parametrize(("age", "used"), [(0, True), (99, True), (102, False), (10**6, False)])
def test_a_copy_counts_until_it_is_too_old(tmp_path: Path, age: int, used: bool) -> None:
    World(tmp_path, a=GOOD).load("a")
    then = time.time() - age
    os.utime(tmp_path / "cache.json", (then, then))
    world = World(tmp_path)
    if used:
        assert world.load("a", max_age=100.5).data == {"who": "first"}
    else:
        with pytest.raises(NoSourceAnswered):
            world.load("a", max_age=100.5)


def test_the_copy_is_not_used_against_a_source_that_answers_something_else(tmp_path: Path) -> None:
    World(tmp_path, a=GOOD).load("a")
    with pytest.raises(NoSourceValid, match=r"a \(http://a/\): it says nobody; b \(http://b/\): nobody there"):
        World(tmp_path, a=b"{}").load("a", "b")


def test_a_wrong_answer_does_not_overwrite_the_copy(tmp_path: Path) -> None:
    World(tmp_path, a=GOOD).load("a")
    with pytest.raises(NoSourceValid):
        World(tmp_path, a=b'{"error": 1}').load("a")
    assert World(tmp_path).load("a").data == {"who": "first"}


@pytest.mark.parametrize("contents", [b"", b"{", b"[]", b'{"error": 1}'])
def test_a_copy_that_is_spoilt_is_none(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "cache.json").write_bytes(contents)
    with pytest.raises(NoSourceAnswered):
        World(tmp_path).load("a")


def test_a_copy_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    world = World(tmp_path / "none", a=GOOD)
    assert world.load("a").data == {"who": "first"}


def test_without_a_place_nothing_is_kept(tmp_path: Path) -> None:
    World(tmp_path, a=GOOD).load("a", cache=False)
    assert list(tmp_path.iterdir()) == []


def test_all_that_the_sources_said_is_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(NoSourceAnswered) as raised:
        World(tmp_path).load("a", str(tmp_path / "none.json"))
    assert "a (http://a/): nobody there; " in str(raised.value)
    assert "none.json" in str(raised.value) and "No such file" in str(raised.value)


def test_no_sources_at_all_are_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoSourceAnswered, match="no source is configured"):
        World(tmp_path).load()


def test_a_page_that_is_no_json_is_shown_at_its_beginning(tmp_path: Path) -> None:
    with pytest.raises(NoSourceValid, match=r"not JSON .*'<html>") as raised:
        World(tmp_path, a=b"<html>" + b"x" * 100_000).load("a")
    assert len(str(raised.value)) < 300
