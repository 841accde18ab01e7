"""Memory: what the limit is, when it counts, and how closely it is watched; samples from a table, no clock."""

from __future__ import annotations

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.control.rules.memory import (
    MemoryLimit,
    MemorySample,
    MemorySettings,
    MemoryWatch,
    memory_limit,
    next_sample,
)
from pilot.util.processes import Large

MB = 1024  # kB


@pytest.mark.parametrize(
    ("minram", "maxrss", "cores", "queue_cores", "ucore", "kb", "source"),
    [
        (0, 0, 1, 1, False, None, ""),
        (0, -1, 1, 1, False, None, ""),
        (2000, 0, 1, 1, False, 2000 * MB, "minRamCount of the job"),
        (2000, 8000, 1, 8, False, 2000 * MB, "minRamCount of the job"),
        (2000, 8000, 4, 8, True, 2000 * MB, "minRamCount of the job"),
        (0, 8000, 1, 8, False, 8000 * MB, "maxrss of the queue"),
        (0, 8000, 8, 8, True, 8000 * MB, "maxrss of the queue"),
        (0, 8000, 1, 8, True, 1000 * MB, "maxrss of the queue for 1 of 8 core(s)"),
        (0, 2000, 4, 1, True, 8000 * MB, "maxrss of the queue for 4 of 1 core(s)"),
        (0, 2000, 4, 0, True, 8000 * MB, "maxrss of the queue for 4 of 0 core(s)"),
    ],
)
def test_the_job_says_its_limit_else_the_queue_and_a_ucore_queue_by_cores(
    minram: int, maxrss: int, cores: int, queue_cores: int, ucore: bool, kb: int | None, source: str
) -> None:
    wanted = None if kb is None else MemoryLimit(kb, source)
    assert memory_limit(minram, maxrss, cores, queue_cores, ucore) == wanted


def fate(samples: list[int], limit: int = 100, needed: int = 3) -> int | None:
    """The sample (from 0) that decides, in MB each; None when none does."""
    watch = MemoryWatch(MemoryLimit(limit * MB, "the test"), MemorySettings(needed, 80))
    for place, size in enumerate(samples):
        if watch.look(MemorySample(1000.0 + place, size * MB)) is not None:
            return place
    return None


@pytest.mark.parametrize(
    ("samples", "decides"),
    [
        ([], None),
        ([100] * 50, None),
        ([101, 101], None),
        ([101, 101, 101], 2),
        ([99, 110, 110, 110], 3),
        ([110, 110, 99, 110, 110, 99] * 5, None),
        ([110, 110, 100, 110, 110, 110], 5),
    ],
)
def test_only_samples_in_a_row_over_the_limit_decide(samples: list[int], decides: int | None) -> None:
    assert fate(samples) == decides


def test_one_sample_is_enough_where_the_setting_says_so() -> None:
    assert fate([99, 101], needed=1) == 1


def test_the_error_names_limit_source_samples_and_the_largest_processes() -> None:
    watch = MemoryWatch(MemoryLimit(100 * MB, "minRamCount of the job"), MemorySettings(2, 80))
    largest = (Large(7, "big", 90 * MB), Large(8, "small", 20 * MB))
    watch.look(MemorySample(3600.0, 105 * MB, largest))
    error = watch.look(MemorySample(3605.0, 110 * MB, largest))
    assert error is not None and error.code == ErrorCodes.PAYLOADEXCEEDMAXMEM
    assert error.diag == (
        "110 MB of memory, 100 MB are allowed (minRamCount of the job); over it 2 time(s) in a row: 01:00:00 105 MB, "
        "01:00:05 110 MB; largest: big (pid 7) 90 MB, small (pid 8) 20 MB"
    )
    assert watch.evidence() == "01:00:00 105 MB, 01:00:05 110 MB"


def test_without_a_limit_nothing_is_near_and_nothing_decides() -> None:
    watch = MemoryWatch(None, MemorySettings(1, 80))
    assert watch.look(MemorySample(0.0, 10**9)) is None
    assert not watch.is_near


@pytest.mark.parametrize(("mb", "near"), [(0, False), (79, False), (80, True), (100, True), (200, True)])
def test_near_begins_at_the_set_percentage(mb: int, near: bool) -> None:
    watch = MemoryWatch(MemoryLimit(100 * MB, "x"), MemorySettings(3, 80))
    watch.look(MemorySample(0.0, mb * MB))
    assert watch.is_near is near


@pytest.mark.parametrize(
    ("step", "near", "cost", "pause"),
    [
        (1.0, False, 0.001, 2.0),
        (32.0, False, 0.001, 60.0),
        (60.0, False, 0.01, 60.0),
        # A tree that takes 120 ms to look at is looked at every two minutes: a thousandth of a core.
        (60.0, False, 0.12, 120.0),
        (60.0, True, 0.12, 5.0),
        (1.0, True, 0.001, 5.0),
    ],
)
def test_pauses_double_up_to_the_longest_and_are_short_near_the_limit(
    step: float, near: bool, cost: float, pause: float
) -> None:
    assert next_sample(step, 60.0, 5.0, near, cost, 0.001) == pytest.approx(pause)


def test_near_the_limit_the_pause_is_never_longer_than_elsewhere() -> None:
    assert next_sample(1.0, 2.0, 5.0, True, 0.0, 0.001) == 2.0
