"""Fits and tables (names of chapter 7.3.2)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.api.analytics import Analytics, Fit
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import FileHandlingFailure, NotDefined, NotSameLength, PilotException, UnknownException

NUMBERS = st.floats(-1e6, 1e6)


@given(
    slope=st.floats(-1e4, 1e4),
    intersect=NUMBERS,
    x=st.lists(st.integers(0, 10**6), min_size=2, max_size=50, unique=True),
)
def test_points_on_a_line_give_the_line(slope: float, intersect: float, x: list[int]) -> None:
    fit = Fit(x=x, y=[slope * at + intersect for at in x])
    size = max(1.0, abs(slope) * 1e6, abs(intersect))
    assert fit.slope() == pytest.approx(slope, abs=1e-9 * size)
    assert fit.value(1000.0) == pytest.approx(slope * 1000 + intersect, abs=1e-6 * size)
    assert fit.fit() is fit


def test_a_known_fit_has_its_known_figures() -> None:
    # By hand: means 2 and 3, sums of squares 2 and 3, so slope 1.5 and intersect 0; expected 1.5, 3, 4.5.
    fit = Fit(x=[1, 2, 3], y=[2, 2, 5])
    assert (fit.slope(), fit.intersect()) == (1.5, 0.0)
    assert fit.chi2() == pytest.approx(0.25 / 1.5 + 1 / 3 + 0.25 / 4.5)


def test_times_since_1970_do_not_spoil_the_slope() -> None:
    x = [1795234567 + 60 * n for n in range(100)]
    assert Fit(x=x, y=[1_000_000 + 120 * n for n in range(100)]).slope() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, NotDefined),
        ({"x": [], "y": []}, NotDefined),
        ({"x": [1, 1], "y": [2, 3]}, NotDefined),
        ({"x": [1, 2], "y": [2, 3, 4]}, NotSameLength),
    ],
)
def test_what_cannot_be_fitted_is_named(arguments: dict[str, list[float]], error: type[PilotException]) -> None:
    with pytest.raises(error):
        Fit(**arguments)
    with pytest.raises(UnknownException, match="no fit: "):
        Analytics().fit(arguments.get("x", []), arguments.get("y", []))


def test_there_is_only_the_linear_model() -> None:
    with pytest.raises(PilotException) as raised:
        Fit(x=[1, 2], y=[1, 2], model="cubic")
    assert raised.value.code == ErrorCodes.NOTIMPLEMENTED


def test_a_service_answers_for_its_last_fit_and_has_none_at_first() -> None:
    service = Analytics()
    for ask in (service.slope, service.intersect, service.chi2):
        with pytest.raises(NotDefined):
            ask()
    service.fit([0, 1, 2], [1, 3, 5])
    assert (service.slope(), service.intersect(), service.chi2()) == (2.0, 1.0, 0.0)


TABLE = "Time\tpss\tswap\n" + "".join(f"{60 * n}\t{1000 + 120 * n}\t{n}\n" for n in range(20))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.txt"
    path.write_text(TABLE)
    return path


def test_a_table_is_columns_by_name(table: Path) -> None:
    found = Analytics().get_table(str(table))
    assert list(found) == ["Time", "pss", "swap"]
    assert found["pss"][:2] == [1000.0, 1120.0]
    assert Analytics().get_table(str(table), convert_to_float=False)["swap"][1] == "1"


def test_a_header_of_ones_own_and_another_separator_are_taken(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("1,2\n3,4\n")
    assert Analytics().get_table(str(tmp_path / "t"), header="a,b", separator=",") == {"a": [1.0, 3.0], "b": [2.0, 4.0]}


def test_half_a_line_and_lines_without_numbers_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("a\tb\n1\t2\nx\ty\n5\t6\n7")
    assert Analytics().get_table(str(tmp_path / "t")) == {"a": [1.0, 5.0], "b": [2.0, 6.0]}


def test_a_table_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileHandlingFailure):
            Analytics().get_table(str(path))


def test_columns_can_be_added_up(table: Path) -> None:
    service = Analytics()
    x, y = service.extract_from_table(service.get_table(str(table)), "Time", "pss+swap")
    assert (x[1], y[1]) == (60.0, 1121.0)
    with pytest.raises(NotDefined, match="no column rss"):
        service.extract_from_table(service.get_table(str(table)), "Time", "pss+rss")


def test_the_slope_of_memory_against_time_is_a_rounded_text(table: Path) -> None:
    service = Analytics()
    assert service.get_fitted_data(str(table)) == {"slope": "2.02", "chi2": "0.00"}
    assert service.get_fitted_data(str(table), y_name="swap", precision=4)["slope"] == "0.0167"
    assert service.get_fitted_data(str(table), tails=False)["slope"] == "2.02"


@pytest.mark.parametrize("text", ["", "Time\tpss\tswap\n", "Time\tpss\n1\t2\n", TABLE[:60], "\0\0\0"])
def test_too_few_samples_or_no_table_give_no_slope(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t"
    path.write_text(text)
    assert Analytics().get_fitted_data(str(path)) == {}
    assert Analytics().get_fitted_data(str(tmp_path / "none")) == {}
