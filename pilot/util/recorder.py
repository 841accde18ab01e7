"""The flight recorder: a file of fixed size that holds what was decided and measured last, and survives kill -9.

It is written through shared memory, so an entry costs no system call, and what was written is in the file however the
pilot ends. Decisions and samples have a ring each: a week of samples pushes no decision out.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pilot.util.blot import without_secrets
from pilot.util.https import Json, parse_json

# In the pilot's work directory.
FILE = "flight.rec"
_MAGIC = b"pilotkit flight recorder 1\n"
_HEADER = 64
# Bytes of each ring: some 1,500 decisions (a job has about twenty), some 500 samples.
_SIZES = {"decisions": 192 * 1024, "samples": 64 * 1024}
# Each ring begins with the number of bytes that were ever written to it.
_COUNT = struct.Struct("<Q")
# Longest entry (bytes): a text that is longer is cut.
_LONGEST = 2048
_TEXT_LIMIT = 1000

Entry = dict[str, Json]


class Recorder:
    """Writes entries. Safe to use from several threads; what is wrong with it never holds up the pilot."""

    def __init__(self, path: Path | None, blot: Callable[[str], str] = without_secrets) -> None:
        """Make the file; None: no file, and nothing outlives the pilot. blot: takes the secrets out of each text.

        Raises OSError when it cannot be made.
        """
        self._blot = blot
        self._lock = threading.Lock()
        self._starts: dict[str, int] = {}
        size = _HEADER
        for name, length in _SIZES.items():
            self._starts[name] = size
            size += _COUNT.size + length
        self._map = mmap.mmap(-1, size) if path is None else _map_file(path, size)
        self._map[: len(_MAGIC)] = _MAGIC

    def decision(self, kind: str, **facts: Json) -> Entry:
        """Something that was decided, or has happened: with what it was decided on. Returns the entry."""
        return self._write("decisions", kind, facts)

    def sample(self, kind: str, **facts: Json) -> None:
        """Something that was measured."""
        self._write("samples", kind, facts)

    def close(self) -> None:
        """What is recorded after this is lost."""
        with self._lock:
            self._map.close()

    def _write(self, ring: str, kind: str, facts: Mapping[str, Json]) -> Entry:
        # Blotted before it is cut: half a signature is not recognised any more.
        cut = {name: self._blot(fact)[:_TEXT_LIMIT] if isinstance(fact, str) else fact for name, fact in facts.items()}
        entry: Entry = {"time": round(time.time(), 6), "kind": kind, **cut}
        line = json.dumps(entry).encode() + b"\n"
        if len(line) > _LONGEST:
            line = json.dumps({"time": round(time.time(), 6), "kind": kind, "too_long": len(line)}).encode() + b"\n"
        start, size = self._starts[ring], _SIZES[ring]
        with self._lock:
            if self._map.closed:
                return entry
            (count,) = _COUNT.unpack_from(self._map, start)
            place, data = count % size, start + _COUNT.size
            first = line[: size - place]
            self._map[data + place : data + place + len(first)] = first
            self._map[data : data + len(line) - len(first)] = line[len(first) :]
            # Last: an entry counts once it is there as a whole.
            _COUNT.pack_into(self._map, start, count + len(line))
        return entry


def _map_file(path: Path, size: int) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        # Not truncate alone: a page without a block on a full disk would kill the pilot when it is written to.
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def read(path: Path) -> list[Entry]:
    """All entries of a recorder's file, oldest first; those that a kill has cut are left out.

    Raises OSError, and ValueError for a file that is no recorder's.
    """
    data = path.read_bytes()
    if not data.startswith(_MAGIC) or len(data) != _HEADER + sum(_COUNT.size + size for size in _SIZES.values()):
        raise ValueError(f"{path} is no file of a flight recorder")
    found: list[Entry] = []
    start = _HEADER
    for size in _SIZES.values():
        (count,) = _COUNT.unpack_from(data, start)
        ring = data[start + _COUNT.size : start + _COUNT.size + size]
        place = count % size
        text = ring[:place] if count <= size else (ring[place:] + ring[:place]).partition(b"\n")[2]
        found += [entry for line in text.splitlines() if (entry := _entry(line)) is not None]
        start += _COUNT.size + size
    return sorted(found, key=_time)


def _entry(line: bytes) -> Entry | None:
    try:
        entry = parse_json(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("time"), float) else None


def _time(entry: Entry) -> float:
    when = entry["time"]
    return when if isinstance(when, float) else 0.0
