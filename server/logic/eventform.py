"""The event ranges of a submitted job: how many events it has, and how they are cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from server.logic.names import shown

#: More ranges of one job than this are a mistake; all of a call's ranges are stored in one transaction.
MOST_RANGES = 100_000
#: PanDA's own limit of attempts.
_MOST_ATTEMPTS = 50
#: Key -> default, least, most.
_KEYS = {
    "number": (0, 1, 10**12),
    "per_range": (1, 1, 10**12),
    "first": (1, 0, 10**12),
    "max_attempts": (3, 1, _MOST_ATTEMPTS),
}


@dataclass(frozen=True)
class EventForm:
    """The events of each input file of a job, or of the job itself when it has none.

    Attributes:
        number: how many.
        per_range: how many a range has; the last one may have fewer.
        first: number of the first.
        max_attempts: how often a range may fail.
    """

    number: int
    per_range: int = 1
    first: int = 1
    max_attempts: int = 3

    def ranges(self) -> Iterator[tuple[int, int]]:
        """First and last event of each range."""
        end = self.first + self.number
        for start in range(self.first, end, self.per_range):
            yield start, min(start + self.per_range, end) - 1


def read_events(value: object) -> EventForm | str | None:
    """The `events` of a submitted job; a text says what is wrong with them, None that there are none."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return f"must be an object like {{'number': 100, 'per_range': 10}}, not {shown(value)}"
    numbers: dict[str, int] = {}
    for key, number in value.items():
        if key not in _KEYS:
            return f"does not know {shown(key)}; it may have {', '.join(_KEYS)}"
        _, least, most = _KEYS[key]
        if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
            return f"{key} must be a whole number between {least} and {most}, not {shown(number)}"
        numbers[key] = number
    if "number" not in numbers:
        return "needs number: how many events are there?"
    form = EventForm(**numbers)
    if -(-form.number // form.per_range) > MOST_RANGES:
        return f"makes more than {MOST_RANGES} ranges: give per_range a larger number"
    return form
