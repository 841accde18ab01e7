"""A worker as Harvester describes it, checked field by field (harvester.md section 2.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from server.db.jobs import Value
from server.db.tables import WORKER_FACTS, workers
from server.logic.errors import BadField
from server.logic.fields import read_integer, read_text, read_time
from server.logic.names import shown

#: The states of a worker that will change again.
OPEN = ("pending", "ready", "submitted", "idle", "running")
#: Its last states.
OVER = ("finished", "failed", "cancelled", "missed")

#: How Harvester marks times in JSON.
_TIME_MARK = "datetime/"
_TIMES = frozenset({"submitTime", "startTime", "endTime"})
_INTEGERS = frozenset({"nCore", "nJobs", "syncLevel", "nativeExitCode", "errorCode", "minRamCount"})
#: More jobs of one worker than this are a mistake.
_MOST_JOBS = 10_000
#: A PandaID and a worker's number have 64 bits at most.
_DIGITS = 18


@dataclass(frozen=True)
class WorkerForm:
    """A checked worker.

    Attributes:
        row: workerID, status and WORKER_FACTS; None where Harvester said nothing.
        job_ids: PandaIDs of its jobs.
    """

    row: dict[str, Value]
    job_ids: list[int]

    @property
    def is_over(self) -> bool:
        """Whether it is in one of its last states."""
        return self.row["status"] in OVER


def read_worker(item: object) -> WorkerForm:
    """Check one item of update_workers. What this server has no column for is passed over.

    Raises:
        BadField: it is no worker, or one of its fields cannot be used.
    """
    if not isinstance(item, Mapping):
        raise BadField("workers", f"must be a list of objects, not of {shown(item)}")
    row: dict[str, Value] = {"workerID": read_worker_id("workerID", item.get("workerID"))}
    status = item.get("status")
    if status not in OPEN + OVER:
        raise BadField("status", f"must be one of {', '.join(OPEN + OVER)}, not {shown(status)}")
    row["status"] = str(status)
    for name in WORKER_FACTS:
        value = item.get(name)
        row[name] = None if value is None else _reader(name)(name, value)
    return WorkerForm(row, _job_ids(item.get("pandaid_list")))


def read_worker_id(name: str, value: object) -> str:
    """The number of a worker, as text.

    Raises:
        BadField: it is no such number.
    """
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise BadField(name, f"must be a worker's number, not {shown(value)}")
    return text


def read_moment(name: str, value: object) -> float:
    """A time as Harvester writes it: text in UTC, perhaps with its mark in front.

    Raises:
        BadField: it is none.
    """
    return read_time(name, value.removeprefix(_TIME_MARK) if isinstance(value, str) else value)


def cut(name: str, value: object, length: int | None) -> str:
    """A text, as much of it as its column takes.

    Raises:
        BadField: it is none.
    """
    return read_text(name, value)[:length]


def _reader(name: str) -> Callable[[str, object], Value]:
    if name in _TIMES:
        return read_moment
    if name in _INTEGERS:
        return lambda name, value: read_integer(name, value, wide=False)
    length = getattr(workers.c[name].type, "length", None)
    return lambda name, value: cut(name, value, length)


def _job_ids(value: object) -> list[int]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MOST_JOBS:
        raise BadField("pandaid_list", f"must be a list of at most {_MOST_JOBS} PandaIDs, not {shown(value)}")
    return [int(read_job_id(item)) for item in value]


def read_job_id(item: object) -> str:
    """A PandaID, as text.

    Raises:
        BadField: it is none.
    """
    text = str(item) if isinstance(item, int | str) and not isinstance(item, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise BadField("pandaid_list", f"has an item that is no PandaID: {shown(item)}")
    return text
