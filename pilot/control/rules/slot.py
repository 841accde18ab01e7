"""How long may this payload run? The end of the slot and what comes before it; nothing is read here (promise U5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Deadline:
    """when: seconds since 1970; source: who says so, for people."""

    when: float
    source: str


def earliest(deadlines: Iterable[Deadline]) -> Deadline:
    """The one that counts. There is always the pilot's own lifetime."""
    return min(deadlines, key=lambda deadline: deadline.when)


@dataclass(frozen=True)
class SlotSettings:
    """Seconds: reserve for stage-out and log, grace between TERM and KILL, notice between soft signal and TERM."""

    reserve: float
    grace: float
    notice: float


@dataclass(frozen=True)
class Plan:
    """Seconds since 1970: soft signal, TERM, the end of stage-out (the log must go now), the end of the slot."""

    soft: float
    stop: float
    hurry: float
    end: float
    grace: float


def plan(started: float, end: float, settings: SlotSettings) -> Plan:
    """When what happens. In a short slot everything shrinks, so that the payload still gets half of it.

    Of the time that is reserved for stage-out the last third is the log's: it tells why.
    """
    total = max(end - started, 0.0)
    reserve = min(settings.reserve, total / 4)
    grace = min(settings.grace, total / 8)
    stop = end - reserve - grace
    return Plan(soft=stop - min(settings.notice, total / 8), stop=stop, hurry=end - reserve / 3, end=end, grace=grace)


class Step(Enum):
    """What the end of the slot asks for."""

    NOTHING = 0
    SOFT = 1
    STOP = 2
    HURRY = 3


def step(now: float, planned: Plan) -> tuple[Step, float]:
    """What is due at `now`, and when the next thing is."""
    if now < planned.soft:
        return Step.NOTHING, planned.soft
    if now < planned.stop:
        return Step.SOFT, planned.stop
    if now < planned.hurry:
        return Step.STOP, planned.hurry
    return Step.HURRY, planned.end
