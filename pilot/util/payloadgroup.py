"""A control group of the payload's own, where one can be made.

All that is in it can be ended at once, whatever it does, and its memory is counted there. It lies below the pilot's own
group, so that every limit of the slot holds for it too. A living pilot has a lock on it, which the kernel gives back
however the pilot ends: a group without one is a dead pilot's, and the next pilot ends what is in it (promise N1). Where
no group can be made, the guard's sweep is all there is.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pilot.util.cgroups import MemoryGroup, directories
from pilot.util.guard import end_group, members, remove_group

# How the names of payloads' groups begin.
PREFIX = "pilotkit-payload-"
# How long (s) what was killed may take to be gone: a process can be stuck in the kernel. Then the group stays for the
# next pilot.
_END_LIMIT = 5.0
_END_PAUSE = 0.002
# Another pilot that starts may take a group for a dead one's in the moment before it is locked.
_ATTEMPTS = 3
_PROC = Path("/proc")


class PayloadGroup:
    """homes: one in each hierarchy that is used, with the pilot's own above it; memory: where its memory is counted, if
    it is.
    """

    def __init__(self) -> None:
        self.homes: dict[Path, Path] = {}
        self.memory: MemoryGroup | None = None
        self._locks: list[int] = []

    @classmethod
    def make(cls, proc: Path = _PROC) -> PayloadGroup | None:
        """A new one; None where there is none to be had."""
        group = cls()
        # One hierarchy of version 2 does all, where its controllers are handed down; else those of version 1 help out.
        for version, controller in ((2, ""), (1, "memory"), (1, "pids")):
            if (controller == "memory" and group.memory is not None) or (controller == "pids" and group.kills):
                continue
            parent, top = _own(controller, proc)
            directory, lock = _make_below(parent) if parent is not None else (None, -1)
            if parent is not None and directory is not None:
                group.homes[directory] = parent
                group._locks.append(lock)
                if (directory / "memory.stat").exists():
                    group.memory = MemoryGroup(directory, top, version)
        if group.kills or group.memory is not None:
            return group
        group.end()
        return None

    @property
    def directories(self) -> list[Path]:
        """One in each hierarchy that is used."""
        return list(self.homes)

    @property
    def kills(self) -> bool:
        """Whether the kernel ends all of it at once, or keeps it from growing meanwhile."""
        return any((one / name).exists() for one in self.homes for name in ("cgroup.kill", "pids.max"))

    def end(self) -> list[Path]:
        """End all that is in it and remove it; return what could not be removed."""
        left = [directory for directory in self.homes if not _end(directory)]
        for lock in self._locks:
            os.close(lock)
        self._locks = []
        return left


def sweep(proc: Path = _PROC) -> Iterator[tuple[Path, int]]:
    """End and remove the groups that dead pilots of this user have left; yields each with how many lived in it."""
    for controller in ("", "memory", "pids"):
        parent, _ = _own(controller, proc)
        for directory in _left(parent) if parent is not None else []:
            lock = _lock(directory)
            if lock is not None:
                alive = len(members(str(directory)))
                gone = _end(directory)
                os.close(lock)
                if gone:
                    yield directory, alive


def _own(controller: str, proc: Path) -> tuple[Path | None, Path]:
    """The pilot's own group in a hierarchy, and where that is mounted; None when nothing that obeys it can be below."""
    for directory, top in directories(os.getpid(), controller, proc):
        try:
            # Without it, limits of version 1 end at the group that has them.
            obeyed = (directory / "memory.use_hierarchy").read_text(encoding="utf-8").strip() != "0"
        except OSError:
            obeyed = True
        if obeyed and os.access(directory, os.W_OK | os.X_OK):
            return directory, top
    return None, _PROC


def _make_below(parent: Path) -> tuple[Path | None, int]:
    """A locked group with its lock; None when none can be made."""
    for _ in range(_ATTEMPTS):
        directory = parent / f"{PREFIX}{uuid.uuid4().hex[:12]}"
        try:
            directory.mkdir(mode=0o755)
        except OSError:
            break
        lock = _lock(directory)
        if lock is not None and directory.exists():
            return directory, lock
        if lock is not None:
            os.close(lock)
    return None, -1


def _left(parent: Path) -> list[Path]:
    with suppress(OSError):
        return [one for one in parent.iterdir() if one.name.startswith(PREFIX) and one.stat().st_uid == os.getuid()]
    return []


def _lock(directory: Path) -> int | None:
    """A descriptor that holds the lock on a directory until it is closed; None when somebody else has it."""
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _end(directory: Path) -> bool:
    """End what is in a group and remove it; return whether it is gone."""
    deadline = time.monotonic() + _END_LIMIT
    while True:
        end_group(str(directory))
        if remove_group(str(directory)):
            return True
        if time.monotonic() > deadline:
            return False
        # The kernel tells nobody when the last process of a group is gone; it takes a millisecond as a rule.
        time.sleep(_END_PAUSE)
