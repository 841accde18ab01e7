"""Updates that a server has not taken yet, on disk, in order.

Each pilot has a directory of its own below the spool, and holds a lock on it while it lives. A pilot that starts looks
for directories whose lock is free: their owner is dead, and what it left behind is delivered by the newcomer.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from pilot.util.filehandling import try_lock
from pilot.util.https import Json, parse_json

_LOCK = "lock"
_SUFFIX = ".update.json"
# How the name of a directory begins that is not locked yet.
_UNFINISHED = ".new-"
# How often a root that is removed meanwhile is made again.
_TRIES = 5


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
    """The spool of one pilot. Several threads may add and remove updates."""

    def __init__(self, root: Path) -> None:
        """Make this pilot's directory below `root`. Raises OSError when that cannot be done."""
        self._root = root
        self._numbers = itertools.count(1)
        self._path, self._lock = _new_directory(root)

    def next_number(self) -> int:
        """A place in the order of delivery, for an update that may have to be written later."""
        return next(self._numbers)

    def add(self, update: SpooledUpdate, number: int) -> Path:
        """Write an update so that it survives a crash of the pilot and of the node; return its file.

        number: its place in the order of delivery; an update of the same job and state in that place is replaced.
        """
        path = self._path / f"{number:06d}_{update.body.get('jobId')}_{update.body.get('state')}{_SUFFIX}"
        beside = path.with_suffix(".part")
        with beside.open("w", encoding="utf-8") as stream:
            json.dump(asdict(update), stream)
            stream.flush()
            os.fsync(stream.fileno())
        beside.rename(path)
        # The new name is only safe from a crash of the node once the directory is on disk too.
        directory = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return path

    def write_will(self, update: SpooledUpdate) -> None:
        """Keep what is to be delivered if this pilot dies before the job's final update; one a job. Raises OSError.

        It comes after all that is spooled of the job. It is not forced to the disk: if the node itself crashes, the
        server has to notice.
        """
        path = self._will(str(update.body.get("jobId")))
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(asdict(update)), encoding="utf-8")
        beside.rename(path)

    def remove_will(self, jobid: str) -> None:
        """The job's end is told, or on disk."""
        with suppress(FileNotFoundError):
            self._will(jobid).unlink()

    def _will(self, jobid: str) -> Path:
        # The name sorts behind the numbers of updates.
        return self._path / f"will_{jobid}{_SUFFIX}"

    def remove(self, path: Path) -> None:
        """The update was delivered."""
        with suppress(FileNotFoundError):
            path.unlink()

    def left(self) -> int:
        """How many updates of this pilot are still to be delivered; a will is none while its pilot lives."""
        return len([path for path in _updates(self._path) if not path.name.startswith("will_")])

    def orphans(self) -> Iterator[tuple[Path, SpooledUpdate]]:
        """What dead pilots left behind, oldest first, each with its file. Files that cannot be read are left alone.

        The directory of a dead pilot is locked while its updates are handed out, so that no second pilot sends them
        too, and removed when nothing is left in it.
        """
        directories = [p for p in self._root.iterdir() if not p.name.startswith(_UNFINISHED) and p != self._path]
        for directory in sorted(directories, key=_age):
            lock = try_lock(directory / _LOCK)
            if lock is None:
                continue
            with lock:
                for path in _updates(directory):
                    update = _read(path)
                    if update is not None:
                        yield path, update
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


def _new_directory(root: Path) -> tuple[Path, IO[str] | None]:
    """Make a directory and lock it; it gets its name once it is locked, so that nobody takes it for a dead pilot's.

    Another pilot that leaves may remove the root between two steps: then all is done once more.
    """
    name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    beside = root / f"{_UNFINISHED}{name}"
    for tries_left in reversed(range(_TRIES)):
        try:
            root.mkdir(parents=True, exist_ok=True)
            beside.mkdir(mode=0o700)
            break
        except (FileNotFoundError, FileExistsError):
            if not tries_left:
                raise
    lock = try_lock(beside / _LOCK)
    if lock is None:
        raise OSError(errno.ENOLCK, "its lock cannot be had (a file system without locks?)", str(beside))
    try:
        return beside.rename(root / name), lock
    except OSError:
        lock.close()
        raise


def _age(directory: Path) -> float:
    try:
        return directory.stat().st_mtime
    except OSError:
        return 0.0


def _read(path: Path) -> SpooledUpdate | None:
    """The update in a file, or None when the file cannot be read or holds something else."""
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    server, claim, body = found.get("server"), found.get("claim"), found.get("body")
    if not isinstance(server, str) or not isinstance(claim, str) or not isinstance(body, dict):
        return None
    return SpooledUpdate(server, claim, body)


def _updates(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.name.endswith(_SUFFIX))
    except OSError:
        return []
