"""Times of a pilot's steps (documented names): kept with the pilot's arguments, stored in pilot_timing.json.

A timing dictionary is {job id: {constant: seconds since 1970}}; job id "0" has what belongs to the pilot as a whole.
The constants are those of pilot.util.constants. What this pilot leaves in pilot_timing.json, {job id: {step: seconds}},
is understood as well. Without a measurement a time is 0.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from datetime import datetime, timezone

from pilot.common.exception import FileHandlingFailure
from pilot.util import constants as c
from pilot.util.config import read
from pilot.util.filehandling import read_json, write_json
from pilot.util.https import Json

log = logging.getLogger(__name__)

Timing = dict[str, dict[str, float]]
# The "job" that the pilot's own times are kept under.
_PILOT = "0"
# Steps as this pilot measures them, by the constants that begin and end each.
_STEPS = {
    frozenset({c.PILOT_START_TIME, c.PILOT_PRE_GETJOB}): "initial set-up",
    frozenset({c.PILOT_PRE_GETJOB, c.PILOT_POST_GETJOB}): "getjob",
    frozenset({c.PILOT_PRE_SETUP, c.PILOT_POST_SETUP}): "set-up",
    frozenset({c.PILOT_PRE_STAGEIN, c.PILOT_POST_STAGEIN}): "stage-in",
    frozenset({c.PILOT_PRE_PAYLOAD, c.PILOT_POST_PAYLOAD}): "payload",
    frozenset({c.PILOT_PRE_STAGEOUT, c.PILOT_POST_STAGEOUT}): "stage-out",
}


def _path() -> str:
    return os.path.join(os.getcwd(), read().pilot.timing_file)


def read_pilot_timing() -> Timing:
    """The timing dictionary in the current directory's pilot_timing.json; empty when there is none.

    Raises FileHandlingFailure when it holds something else.
    """
    if not os.path.exists(_path()):
        return {}
    found = read_json(_path())
    if not isinstance(found, dict):
        raise FileHandlingFailure(f"{_path()} holds no timings")
    return {job: _numbers(times) for job, times in found.items()}


def _numbers(times: Json) -> dict[str, float]:
    if not isinstance(times, dict):
        return {}
    return {name: float(when) for name, when in times.items() if isinstance(when, (int, float))}


def write_pilot_timing(pilot_timing_dictionary: Mapping[str, Mapping[str, float]]) -> None:
    """Write a timing dictionary to the current directory's pilot_timing.json. Raises FileHandlingFailure."""
    write_json(_path(), {job: dict(times) for job, times in pilot_timing_dictionary.items()})


def add_to_pilot_timing(
    job_id: str, timing_constant: str, time_measurement: float, args: object, store: bool = False
) -> None:
    """Keep a measurement (seconds since 1970) with the pilot's arguments, as their attribute `timing`.

    store: write the file, too. Raises FileHandlingFailure.
    """
    timing = vars(args).setdefault("timing", {})
    timing.setdefault(str(job_id), {})[timing_constant] = time_measurement
    if store:
        write_pilot_timing(timing)


def _timing(args: object) -> Timing:
    """What was kept with the arguments, else what the file has."""
    kept: Timing = getattr(args, "timing", None) or read_pilot_timing()
    return kept


def get_time_measurement(
    timing_constant: str,
    time_measurement_dictionary: Mapping[str, float],
    timing_dictionary: Mapping[str, Mapping[str, float]],
    job_id: str,
) -> float:
    """A measurement of a job (its own dictionary), else of the pilot as a whole (in the full one); 0.0 without one."""
    own = time_measurement_dictionary.get(timing_constant)
    if own is None:
        own = timing_dictionary.get(str(job_id), {}).get(timing_constant)
    return timing_dictionary.get(_PILOT, {}).get(timing_constant, 0.0) if own is None else own


def get_time_difference(job_id: str, timing_constant_1: str, timing_constant_2: str, args: object) -> int:
    """Whole seconds between two measurements of a job, whichever was first; 0 unless both are there."""
    timing = _timing(args)
    own = timing.get(str(job_id), {})
    first, second = (get_time_measurement(name, own, timing, job_id) for name in (timing_constant_1, timing_constant_2))
    if first and second:
        return int(abs(second - first))
    return int(own.get(_STEPS.get(frozenset({timing_constant_1, timing_constant_2}), ""), 0.0))


