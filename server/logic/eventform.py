"""The event ranges of a submitted job: how many events it has, how they are cut, and how they are merged at last."""

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
#: What the merge job itself does not know: key -> default, least, most. Inputs (PanDA's own limit for a job is 200) and
#: MB of inputs of one merge job (what JEDI allows for a job's output is 10 GB, client.md 3).
_MERGE_KEYS = {"max_inputs": (200, 1, 10_000), "max_size": (10_000, 1, 10**9)}


@dataclass(frozen=True)
class MergeForm:
    """How the ranges are merged.

    Attributes:
        job: the merge job as it is submitted, without its inputs, which are the archives.
        max_inputs: archives of one merge job.
        max_size: MB of archives of one merge job, unless a single one is larger.
    """

    job: Mapping[str, object]
    max_inputs: int
    max_size: int


@dataclass(frozen=True)
class EventForm:
    """The events of each input file of a job, or of the job itself when it has none.

    Attributes:
        number: how many.
        per_range: how many a range has; the last one may have fewer.
        first: number of the first.
        max_attempts: how often a range may fail.
        merge: how they are merged; None if that is somebody else's affair.
    """

    number: int
    per_range: int = 1
    first: int = 1
    max_attempts: int = 3
    merge: MergeForm | None = None

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
    strange = next((key for key in value if key not in _KEYS and key != "merge"), None)
    if strange is not None:
        return f"does not know {shown(strange)}; it may have {', '.join(_KEYS)}, merge"
    merge = _read_merge(value["merge"]) if value.get("merge") is not None else None
    if isinstance(merge, str):
        return f"merge {merge}"
    numbers = _read_numbers(value, _KEYS)
    if isinstance(numbers, str):
        return numbers
    if "number" not in value:
        return "needs number: how many events are there?"
    form = EventForm(**numbers, merge=merge)
    if -(-form.number // form.per_range) > MOST_RANGES:
        return f"makes more than {MOST_RANGES} ranges: give per_range a larger number"
    return form


def _read_merge(value: object) -> MergeForm | str:
    if not isinstance(value, Mapping):
        return f"must be an object like {{'command': 'merge.sh %IN', 'outputs': ['merged.root']}}, not {shown(value)}"
    limits = _read_numbers(value, _MERGE_KEYS)
    if isinstance(limits, str):
        return limits
    return MergeForm({key: one for key, one in value.items() if key not in _MERGE_KEYS}, **limits)


def _read_numbers(value: Mapping[object, object], keys: Mapping[str, tuple[int, int, int]]) -> dict[str, int] | str:
    """The numbers of an object, by key; a text says what is wrong with one."""
    numbers: dict[str, int] = {}
    for key, (default, least, most) in keys.items():
        number = value.get(key, default)
        if key in value and (isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most):
            return f"{key} must be a whole number between {least} and {most}, not {shown(number)}"
        assert isinstance(number, int)
        numbers[key] = number
    return numbers
