"""Whether a transfer is stalled or too slow: decided from samples, without a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """stall: seconds without any progress; fixed: seconds that any transfer may take; speed: bytes/s beyond that."""

    stall: float
    fixed: float
    speed: float

    def total(self, size: int) -> float:
        """The longest that a file of `size` bytes may take (s)."""
        return self.fixed + size / self.speed


class Watch:
    """Looks at one transfer of `size` bytes (0: not known, and then only progress counts)."""

    def __init__(self, limits: Limits, size: int, started: float) -> None:
        self._limits = limits
        self._size = size
        self._started = started
        self._moved = started
        self._last = 0

    def look(self, now: float, progress: int) -> str:
        """Why to stop, or an empty text. progress: any figure that changes while bytes move."""
        if progress != self._last:
            self._last, self._moved = progress, now
        if now - self._moved >= self._limits.stall:
            return f"no byte moved for {now - self._moved:.0f} s"
        total = self._limits.total(self._size)
        if self._size and now - self._started >= total:
            return f"not done after {now - self._started:.0f} s, the limit for {self._size} bytes"
        return ""
