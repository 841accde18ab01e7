"""May a failed attempt be followed by another one? A pure rule; rules by error (PanDA's retry module) belong here."""

from __future__ import annotations

from dataclasses import dataclass

#: The pilot was told to leave (SIGTERM), was preempted, or its slot ended: not the job's fault (pilot.md 3).
UNCHARGED_PILOT_CODES = frozenset({1201, 1379, 1213})
#: However often nobody is to blame, a job is not started more often than this beyond its attempts.
UNCHARGED_LIMIT = 20


@dataclass(frozen=True)
class Retry:
    """What follows a failed attempt.

    Attributes:
        again: the job is queued again with the next attempt number.
        charged: the attempt counts as one of those the job may fail.
    """

    again: bool
    charged: bool


def after_failure(*, attempt: int, failed_attempts: int, max_attempts: int, pilot_code: int, killed: bool) -> Retry:
    """What follows a failed attempt.

    A job with one attempt is never run twice, whoever is to blame: its owner may have a reason. The next attempt has
    the same PandaID; once there are tasks, a job of a task gets a new one instead (wire.md section 8), which is to be
    decided here.

    Args:
        attempt: number of the attempt that failed, from 1.
        failed_attempts: attempts charged before this one.
        max_attempts: how many the job may fail.
        pilot_code: the pilot's error code; 0 if it gave none.
        killed: somebody wanted the job to end.
    """
    charged = abs(pilot_code) not in UNCHARGED_PILOT_CODES
    left = failed_attempts + charged < max_attempts and attempt < max_attempts + UNCHARGED_LIMIT
    return Retry(again=left and max_attempts > 1 and not killed, charged=charged)
