"""What a process counts of its own work: in a small file that all processes of this machine can read.

Each process that counts has a file of its own in <data>/metrics, mapped into memory: to count is to add to a number
there, which takes about a microsecond, and what was counted is not lost with the process, however it ends. The next
process takes the file over and counts on, so that sums never go back and files do not pile up. Whoever shows the
numbers adds up all files (server.routes.metrics).
"""

from __future__ import annotations

import bisect
import fcntl
import mmap
import os
import struct
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Size of a file in bytes: some 1,300 counters. What does not fit any more is not counted.
_SIZE = 256 * 1024
#: The first bytes of a file; another layout needs another word.
_MAGIC = b"pkcount1"
#: What an entry begins with: bytes of its name, padded to a multiple of eight, and its number of values. An entry is
#: there when its name is, so that a reader never sees half of one.
_HEAD = struct.Struct("<II")
_WORD = 8
_DOUBLE = struct.Struct("<d")
#: Between a metric's name and its labels, in the names of entries.
_SEPARATOR = "\t"
#: Longest label in characters; what is longer is cut.
_LONGEST = 100

#: Upper bounds of the histograms' buckets, in s: around what requests take, up to what a client waits for at most.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(frozen=True)
class Metric:
    """A thing that is counted.

    Attributes:
        kind: counter, gauge (of the present moment: nobody's when its process has gone) or histogram.
        text: what it is, with its unit.
        labels: their names; each set of values has a number of its own, so their values must be few.
    """

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many numbers it is: of a histogram the sum, one for each bucket, and one for what is beyond."""
        return len(BUCKETS) + 2 if self.kind == "histogram" else 1


_REQUEST = ("api", "method")
REQUESTS = Metric(
    "pilotkit_requests_total", "counter", "Requests that were answered, by HTTP status.", (*_REQUEST, "status")
)
SECONDS = Metric("pilotkit_request_seconds", "histogram", "Time a request took in a web worker.", _REQUEST)
IN_PROGRESS = Metric("pilotkit_requests_in_progress", "gauge", "Requests that web workers work on now.")
REFUSED = Metric("pilotkit_requests_refused_total", "counter", "Requests refused before they were read.", ("reason",))
GETJOB = Metric(
    "pilotkit_getjob_answers_total", "counter", "Answers to getJob: 'job', or why there is none.", ("reason",)
)
JOBS_GIVEN = Metric("pilotkit_jobs_given_total", "counter", "Jobs given to pilots.")
UPDATES = Metric(
    "pilotkit_updates_total", "counter", "Updates by the state reported and the answer's command.", ("state", "command")
)
UNAVAILABLE = Metric("pilotkit_database_unavailable_total", "counter", "Requests that the database did not answer.")
FOLLOWERS = Metric("pilotkit_event_clients", "gauge", "Clients that follow /events now.")
RUNS = Metric(
    "pilotkit_daemon_runs_total", "counter", "Runs of the daemon's scripts: begun, done, failed.", ("script", "end")
)
RUN_SECONDS = Metric("pilotkit_daemon_seconds_total", "counter", "Time the daemon's scripts took, in s.", ("script",))

METRICS = (
    REQUESTS,
    SECONDS,
    IN_PROGRESS,
    REFUSED,
    GETJOB,
    JOBS_GIVEN,
    UPDATES,
    UNAVAILABLE,
    FOLLOWERS,
    RUNS,
    RUN_SECONDS,
)
_BY_NAME = {metric.name: metric for metric in METRICS}


class Counters:
    """The counters of one process. Threads may share them."""

    def __init__(self, folder: Path | None = None, kind: str = "") -> None:
        """Take a file. Where the folder cannot be written nobody is disturbed, and nobody sees what is counted.

        Args:
            folder: made if it is not there; None for a process whose numbers nobody wants.
            kind: what the process is, like "web": the beginning of the file's name.
        """
        self._lock = threading.Lock()
        self._places: dict[tuple[str, ...], int | None] = {}
        descriptor, self._map = _take_file(folder, kind)
        self._close = weakref.finalize(self, _release, descriptor, self._map)
        self._end = len(_MAGIC)
        for entry in _entries(self._map):
            self._places[entry.name, *entry.labels] = entry.place
            self._end = entry.place + _WORD * entry.number
            metric = entry.metric()
            if metric is not None and metric.kind == "gauge":
                _DOUBLE.pack_into(self._map, entry.place, 0.0)

    def add(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """Add to a counter or a gauge."""
        with self._lock:
            place = self._place(metric, labels)
            if place is not None:
                _DOUBLE.pack_into(self._map, place, _DOUBLE.unpack_from(self._map, place)[0] + by)

    def observe(self, metric: Metric, *labels: str, value: float) -> None:
        """Add a value to a histogram."""
        bucket = 1 + bisect.bisect_left(BUCKETS, value)
        with self._lock:
            place = self._place(metric, labels)
            if place is not None:
                _DOUBLE.pack_into(self._map, place, _DOUBLE.unpack_from(self._map, place)[0] + value)
                place += _WORD * bucket
                _DOUBLE.pack_into(self._map, place, _DOUBLE.unpack_from(self._map, place)[0] + 1)

    def close(self) -> None:
        """Let the file go to the next process; nothing may be counted any more."""
        with self._lock:
            self._close()

    def _place(self, metric: Metric, labels: tuple[str, ...]) -> int | None:
        """Where a metric's numbers are; None if there is no room."""
        key = (metric.name, *labels)
        try:
            return self._places[key]
        except KeyError:
            place = self._places[key] = self._append(_name_of(key), metric.width)
            return place

    def _append(self, name: bytes, number: int) -> int | None:
        padded = -(-len(name) // _WORD) * _WORD
        begin = self._end
        place = begin + _HEAD.size + padded
        if place + _WORD * number > len(self._map):
            return None
        # The head last: a reader stops at the first that is empty.
        self._map[begin + _HEAD.size : begin + _HEAD.size + len(name)] = name
        _HEAD.pack_into(self._map, begin, len(name), number)
        self._end = place + _WORD * number
        return place


def _name_of(key: tuple[str, ...]) -> bytes:
    return _SEPARATOR.join(part[:_LONGEST].replace(_SEPARATOR, " ") for part in key).encode()


@dataclass(frozen=True)
class _Entry:
    """Numbers in a file: their name and labels, where they begin, and how many they are."""

    name: str
    labels: tuple[str, ...]
    place: int
    number: int

    def metric(self) -> Metric | None:
        """What they count; None for what only another version of the server counts."""
        metric = _BY_NAME.get(self.name)
        if metric is None or len(metric.labels) != len(self.labels) or metric.width != self.number:
            return None
        return metric


def _entries(content: bytes | mmap.mmap) -> Iterator[_Entry]:
    """The entries of a file in their order."""
    position = len(_MAGIC)
    while position + _HEAD.size <= len(content):
        length, number = _HEAD.unpack_from(content, position)
        begin = position + _HEAD.size
        place = begin + -(-length // _WORD) * _WORD
        if not length or place + _WORD * number > len(content):
            return
        name, *labels = content[begin : begin + length].decode(errors="replace").split(_SEPARATOR)
        yield _Entry(name, tuple(labels), place, number)
        position = place + _WORD * number


def _take_file(folder: Path | None, kind: str) -> tuple[int, mmap.mmap]:
    """The first file of a kind that nobody has, locked, and mapped; without a folder memory of our own."""
    if folder is None:
        return -1, mmap.mmap(-1, _SIZE)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = 0
        while True:
            descriptor = os.open(folder / f"{kind}-{number}.counts", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                os.close(descriptor)
                number += 1
        return descriptor, _mapped(descriptor)
    except OSError:
        return -1, mmap.mmap(-1, _SIZE)


def _mapped(descriptor: int) -> mmap.mmap:
    """A file in memory, emptied first if it is not one of ours."""
    if os.pread(descriptor, len(_MAGIC), 0) != _MAGIC or os.fstat(descriptor).st_size != _SIZE:
        os.ftruncate(descriptor, 0)
        os.ftruncate(descriptor, _SIZE)
        os.pwrite(descriptor, _MAGIC, 0)
    return mmap.mmap(descriptor, _SIZE)


def _release(descriptor: int, content: mmap.mmap) -> None:
    content.close()
    if descriptor >= 0:
        os.close(descriptor)


def read_all(folder: Path) -> dict[tuple[Metric, tuple[str, ...]], list[float]]:
    """The numbers of all processes of this machine, added up: (metric, labels) -> one number, or a histogram's."""
    total: dict[tuple[Metric, tuple[str, ...]], list[float]] = {}
    for path in sorted(folder.glob("*.counts")):
        try:
            content = path.read_bytes()
            alive = _is_locked(path)
        except OSError:
            continue  # somebody removed it
        for entry in _entries(content) if content.startswith(_MAGIC) else ():
            metric = entry.metric()
            if metric is None or (metric.kind == "gauge" and not alive):
                continue
            numbers = struct.unpack_from(f"<{entry.number}d", content, entry.place)
            before = total.get((metric, entry.labels), [0.0] * entry.number)
            total[metric, entry.labels] = [a + b for a, b in zip(before, numbers, strict=False)]
    return total


def _is_locked(path: Path) -> bool:
    """Whether a process has a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
