"""The documented names of pilot.util.timing, timer, parameters and disk: they do what chapter 7.3.2 says."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from argparse import Namespace
from pathlib import Path

import pytest

from pilot.common.exception import FileHandlingFailure
from pilot.util import constants as c
from pilot.util import timing
from pilot.util.disk import disk_usage
from pilot.util.parameters import convert_to_int, get_maximum_input_sizes
from pilot.util.processes import own_children
from pilot.util.timer import TimedProcess, TimedThread, TimeoutException, Timer, timeout


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def measured() -> Namespace:
    """A pilot's arguments with the times of job 7: each step takes a second more than the one before it."""
    args = Namespace()
    when = 1000.0
    timing.add_to_pilot_timing("0", c.PILOT_START_TIME, when, args)
    timing.add_to_pilot_timing("0", c.PILOT_MULTIJOB_START_TIME, time.time() - 50, args)
    for seconds, step in enumerate(["GETJOB", "SETUP", "STAGEIN", "PAYLOAD", "STAGEOUT", "FINAL_UPDATE"], 1):
        when += 10
        timing.add_to_pilot_timing("7", f"PILOT_PRE_{step}", when, args)
        when += seconds + 0.5
        timing.add_to_pilot_timing("7", f"PILOT_POST_{step}", when, args)
    return args


# ---- timing


def test_each_step_takes_its_time(here: Path) -> None:
    args = measured()
    steps = (
        timing.get_getjob_time, timing.get_setup_time, timing.get_stagein_time, timing.get_payload_execution_time,
        timing.get_stageout_time, timing.get_final_update_time,
    )  # fmt: skip
    assert [step("7", args) for step in steps] == [1, 2, 3, 4, 5, 6]
    assert timing.get_initial_setup_time("7", args) == 10
    assert timing.get_total_pilot_time("7", args) == 60 + 21 + 3
    assert timing.get_postgetjob_time("7", args) == 1011 and timing.get_postgetjob_time("8", args) is None
    assert timing.timing_report("7", args) == ("1", "3", "4", "5", "12")


def test_a_difference_does_not_depend_on_the_order_and_is_nothing_without_both(here: Path) -> None:
    args = measured()
    assert timing.get_time_difference("7", c.PILOT_POST_PAYLOAD, c.PILOT_PRE_PAYLOAD, args) == 4
    assert timing.get_time_difference("8", c.PILOT_PRE_PAYLOAD, c.PILOT_POST_PAYLOAD, args) == 0
    assert timing.get_payload_execution_time("7", Namespace()) == 0


def test_time_goes_on_since_a_measurement(here: Path) -> None:
    args = measured()
    assert 50 <= timing.get_time_since_multijob_start(args) < 200
    assert timing.get_time_since_start(args) > 1000000 < timing.get_time_since("7", c.PILOT_PRE_GETJOB, args)
    assert timing.get_time_since("7", "NEVER", args) == 0


def test_what_is_stored_is_read_by_who_has_no_arguments(here: Path) -> None:
    args = measured()
    assert timing.read_pilot_timing() == {}
    timing.add_to_pilot_timing("7", c.PILOT_END_TIME, 2000.0, args, store=True)
    assert json.loads(Path("pilot_timing.json").read_text())["7"][c.PILOT_END_TIME] == 2000.0
    assert timing.read_pilot_timing() == args.timing
    assert timing.get_payload_execution_time("7", Namespace()) == 4
    assert timing.get_time_measurement(c.PILOT_END_TIME, {}, args.timing, "7") == 2000.0
    assert timing.get_time_measurement(c.PILOT_START_TIME, {}, args.timing, "7") == 1000.0
    Path("pilot_timing.json").write_text("[]")
    with pytest.raises(FileHandlingFailure, match="holds no timings"):
        timing.read_pilot_timing()


def test_the_file_that_this_pilot_leaves_is_understood(here: Path) -> None:
    phases = {"getjob": 1.2, "stage-in": 2.2, "payload": 3.2, "stage-out": 4.2, "initial set-up": 5.2, "set-up": 6.2}
    timing.write_pilot_timing({"254": phases})
    assert timing.timing_report("254", Namespace()) == ("1", "2", "3", "4", "11")


def test_clocks_tell_the_time() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", timing.time_stamp())
    assert timing.get_elapsed_real_time(os.times()) == 0 < timing.get_elapsed_real_time()


# ---- functions with a time limit


def add(a: int, b: int = 0) -> int:
    return a + b


def refuse() -> None:
    raise KeyError("no")


@pytest.mark.parametrize("timer", [TimedProcess, TimedThread])
def test_what_a_function_returns_or_raises_comes_back(
    timer: type[TimedProcess] | type[TimedThread], capfd: pytest.CaptureFixture[str]
) -> None:
    assert timer(30).run(add, (1,), {"b": 2}) == 3
    with pytest.raises(KeyError, match="no"):
        timer(30).run(refuse, (), {})


def test_a_process_that_takes_too_long_is_gone() -> None:
    def endless() -> None:
        threading.Event().wait(600)

    children = own_children()
    with pytest.raises(TimeoutException, match=r"endless has not ended in time \(time limit: 1 s\)") as raised:
        timeout(1)(endless)()
    assert raised.value.timeout == 1 and Timer is TimedProcess
    assert own_children() == children


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(RuntimeError, match="without a result"):
        TimedProcess(30).run(os._exit, (3,), {})


def test_a_thread_that_takes_too_long_is_left() -> None:
    over = threading.Event()

    @timeout(0.05, timer=TimedThread)
    def slow() -> None:
        over.wait(60)

    with pytest.raises(TimeoutException):
        slow()
    over.set()
    for thread in threading.enumerate():
        if thread.name == "slow":
            thread.join()


def test_the_text_of_a_time_limit_is_plain() -> None:
    assert str(TimeoutException("too slow")) == "too slow"
    assert str(TimeoutException("too slow", 2.5, "more")) == "too slow (time limit: 2.5 s)"


# ---- parameters, disk


@pytest.mark.parametrize(
    ("given", "default", "wanted"),
    [("5", None, 5), (5.9, None, 5), ("x", 7, 7), ("x", None, None), (None, 0, 0), (float("inf"), 1, 1), ([], 2, 2)],
)
def test_a_parameter_becomes_a_number_or_the_default(given: object, default: int | None, wanted: int | None) -> None:
    assert convert_to_int(given, default=default) == wanted


def test_limits_and_space_are_told(tmp_path: Path) -> None:
    assert get_maximum_input_sizes() == 14336
    total, used, free = disk_usage(tmp_path)
    assert total >= used >= 0 and disk_usage(tmp_path).total == total and 0 <= free <= total
