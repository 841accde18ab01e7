"""Small numbers: the examples of chapter 7.3.2 and what they leave open."""

from __future__ import annotations

import pytest

from pilot.common.exception import NotDefined
from pilot.util import math


@pytest.mark.parametrize(
    ("text", "divider", "size"),
    [
        ("0 B", None, 0), ("3", None, 3), ("K", None, 1024), ("1 K", None, 1024), ("1 M", None, 1048576),
        ("1 Gi", None, 1073741824), ("1 tera", None, 1099511627776), ("0.5kilo", None, 512), ("0.1  byte", None, 0),
        ("1 k", None, 1024), ("KB", None, 1024), ("512", None, 512), ("1 M", "K", 1024), ("2 G", "M", 2048),
        ("G", "2M", 512),
    ],
)  # fmt: skip
def test_sizes_of_people_become_bytes(text: str, divider: str | None, size: int) -> None:
    assert math.human2bytes(text, divider) == size


@pytest.mark.parametrize("text", ["12 foo", "", ".", "1.2.3 M", "-1 K", "M 1"])
def test_a_size_that_cannot_be_understood_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="can't interpret"):
        math.human2bytes(text)


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0.0 B"), (0.9, "0.0 B"), (1, "1.0 B"), (1.9, "1.0 B"), (1024, "1.0 K"), (1048576, "1.0 M"),
     (1099511627776127398123789121, "909.5 Y")],
)  # fmt: skip
def test_bytes_become_sizes_for_people(number: float, shown: str) -> None:
    assert math.bytes2human(number) == shown


def test_symbols_and_format_can_be_chosen() -> None:
    assert math.bytes2human(9856, symbols="customary_ext") == "9.6 kilo"
    assert math.bytes2human(9856, symbols="iec") == "9.6 Ki"
    assert math.bytes2human(9856, symbols="iec_ext") == "9.6 kibi"
    assert math.bytes2human(10000, "%(value).1f %(symbol)s/sec") == "9.8 K/sec"
    with pytest.raises(ValueError):
        math.bytes2human(-1)


@pytest.mark.parametrize(
    ("a", "b", "greater"),
    [("1.2.3", "1.2", True), ("1.2", "1.2.3", False), ("1.2.3", "1.2.2", True), ("1.2.2", "1.2.3", False),
     ("1.2.N", "1.2.2", True), ("1.2.2", "1.2.N", False), ("21.0.22", "21.0.9", True), ("1.2", "1.2", True)],
)  # fmt: skip
def test_releases_are_compared_part_by_part(a: str, b: str, greater: bool) -> None:
    assert math.is_greater_or_equal(a, b) is greater


def test_a_release_is_split_into_numbers_and_words() -> None:
    assert math.split_version("1.2.3") == (1, 2, 3)
    assert math.split_version("1.2.Nightly") == (1, 2, "Nightly")
    assert math.split_version("YT4.11") == ("YT", 4, 11)
    assert (math.tryint("7"), math.tryint("x")) == (7, "x")


def test_sums_are_what_their_names_say() -> None:
    assert math.mean([1, 2, 6]) == 3
    assert math.sum_square_dev([1, 2, 6]) == 4 + 1 + 9
    assert math.sum_dev([1, 2, 6], [0, 0, 3]) == 2 + 1 + 6
    assert math.chi2([2, 5, 9], [1, 5, 0]) == 1.0
    with pytest.raises(ValueError):
        math.mean([])


def test_rounding_gives_as_many_digits_as_are_asked_for() -> None:
    assert math.float_to_rounded_string(3.1415, 2) == "3.14"
    assert math.float_to_rounded_string(2) == "2.000"
    assert math.float_to_rounded_string(-2.6, 0) == "-3"
    for number, precision in ((1.0, -1), (float("nan"), 2), (float("inf"), 2)):
        with pytest.raises(NotDefined):
            math.float_to_rounded_string(number, precision)


def test_lists_are_added_and_compared_without_repetitions() -> None:
    assert math.add_lists([1, 2, 3, 4], [3, 4, 5, 6]) == [1, 2, 3, 4, 5, 6]
    assert math.diff_lists([1, 2, 3], [2, 3, 4]) == [1, 4]
    assert math.convert_mb_to_b(2.9) == 2 * 1048576
