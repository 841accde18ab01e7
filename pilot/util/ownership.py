"""Whose a work directory is, and which of those that lie about belong to pilots that are provably dead.

Each pilot stamps its directory and holds a lock on the stamp while it lives. A directory is only swept when its lock
is free, its stamp says that its owner was a process of this very node and user that is not there any more, and no
process works in it (promise N5). What cannot be proven is left alone. Processes of a payload whose pilot and guard were
both killed still name the directory in their environment (HOME_VARIABLE): they are ended (promise N1).
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Callable

from pilot.util.filehandling import remove_tree, try_lock
from pilot.util.guard import send
from pilot.util.https import parse_json

STAMP = "owner.json"
# How the names of pilots' directories begin.
PREFIX = "pilotkit-"
# Tells a payload that runs without a container where its pilot's directory is; no other has the same name.
HOME_VARIABLE = "PILOT_HOME"
# How long (s) processes that a dead pilot has left may take to be gone.
_STRAY_LIMIT = 5.0
_STRAY_PAUSE = 0.01
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Owner:
    """A pilot: its node, the node's boot, the user, the process and when it began (clock ticks after the boot).

    keep: whether the directory is to stay (--cleanup=False).
    """

    host: str
    boot: str
    uid: int
    pid: int
    start: int
    keep: bool = False


def this_process(*, keep: bool = False) -> Owner:
    """The pilot that asks."""
    boot = _BOOT_ID.read_text(encoding="utf-8").strip()
    return Owner(socket.gethostname(), boot, os.getuid(), os.getpid(), started(os.getpid()), keep)


def started(pid: int) -> int:
    """When a process began, in clock ticks after the boot (field 22 of proc(5)); 0 when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return int(stream.read().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def stamp(directory: Path, owner: Owner) -> IO[str]:
    """Stamp a directory and lock the stamp; the stream holds the lock until it is closed. Raises OSError."""
    path = directory / STAMP
    path.write_text(json.dumps(asdict(owner)), encoding="utf-8")
    lock = try_lock(path)
    if lock is None:
        raise OSError(errno.ENOLCK, "its lock cannot be had (a file system without locks?)", str(path))
    return lock


def read_owner(directory: Path) -> Owner | None:
    """Whose a directory is, or None when its stamp is not there or no stamp."""
    try:
        data = parse_json((directory / STAMP).read_bytes())
        return Owner(**data) if isinstance(data, Mapping) else None  # type: ignore[arg-type]  # other types match nothing
    except (OSError, ValueError, TypeError):
        return None


def lives(owner: Owner) -> bool:
    """Whether a pilot runs on this node now."""
    return owner.boot == this_process().boot and owner.start == started(owner.pid) > 0


def is_dead(owner: Owner, here: Owner, start: int) -> bool:
    """Whether the owner of a directory is provably gone.

    start: when the process that has its number now began; 0 when there is none.
    """
    if owner.keep or (owner.host, owner.uid) != (here.host, here.uid):
        return False
    return owner.boot != here.boot or owner.start != start


def sweep(root: Path, here: Owner, story: Callable[[Path], str]) -> Iterator[tuple[Path, str]]:
    """Remove the directories that dead pilots of this node have left in `root`; yields each with what is to be said.

    story: tells, before it is gone, what happened in a directory.
    """
    left = _directories(root, here.uid)
    if not left:
        return
    for path in left:
        owner = read_owner(path)
        if owner is None or not is_dead(owner, here, started(owner.pid) if owner.boot == here.boot else 0):
            continue
        lock = try_lock(path / STAMP)
        if lock is None:
            continue
        with lock:
            ended = _end_strays(path)
            if ended:
                yield path, f"{ended} process(es) that its dead pilot and guard have left are ended"
            if any(one == path or path in one.parents for one in _working_directories()):
                continue
            told = story(path)
            problem = remove_tree(path)
        ending = f"could not be removed as a whole ({problem})" if problem else "is removed"
        text = f"its pilot (process {owner.pid}) was killed; what it left {ending}"
        yield path, f"{text}. It had run:\n{told}" if told else text


def _directories(root: Path, uid: int) -> list[Path]:
    """Stamped directories of a user. One that vanishes meanwhile is swept by another pilot: it does the rest too."""
    with suppress(OSError):
        stamped = [path for path in root.iterdir() if path.name.startswith(PREFIX) and (path / STAMP).is_file()]
        return sorted(path for path in stamped if path.lstat().st_uid == uid and not path.is_symlink())
    return []


def _end_strays(directory: Path) -> int:
    """End the processes of a dead pilot's payload that nobody was left to end; return how many there were."""
    deadline = time.monotonic() + _STRAY_LIMIT
    ended: set[int] = set()
    while time.monotonic() < deadline:
        strays = [pid for pid in _processes() if _has_home(pid, directory)]
        if not strays:
            break
        ended.update(strays)
        # None of them bears another while the rest is looked for.
        send(strays, signal.SIGSTOP)
        send(strays, signal.SIGKILL)
        # What is nobody's child here tells nobody that it is gone.
        time.sleep(_STRAY_PAUSE)
    return len(ended)


def _has_home(pid: int, directory: Path) -> bool:
    """Whether a process was started with the directory in its environment. Those of others cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            return f"{HOME_VARIABLE}={directory}".encode() in stream.read().split(b"\0")
    except OSError:
        return False


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _working_directories() -> set[Path]:
    """Where the processes of this node work, as far as that can be seen: those of this user can."""
    found = set()
    for pid in _processes():
        with suppress(OSError):
            found.add(Path(os.readlink(f"/proc/{pid}/cwd")))
    return found
