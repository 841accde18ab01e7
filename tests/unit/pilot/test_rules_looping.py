"""Hung or not: signs of life from tables, on a clock of the test's own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.rules.looping import LoopingSettings, LoopingWatch, Signs, Warned, staging_verdict

CHECK, LIMIT = 600.0, 7200.0
SETTINGS = LoopingSettings(LIMIT, CHECK, 0.001)


def play(signs: list[Signs], step: float = CHECK) -> list[str]:
    """What the watch says at each look, a step after the other: "" for nothing, "warned", "ended"."""
    watch = LoopingWatch(SETTINGS)
    said = []
    for place, sign in enumerate(signs):
        found = watch.look(1000.0 + place * step, sign)
        said.append("ended" if isinstance(found, PilotException) else "warned" if isinstance(found, Warned) else "")
    return said


def test_a_payload_without_any_sign_is_warned_one_check_before_the_limit_and_then_ended() -> None:
    assert play([Signs()] * 13) == [""] * 11 + ["warned", "ended"]


def still_but(**changes: tuple[object, ...]) -> list[Signs]:
    """Thirty looks at a payload of which one thing changes each time."""
    ((name, (first, second)),) = changes.items()
    return [replace(Signs(), **{name: (first, second)[place % 2]}) for place in range(30)]


@pytest.mark.parametrize(
    "signs",
    [
        [Signs(cpu=float(place)) for place in range(30)],
        still_but(io=(10, 11)),
        still_but(io=(11, 10)),
        still_but(network=(1, 2)),
        still_but(output=((5, 1), (5, 2))),
        still_but(output=((5, 1), (6, 1))),
        still_but(files=((5, 1), (5, 2))),
        still_but(files=((5, 1), (4, 1))),
    ],
)
def test_any_one_sign_of_life_is_enough(signs: list[Signs]) -> None:
    assert set(play(signs)) == {""}


@pytest.mark.parametrize("at", range(1, 12))
def test_a_sign_begins_the_count_anew_and_the_warning_too(at: int) -> None:
    said = play([Signs(io=int(place >= at)) for place in range(30)])
    assert said[: at + 11] == [""] * (at + 11)
    assert said[at + 11 : at + 13] == ["warned", "ended"]


def test_a_payload_that_moves_after_its_warning_lives_on() -> None:
    said = play([Signs(io=int(place >= 12)) for place in range(14)])
    assert said == [""] * 11 + ["warned", "", ""]


@pytest.mark.parametrize(
    ("share", "ended"), [(0.0, True), (0.0005, True), (0.0009, True), (0.002, False), (1.0, False)]
)
def test_a_trickle_of_cpu_time_below_the_set_share_is_no_sign_of_life(share: float, ended: bool) -> None:
    said = play([Signs(cpu=share * CHECK * place) for place in range(14)])
    assert ("ended" in said) is ended


def test_cpu_time_that_shrinks_because_children_ended_is_a_sign_too() -> None:
    assert "ended" not in play([Signs(cpu=100.0 if place % 2 else 50.0) for place in range(30)])


def test_time_in_which_the_payload_is_stopped_does_not_count() -> None:
    assert set(play([Signs(stopped=True)] * 100)) == {""}


def test_the_time_before_and_after_a_look_at_which_it_is_stopped_does_not_count() -> None:
    # Eleven steps count; the two beside the look at which it was stopped do not.
    stopped = [Signs()] * 5 + [Signs(stopped=True)] + [Signs()] * 8
    assert play(stopped) == [""] * 13 + ["warned"]


def test_a_stop_that_was_seen_between_two_looks_does_not_count_either() -> None:
    watch = LoopingWatch(SETTINGS)
    watch.look(0.0, Signs())
    watch.look(600.0, Signs())
    watch.notice(stopped=True)
    watch.notice(stopped=False)
    watch.look(1200.0, Signs())
    assert watch.still == 600.0
    watch.look(1800.0, Signs())
    assert watch.still == 1200.0


def test_a_look_that_comes_much_too_late_counts_for_nothing() -> None:
    # The pilot itself was stopped, with its payload as a rule.
    watch = LoopingWatch(SETTINGS)
    watch.look(0.0, Signs())
    assert watch.look(100_000.0, Signs()) is None
    assert watch.still == 0.0
    watch.look(100_600.0, Signs())
    assert watch.still == 600.0


def test_there_is_one_warning_even_when_the_check_is_longer_than_the_limit() -> None:
    watch = LoopingWatch(LoopingSettings(100.0, 600.0, 0.001))
    said = [watch.look(place * 600.0, Signs()) for place in range(3)]
    assert said[0] is None and isinstance(said[1], Warned) and isinstance(said[2], PilotException)


def test_the_error_says_how_long_what_is_allowed_and_what_the_last_sign_was() -> None:
    watch = LoopingWatch(LoopingSettings(100.0, 50.0, 0.001))
    watch.look(0.0, Signs())
    watch.look(50.0, Signs(network=7))
    watch.look(100.0, Signs(network=7))
    error = watch.look(150.0, Signs(network=7))
    assert isinstance(error, PilotException) and error.code == ErrorCodes.LOOPINGJOB
    assert error.diag == (
        "no CPU time, no I/O, no network traffic, no output and no changed file for 100 s, 100 s are allowed; the last "
        "sign of life was network traffic"
    )


@pytest.mark.parametrize(
    ("phase", "elapsed", "limit", "code"),
    [
        ("stage-in", 99.9, 100.0, 0),
        ("stage-in", 100.0, 100.0, ErrorCodes.STAGEINTIMEOUT),
        ("stage-out", 100.0, 100.0, ErrorCodes.STAGEOUTTIMEOUT),
        ("stage-in", 1e9, 0.0, 0),
    ],
)
def test_stage_in_and_stage_out_have_limits_of_their_own(phase: str, elapsed: float, limit: float, code: int) -> None:
    verdict = staging_verdict(phase, elapsed, limit)
    assert (verdict.code if verdict else 0) == code
    if verdict:
        assert verdict.diag == f"{phase} is not done after {elapsed:.0f} s, {limit:.0f} s are allowed"
