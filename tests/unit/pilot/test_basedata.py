"""Descriptions from outside are cast by one schema, and what cannot be cast is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import ConversionFailure
from pilot.info.basedata import BaseData
from pilot.util.https import Json

NAN, INF = float("nan"), float("inf")


class Sample(BaseData):
    _keys: ClassVar[dict[type, tuple[str, ...]]] = {
        int: ("count",),
        float: ("ratio",),
        bool: ("flag",),
        str: ("text",),
        dict: ("table",),
        list: ("items",),
    }
    count: int = 7
    ratio: float = 0.5
    flag: bool = True
    text: str = "default"

    def __init__(self, data: Mapping[str, Json], kmap: Mapping[str, str] | None = None) -> None:
        self.table: dict[str, Json] = {"default": 1}
        self.items: list[Json] = ["default"]
        self._load_data(data, kmap)

    def clean__count(self, raw: Json, value: int) -> int:
        return value * 1


@pytest.mark.parametrize("null", [None, "NULL", "None", "null"])
@pytest.mark.parametrize("field", ["count", "ratio", "flag", "text", "table", "items"])
def test_what_is_missing_or_null_keeps_its_default(field: str, null: Json) -> None:
    assert getattr(Sample({field: null}), field) == getattr(Sample({}), field)


@pytest.mark.parametrize(
    ("field", "raw", "wanted"),
    [
        ("count", 5, 5),
        ("count", "5", 5),
        ("count", " -5 ", -5),
        ("count", "+5", 5),
        ("count", 5.0, 5),
        ("count", "5.0", 5),
        ("count", "5.9", 5),
        ("count", -5.9, -5),
        ("count", "", 0),
        ("count", 2**53 - 1, 2**53 - 1),
        ("count", str(2**53 - 1), 2**53 - 1),
        ("ratio", 2, 2.0),
        ("ratio", "2.5", 2.5),
        ("ratio", "1e3", 1000.0),
        ("flag", True, True),
        ("flag", False, False),
        ("flag", "True", True),
        ("flag", "yes", True),
        ("flag", "on", True),
        ("flag", 1, True),
        ("flag", "false", False),
        ("flag", "No", False),
        ("flag", "0", False),
        ("flag", "", False),
        ("text", " hello ", "hello"),
        ("text", 17, "17"),
        ("text", 1.5, "1.5"),
        ("text", True, "True"),
        ("text", "grün ☕", "grün ☕"),
        ("table", {"a": 1}, {"a": 1}),
        ("table", "", {}),
        ("table", [], {}),
        ("items", [1, "a"], [1, "a"]),
        ("items", "a, b,,c", ["a", "b", "c"]),
        ("items", "", []),
    ],
)
def test_a_value_is_cast_to_the_type_of_its_field(field: str, raw: Json, wanted: object) -> None:
    got = getattr(Sample({field: raw}), field)
    assert got == wanted and type(got) is type(wanted)


@pytest.mark.parametrize(
    ("field", "raw", "said"),
    [
        ("count", "many", "field count: 'many' is not a number"),
        ("count", True, "field count: True is not a number"),
        ("count", [1], "field count: [1] is not a number"),
        ("count", {}, "field count: {} is not a number"),
        ("count", "²", "field count: '²' is not a number"),
        ("count", NAN, "field count: nan is out of range"),
        ("count", INF, "field count: inf is out of range"),
        ("count", "9" * 400, "field count: '999"),
        ("count", 10**400, "field count: 1000"),
        ("count", 2**53, f"field count: {2**53} is out of range"),
        ("ratio", "nan", "field ratio: 'nan' is out of range"),
        ("flag", "maybe", "field flag: 'maybe' is neither true nor false"),
        ("flag", 2, "field flag: 2 is neither true nor false"),
        ("flag", [], "field flag: [] is neither true nor false"),
        ("text", {"a": 1}, "field text: {'a': 1} is not a text"),
        ("text", ["a"], "field text: ['a'] is not a text"),
        ("text", "a\0b", "field text: the text has a NUL character in it"),
        ("text", "ab\ud800", "field text: character 3 of the text is none of Unicode"),
        ("table", "abc", "field table: 'abc' is not an object"),
        ("table", 5, "field table: 5 is not an object"),
        ("table", [1], "field table: [1] is not an object"),
        ("items", 5, "field items: 5 is not a list"),
        ("items", {"a": 1}, "field items: {'a': 1} is not a list"),
    ],
)
def test_a_value_of_another_type_is_refused_with_the_name_of_its_field(field: str, raw: Json, said: str) -> None:
    with pytest.raises(ConversionFailure) as raised:
        Sample({field: raw})
    assert raised.value.diag.startswith(said)
    assert raised.value.code == ErrorCodes.CONVERSIONFAILURE


def test_the_name_in_the_text_is_the_one_outside() -> None:
    with pytest.raises(ConversionFailure, match="field coreCount: "):
        Sample({"coreCount": "x"}, {"count": "coreCount"})


def test_a_long_or_wild_value_is_shown_short_and_harmless() -> None:
    with pytest.raises(ConversionFailure) as raised:
        Sample({"count": "\x1b[31m\n" + "x" * 10_000})
    assert len(raised.value.diag) < 120
    assert raised.value.diag.isprintable()


def test_what_has_no_field_is_left_alone() -> None:
    assert not hasattr(Sample({"unknown": 1}), "unknown")


def test_a_description_shows_itself_for_the_log() -> None:
    assert repr(Sample({"count": 1})).startswith("Sample(count=1, ratio=0.5, flag=True, text='default'")


json_values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(st.fixed_dictionaries({}, optional={name: json_values for names in Sample._keys.values() for name in names}))
def test_whatever_comes_is_cast_or_refused(data: dict[str, Json]) -> None:
    try:
        sample = Sample(data)
    except ConversionFailure:
        return
    for ktype, names in Sample._keys.items():
        for name in names:
            assert isinstance(getattr(sample, name), ktype)
