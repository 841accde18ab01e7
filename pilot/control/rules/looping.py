"""Is this payload hung? Decided from signs of life; nothing is read here (promise U3).

A payload is hung only when its CPU time, its I/O, its network traffic, its output and its files have all stood still
for the whole limit. Signs are compared with those of the look before, never with a clock, so that a clock that is set
does no harm; and time in which the payload could not move, because it was stopped or the machine was suspended, does
not count as standing still.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException


@dataclass(frozen=True)
class Signs:
    """Signs of life at one moment. Each number is only compared with the one before.

    cpu: CPU seconds of all processes; io: bytes read and written; network: bytes on connections; output: size and time
    of the payload's stdout and stderr; files: the same of all other files in its directory. stopped: all its processes
    are stopped.
    """

    cpu: float = 0.0
    io: int = 0
    network: int = 0
    output: tuple[int, int] = (0, 0)
    files: tuple[int, int] = (0, 0)
    stopped: bool = False


@dataclass(frozen=True)
class Warned:
    """The payload will be ended at the next check, unless something moves. still: seconds without any sign."""

    still: float


@dataclass(frozen=True)
class LoopingSettings:
    """limit: seconds without a sign of life; check: seconds between two looks; cpu: share of a core below which CPU use
    is only that of a process that looks now and then whether something has happened."""

    limit: float
    check: float
    cpu: float


class LoopingWatch:
    """Looks at the signs of one payload, one after the other."""

    def __init__(self, settings: LoopingSettings) -> None:
        self._settings = settings
        self._last: Signs | None = None
        self._looked = 0.0
        self._cpu_mark = 0.0
        self._stopped = False
        self._warned = False
        self.still = 0.0
        self.last_sign = "its start"

    def notice(self, stopped: bool) -> None:
        """Between two looks: whether the payload was seen stopped. Then the time between them does not count."""
        self._stopped = self._stopped or stopped

    def look(self, now: float, signs: Signs) -> Warned | PilotException | None:
        """Take the signs at `now`, on a clock that stands still while the machine is suspended (CLOCK_MONOTONIC).

        Returns a warning one check before the end, then the error.
        """
        last, self._last = self._last, signs
        elapsed, self._looked = now - self._looked, now
        stopped = self._stopped or signs.stopped or (last is not None and last.stopped)
        self._stopped = signs.stopped
        moved = "its start" if last is None else self._moved(last, signs, elapsed)
        if moved:
            self.still, self._warned, self._cpu_mark, self.last_sign = 0.0, False, signs.cpu, moved
            return None
        # A look that comes late means that the pilot could not run either: of such a time nobody knows anything.
        self.still += 0.0 if stopped or elapsed > 2 * self._settings.check else elapsed
        if self.still >= self._settings.limit and self._warned:
            return PilotException(self._text(), code=ErrorCodes.LOOPINGJOB)
        if self.still + self._settings.check >= self._settings.limit and not self._warned:
            self._warned = True
            return Warned(self.still)
        return None

    def _moved(self, last: Signs, signs: Signs, elapsed: float) -> str:
        """Which sign of life there was since the last look; empty without any."""
        # CPU time is measured against the last sign, not the last look: a trickle adds up, to nothing as well.
        if abs(signs.cpu - self._cpu_mark) > self._settings.cpu * (self.still + elapsed):
            return "CPU time"
        for name in ("io", "network", "output", "files"):
            if getattr(signs, name) != getattr(last, name):
                return {"io": "I/O", "network": "network traffic", "output": "output", "files": "a file"}[name]
        return ""

    def _text(self) -> str:
        return (
            f"no CPU time, no I/O, no network traffic, no output and no changed file for {self.still:.0f} s, "
            f"{self._settings.limit:.0f} s are allowed; the last sign of life was {self.last_sign}"
        )


def staging_verdict(phase: str, elapsed: float, limit: float) -> PilotException | None:
    """phase: stage-in or stage-out; elapsed: seconds in it; limit: seconds, 0 for none."""
    if limit <= 0 or elapsed < limit:
        return None
    code = ErrorCodes.STAGEINTIMEOUT if phase == "stage-in" else ErrorCodes.STAGEOUTTIMEOUT
    return PilotException(f"{phase} is not done after {elapsed:.0f} s, {limit:.0f} s are allowed", code=code)
