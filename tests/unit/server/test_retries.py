"""What follows a failed attempt."""

from __future__ import annotations

import pytest

from server.logic.retries import UNCHARGED_LIMIT, UNCHARGED_PILOT_CODES, Retry, after_failure


def after(**values: object) -> Retry:
    usual: dict[str, object] = {
        "attempt": 1,
        "failed_attempts": 0,
        "max_attempts": 3,
        "pilot_code": 1305,
        "killed": False,
    }
    return after_failure(**{**usual, **values})  # type: ignore[arg-type]


def test_a_job_with_attempts_left_is_queued_again() -> None:
    assert after() == Retry(again=True, charged=True)


def test_the_last_attempt_is_the_last() -> None:
    assert not after(attempt=3, failed_attempts=2).again


def test_a_job_with_one_attempt_is_never_run_twice() -> None:
    assert not after(max_attempts=1).again
    assert not after(max_attempts=1, pilot_code=1201).again


@pytest.mark.parametrize("code", sorted(UNCHARGED_PILOT_CODES))
def test_being_preempted_is_not_charged(code: int) -> None:
    assert after(attempt=2, failed_attempts=1, max_attempts=2, pilot_code=code) == Retry(again=True, charged=False)


def test_even_that_comes_to_an_end() -> None:
    assert not after(attempt=3 + UNCHARGED_LIMIT, failed_attempts=0, pilot_code=1201).again


def test_a_killed_job_stays_dead() -> None:
    assert not after(killed=True).again
