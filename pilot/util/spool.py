"""Updates that a server has not taken yet, on disk, in order.

Each pilot has a directory of its own below the spool, and holds a lock on it while it lives. A pilot that starts
looks for
directories whose lock is free: their owner is dead, and what it left behind is delivered by the newcomer.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from pilot.util.https import Json

_LOCK = "lock"
_SUFFIX = ".update.json"


@dataclass(frozen=True)
class SpooledUpdate:
    """One updateJob call: the server it is for, the claim it is made under, and its body in legacy names."""

    server: str
    claim: str
    body: Mapping[str, Json]

    @property
    def is_final(self) -> bool:
        """Whether the update ends its job."""
        return self.body.get("state") in ("finished", "failed", "holding")


class Spool:
    """The spool of one pilot. Not for several threads at once, except that `add` and `remove` touch different files."""

    def __init__(self, root: Path) -> None:
        """Make this pilot's directory below `root`. Raises OSError when that cannot be done."""
        self._root = root
        self._path = root / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._count = 0
        self._path.mkdir(parents=True, mode=0o700)
        lock = _lock(self._path)
        if lock is None:
            raise FileExistsError(f"{self._path} is in use by another pilot")
        self._lock: IO[str] | None = lock

    def add(self, update: SpooledUpdate) -> Path:
        """Write an update so that it survives a crash of the pilot and of the node; return its file."""
        self._count += 1
        path = self._path / f"{self._count:06d}_{update.body.get('jobId')}_{update.body.get('state')}{_SUFFIX}"
        beside = path.with_suffix(".part")
        with beside.open("w", encoding="utf-8") as stream:
            json.dump(asdict(update), stream)
            stream.flush()
            os.fsync(stream.fileno())
        beside.rename(path)
        return path

    def remove(self, path: Path) -> None:
        """The update was delivered."""
        with suppress(FileNotFoundError):
            path.unlink()

    def left(self) -> int:
        """How many updates of this pilot are still to be delivered."""
        return len(_updates(self._path))

    def orphans(self) -> Iterator[tuple[Path, SpooledUpdate]]:
        """What dead pilots left behind, oldest first, each with its file. Files that cannot be read are left alone.

        The directory of a dead pilot is locked while its updates are handed out, so that no second pilot sends them
        too,
        and removed when nothing is left in it.
        """
        for directory in sorted(p for p in self._root.iterdir() if p.is_dir() and p != self._path):
            lock = _lock(directory)
            if lock is None:
                continue
            with lock:
                for path in _updates(directory):
                    with suppress(OSError, ValueError, TypeError):
                        yield path, SpooledUpdate(**json.loads(path.read_text(encoding="utf-8")))
                if not _updates(directory):
                    shutil.rmtree(directory, ignore_errors=True)

    def close(self) -> None:
        """Give the lock back; the directory goes unless something is left in it, the root unless others are in it."""
        if self._lock is None:
            return
        if not self.left():
            shutil.rmtree(self._path, ignore_errors=True)
        self._lock.close()
        self._lock = None
        with suppress(OSError):
            self._root.rmdir()


def _updates(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.name.endswith(_SUFFIX))
    except FileNotFoundError:
        return []


def _lock(directory: Path) -> IO[str] | None:
    """The open, locked lock file of a directory, or None when its owner lives (or it is not ours to lock)."""
    try:
        stream = (directory / _LOCK).open("a", encoding="utf-8")
    except OSError:
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        return None
    return stream
