"""The end of a slot, as tables: what counts, what happens when, and that little is left of nothing."""

from __future__ import annotations

import pytest

from pilot.control.rules.slot import Deadline, Plan, SlotSettings, Step, earliest, plan, step

SETTINGS = SlotSettings(reserve=120.0, grace=60.0, notice=120.0)


def test_the_earliest_end_counts() -> None:
    ends = [Deadline(500.0, "lifetime"), Deadline(300.0, "queue"), Deadline(400.0, "batch system")]
    assert earliest(ends) == Deadline(300.0, "queue")


@pytest.mark.parametrize(
    ("total", "soft", "stop", "hurry", "grace"),
    [
        (86400.0, 86100.0, 86220.0, 86360.0, 60.0),
        (960.0, 660.0, 780.0, 920.0, 60.0),
        # In a slot of a minute all parts shrink, and the payload still gets half of it.
        (60.0, 30.0, 37.5, 55.0, 7.5),
        (8.0, 4.0, 5.0, 8.0 - 2.0 / 3, 1.0),
        (0.0, 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_everything_has_its_time_before_the_end(
    total: float, soft: float, stop: float, hurry: float, grace: float
) -> None:
    made = plan(1000.0, 1000.0 + total, SETTINGS)
    assert (made.soft, made.stop, made.hurry, made.end) == pytest.approx(
        (1000.0 + soft, 1000.0 + stop, 1000.0 + hurry, 1000.0 + total)
    )
    assert made.grace == pytest.approx(grace)
    assert made.soft <= made.stop <= made.stop + made.grace <= made.hurry <= made.end


def test_an_end_before_the_start_leaves_nothing() -> None:
    made = plan(1000.0, 900.0, SETTINGS)
    assert step(1000.0, made)[0] is Step.HURRY


@pytest.mark.parametrize(
    ("now", "what", "following"),
    [
        (0.0, Step.NOTHING, 50.0),
        (49.9, Step.NOTHING, 50.0),
        (50.0, Step.SOFT, 60.0),
        (60.0, Step.STOP, 90.0),
        (89.0, Step.STOP, 90.0),
        (90.0, Step.HURRY, 100.0),
        (999.0, Step.HURRY, 100.0),
    ],
)
def test_each_step_comes_at_its_time(now: float, what: Step, following: float) -> None:
    assert step(now, Plan(50.0, 60.0, 90.0, 100.0, 5.0)) == (what, following)
