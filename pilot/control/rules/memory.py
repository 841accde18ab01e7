"""Is this payload over its memory? Decided from samples; nothing is read here (promise U2)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.util.processes import Large

# So many samples are kept for the log: at the closest spacing, the last minute or two.
_KEPT = 20


@dataclass(frozen=True)
class MemoryLimit:
    """kb: what the payload may hold; source: who says so, for people."""

    kb: int
    source: str


def memory_limit(minramcount: int, maxrss: int, cores: int, queue_cores: int, ucore: bool) -> MemoryLimit | None:
    """The limit of a payload; None without one. minramcount, maxrss: MB, 0 when not set.

    What the job asks for holds; else what the queue gives. A UCORE queue runs jobs of any size and gives its maxrss to
    as many cores as it names, so that a job has its cores' share.
    """
    if minramcount > 0:
        return MemoryLimit(minramcount * 1024, "minRamCount of the job")
    if maxrss <= 0:
        return None
    if ucore and cores != queue_cores:
        share = maxrss * 1024 * cores // max(queue_cores, 1)
        return MemoryLimit(share, f"maxrss of the queue for {cores} of {queue_cores} core(s)")
    return MemoryLimit(maxrss * 1024, "maxrss of the queue")


@dataclass(frozen=True)
class MemorySettings:
    """samples: how many in a row must be over the limit; near: percent of the limit from which sampling is close."""

    samples: int
    near: float


@dataclass(frozen=True)
class MemorySample:
    """when: seconds since 1970; kb: what counts; largest: the largest processes at that moment."""

    when: float
    kb: int
    largest: Sequence[Large] = ()


class MemoryWatch:
    """Looks at the samples of one payload, one after the other."""

    def __init__(self, limit: MemoryLimit | None, settings: MemorySettings) -> None:
        self._limit = limit
        self._settings = settings
        self._over = 0
        self._samples: deque[MemorySample] = deque(maxlen=_KEPT)

    @property
    def is_near(self) -> bool:
        """Whether the last sample was so close to the limit that the next one should come soon."""
        if self._limit is None or not self._samples:
            return False
        return self._samples[-1].kb * 100 >= self._limit.kb * self._settings.near

    def look(self, sample: MemorySample) -> PilotException | None:
        """Take a sample; the error when it is the one that decides."""
        self._samples.append(sample)
        limit = self._limit
        self._over = self._over + 1 if limit is not None and sample.kb > limit.kb else 0
        if limit is None or self._over < self._settings.samples:
            return None
        text = (
            f"{_mb(sample.kb)} MB of memory, {_mb(limit.kb)} MB are allowed ({limit.source}); over it {self._over} "
            f"time(s) in a row: {self._told(self._settings.samples)}; largest: {describe(sample.largest)}"
        )
        return PilotException(text, code=ErrorCodes.PAYLOADEXCEEDMAXMEM)

    def evidence(self) -> str:
        """The last samples with their times, for the log; empty without any."""
        return self._told(_KEPT)

    def _told(self, count: int) -> str:
        last = list(self._samples)[-count:]
        return ", ".join(f"{time.strftime('%H:%M:%S', time.gmtime(one.when))} {_mb(one.kb)} MB" for one in last)


def describe(largest: Sequence[Large]) -> str:
    """The largest processes of a sample, for people."""
    return ", ".join(f"{one.name} (pid {one.pid}) {_mb(one.memory)} MB" for one in largest) or "no process"


def next_sample(step: float, longest: float, close: float, is_near: bool, cost: float, share: float) -> float:
    """Seconds to the next sample.

    step: the last pause; pauses double up to `longest`. close: the pause near the limit. cost: CPU seconds that the
    last sample took; away from the limit a sample may not use more than `share` of a core, however large the tree is.
    """
    if is_near:
        return min(close, longest)
    return max(min(step * 2, longest), cost / share)


def _mb(kb: int) -> str:
    return f"{kb / 1024:.0f}"