def get_time_since(job_id: str, timing_constant: str, args: object) -> int:
    """Whole seconds since a measurement; 0 without it."""
    timing = _timing(args)
    when = get_time_measurement(timing_constant, timing.get(str(job_id), {}), timing, job_id)
    return max(0, int(time.time() - when)) if when else 0


def get_time_since_start(args: object) -> int:
    """Whole seconds since the pilot began."""
    return get_time_since(_PILOT, c.PILOT_START_TIME, args)


def get_time_since_multijob_start(args: object) -> int:
    """Whole seconds since the pilot began with its last job."""
    return get_time_since(_PILOT, c.PILOT_MULTIJOB_START_TIME, args)


def get_initial_setup_time(job_id: str, args: object) -> int:
    """Whole seconds from the pilot's start to its request for this job."""
    return get_time_difference(job_id, c.PILOT_START_TIME, c.PILOT_PRE_GETJOB, args)


def get_getjob_time(job_id: str, args: object) -> int:
    """Whole seconds for getting the job."""
    return get_time_difference(job_id, c.PILOT_PRE_GETJOB, c.PILOT_POST_GETJOB, args)


def get_setup_time(job_id: str, args: object) -> int:
    """Whole seconds for setting the payload up."""
    return get_time_difference(job_id, c.PILOT_PRE_SETUP, c.PILOT_POST_SETUP, args)


def get_stagein_time(job_id: str, args: object) -> int:
    """Whole seconds for stage-in."""
    return get_time_difference(job_id, c.PILOT_PRE_STAGEIN, c.PILOT_POST_STAGEIN, args)


def get_payload_execution_time(job_id: str, args: object) -> int:
    """Whole seconds for the payload."""
    return get_time_difference(job_id, c.PILOT_PRE_PAYLOAD, c.PILOT_POST_PAYLOAD, args)


def get_stageout_time(job_id: str, args: object) -> int:
    """Whole seconds for stage-out."""
    return get_time_difference(job_id, c.PILOT_PRE_STAGEOUT, c.PILOT_POST_STAGEOUT, args)


def get_final_update_time(job_id: str, args: object) -> int:
    """Whole seconds for the final update."""
    return get_time_difference(job_id, c.PILOT_PRE_FINAL_UPDATE, c.PILOT_POST_FINAL_UPDATE, args)


def get_total_pilot_time(job_id: str, args: object) -> int:
    """Whole seconds from the pilot's start to the end of the job's final update."""
    return get_time_difference(job_id, c.PILOT_START_TIME, c.PILOT_POST_FINAL_UPDATE, args)


def get_postgetjob_time(job_id: str, args: object) -> int | None:
    """When the job had been got (whole seconds since 1970); None when that was not measured."""
    timing = _timing(args)
    when = get_time_measurement(c.PILOT_POST_GETJOB, timing.get(str(job_id), {}), timing, job_id)
    return int(when) if when else None


def timing_report(job_id: str, args: object) -> tuple[str, str, str, str, str]:
    """Whole seconds for getjob, stage-in, payload, stage-out and all set-up, as texts; they go into the log, too."""
    setup = get_initial_setup_time(job_id, args) + get_setup_time(job_id, args)
    steps = {
        "getjob": get_getjob_time(job_id, args),
        "stage-in": get_stagein_time(job_id, args),
        "payload": get_payload_execution_time(job_id, args),
        "stage-out": get_stageout_time(job_id, args),
        "set-up": setup,
    }
    log.info("times of job %s (s): %s", job_id, ", ".join(f"{name} {seconds}" for name, seconds in steps.items()))
    getjob, stagein, payload, stageout, total = (str(seconds) for seconds in steps.values())
    return getjob, stagein, payload, stageout, total


def get_elapsed_real_time(t0: os.times_result | None = None) -> int:
    """Whole seconds since `t0`, an earlier os.times(), or since some fixed moment of the past."""
    return int(os.times().elapsed - (t0.elapsed if t0 is not None else 0.0))


def time_stamp() -> str:
    """Now, as ISO 8601 has it: 2026-11-21T06:55:00+00:00."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
