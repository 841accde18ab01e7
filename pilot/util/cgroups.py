"""The memory control group of a process: what it holds, what it may hold, and whether the kernel has killed in it.

Both versions are understood. A batch system puts a whole slot, the pilot included, into one group; a container runtime
may give the payload one of its own.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# Version 1 says "no limit" with the largest multiple of a page that fits; no node has so much memory (1 EiB).
_NO_LIMIT = 2**60
# A record of /dev/kmsg: priority, number, microseconds since boot, flags; then the message.
_RECORD = re.compile(r"\d+,\d+,(\d+),[^;]*;(.*)")
_OOM_KILL = re.compile(r"oom-kill:.*\btask=(?P<name>[^,]*),pid=(?P<pid>\d+),uid=(?P<uid>\d+)")
# The kernel's log holds a few thousand records; more than so many are not looked through.
_RECORDS = 100_000


@dataclass(frozen=True)
class MemoryGroup:
    """directory: where the group's files are; top: where its hierarchy is mounted; version: 1 or 2."""

    directory: Path
    top: Path
    version: int

    def charged(self) -> int | None:
        """Anonymous and shared memory of all its processes (kB), without page cache; None when it cannot be read."""
        stat = _numbers(self.directory / "memory.stat")
        names = ("anon", "shmem") if self.version == 2 else ("total_rss", "total_shmem")
        return None if names[0] not in stat else sum(stat.get(name, 0) for name in names) // 1024

    def limit(self) -> int | None:
        """What the group, or one above it, may hold (kB); None without a limit."""
        if self.version == 1:
            found = [_numbers(self.directory / "memory.stat").get("hierarchical_memory_limit", _NO_LIMIT)]
        else:
            above = [self.directory, *self.directory.parents]
            inside = [group for group in above if group == self.top or self.top in group.parents]
            found = [_number(group / "memory.max") for group in inside]
        least = min(found, default=_NO_LIMIT)
        return None if least >= _NO_LIMIT else least // 1024

    def oom_kills(self) -> int | None:
        """How many of its processes the kernel has killed for memory so far; None when it does not say."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return _numbers(self.directory / name).get("oom_kill")


def memory_group(pid: int, proc: Path = _PROC) -> MemoryGroup | None:
    """The memory control group of a process; None when there is none that can be read."""
    # Where both are mounted, version 1 has the memory controller if it lists it at all.
    for version, controller in ((1, "memory"), (2, "")):
        for directory, top in directories(pid, controller, proc):
            if (directory / "memory.stat").exists():
                return MemoryGroup(directory, top, version)
    return None


def directories(pid: int, controller: str, proc: Path = _PROC) -> list[tuple[Path, Path]]:
    """The directory of a process's control group, and where its hierarchy is mounted, for every mount of it.

    controller: that of a hierarchy of version 1; empty for version 2. Nothing is raised.
    """
    try:
        memberships = (proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
        mounts = (proc / "self" / "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in memberships:
        # Each is number:controllers:path (cgroups(7)); version 2 has the number 0 and no controllers.
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controller in controllers.split(",") and bool(controller) is (number != "0"):
            for root, top in _mounts(mounts, controller):
                inside = os.path.relpath(path, root) if path.startswith(root) else "."
                found.append((top / inside if inside != "." else top, top))
    return found


def own_memory_group(pid: int, proc: Path = _PROC) -> MemoryGroup | None:
    """The group of a process if it is another than that of this process, which then holds nothing of ours."""
    group = memory_group(pid, proc)
    return group if group is not None and group != memory_group(os.getpid(), proc) else None


def oom_victims(pids: Iterable[int], since: float, kmsg: Path = Path("/dev/kmsg")) -> list[str]:
    """Lines of the kernel's log about processes of ours that it has killed for memory.

    since: seconds since boot. Empty where the log is not ours to read, as on most nodes. In a container the numbers of
    processes are others than the kernel's; the user must be the same too, so that no stranger is taken for one of ours.
    """
    wanted = set(pids)
    found: list[str] = []
    try:
        descriptor = os.open(kmsg, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return found
    try:
        for _ in range(_RECORDS):
            # One read is one record; at the end of the log it would block, which is an OSError here.
            block = os.read(descriptor, 8192)
            if not block:
                break
            for line in block.decode("utf-8", "replace").splitlines():
                record = _RECORD.match(line)
                victim = _OOM_KILL.search(record.group(2)) if record and float(record.group(1)) >= since * 1e6 else None
                if victim and int(victim["pid"]) in wanted and int(victim["uid"]) == os.getuid():
                    found.append(f"the kernel's log: killed {victim['name']} (pid {victim['pid']}) for memory")
    except OSError:
        return found
    finally:
        os.close(descriptor)
    return found


def since_boot() -> float:
    """Seconds since boot, as the kernel's log counts them."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _mounts(lines: list[str], controller: str) -> list[tuple[str, Path]]:
    """Root inside the hierarchy, and mount point, of every mount of it (proc(5), mountinfo)."""
    found = []
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, system = before.split(), after.split()
        if len(fields) < 5 or len(system) < 3:
            continue
        is_one = system[0] == "cgroup" and controller in system[2].split(",")
        if is_one if controller else system[0] == "cgroup2":
            found.append((fields[3], Path(fields[4])))
    return found


def _numbers(path: Path) -> dict[str, int]:
    """A file of `name number` lines."""
    found: dict[str, int] = {}
    with suppress(OSError, ValueError):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(" ")
            found[name] = int(value)
    return found


def _number(path: Path) -> int:
    with suppress(OSError, ValueError):
        return int(path.read_text(encoding="utf-8"))
    return _NO_LIMIT  # "max", or a group without the file: the topmost
