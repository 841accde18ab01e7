"""What the processes of a payload use, read from /proc: the whole tree below its guard, the guard included.

PSS is what counts as memory: shared pages are divided among those who share them, so that forked workers are not
counted over and over, and of PSS only what is the payload's own (promise U2): anonymous and shared memory, never pages
of files, which the kernel takes back when it needs them. Reading it costs about a fifth of a millisecond a process, and
2 ms for each gigabyte that it maps.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pilot.util.guard import children_of, descendants
from pilot.util.lazynames import lazily

if TYPE_CHECKING:
    from pilot.util.processtools import *  # noqa: F403
else:
    __getattr__ = lazily(__name__, "pilot.util.processtools")

_TICKS = os.sysconf("SC_CLK_TCK")
# States of proc(5): a process that was stopped by a signal or a debugger, and one that only waits for its parent.
_STOPPED, _ZOMBIE = ("T", "t"), "Z"
# So many processes are named as the largest: more do not fit into an error's text.
_NAMED = 3


@dataclass(frozen=True)
class Large:
    """One of the largest processes of a tree. memory: kB, as TreeSample.charged."""

    pid: int
    name: str
    memory: int


@dataclass(frozen=True)
class TreeSample:
    """Sums over a process tree. Memory in kB, CPU in seconds, I/O in bytes.

    charged: what counts as the payload's memory, of all processes below the roots, which are the pilot's guards:
    anonymous and shared pages as part of PSS. pss: all of it, pages of files included. CPU and I/O include what ended
    children had used, as far as their parents have waited for them. zombies: processes that ended and nobody has waited
    for. stopped: whether all processes below the roots are stopped. largest: of those below the roots by memory, the
    largest first. pids: all of them, the roots first; below: those without the roots.
    """

    processes: int = 0
    pss: int = 0
    rss: int = 0
    vmem: int = 0
    swap: int = 0
    cpu_user: float = 0.0
    cpu_system: float = 0.0
    rchar: int = 0
    wchar: int = 0
    rbytes: int = 0
    wbytes: int = 0
    charged: int = 0
    threads: int = 0
    zombies: int = 0
    stopped: bool = False
    largest: tuple[Large, ...] = ()
    pids: tuple[int, ...] = ()
    below: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Process:
    """One process: its figures in the order of TreeSample's first sums, and what else a sample tells of it."""

    sums: tuple[float, ...]
    charged: int
    threads: int
    state: str
    name: str


def sample_tree(*roots: int) -> TreeSample:
    """Measure processes and all below them. Processes that end meanwhile are left out; nothing is raised."""
    rollup = os.path.exists("/proc/self/smaps_rollup")
    found: dict[int, _Process] = {}
    for pid in [*roots, *(below for root in roots for below in descendants(root))]:
        try:
            found[pid] = _measure(pid, "smaps_rollup" if rollup else "smaps")
        except (OSError, ValueError, IndexError):
            continue
    if not found:
        return TreeSample()
    pss, rss, vmem, swap, user, system, *io = (sum(column) for column in zip(*(one.sums for one in found.values())))
    rchar, wchar, rbytes, wbytes = (int(total) for total in io)
    below = {pid: one for pid, one in found.items() if pid not in roots}
    alive = [one.state for one in below.values() if one.state != _ZOMBIE]
    large = sorted(below.items(), key=lambda item: item[1].charged, reverse=True)[:_NAMED]
    return TreeSample(
        processes=len(found),
        pss=int(pss),
        rss=int(rss),
        vmem=int(vmem),
        swap=int(swap),
        cpu_user=user,
        cpu_system=system,
        rchar=rchar,
        wchar=wchar,
        rbytes=rbytes,
        wbytes=wbytes,
        charged=sum(one.charged for one in below.values()),
        threads=sum(one.threads for one in found.values()),
        zombies=sum(one.state == _ZOMBIE for one in found.values()),
        stopped=bool(alive) and all(state in _STOPPED for state in alive),
        largest=tuple(Large(pid, one.name, one.charged) for pid, one in large),
        pids=tuple(found),
        below=tuple(below),
    )


def _measure(pid: int, smaps: str) -> _Process:
    memory = _fields(f"/proc/{pid}/{smaps}", ("Pss", "Pss_Anon", "Pss_Shmem", "Rss", "Swap"))
    status = _fields(f"/proc/{pid}/status", ("VmSize", "VmRSS", "VmSwap", "RssAnon", "RssShmem"))
    if "Pss" not in memory:
        # A process that is not ours to look into: the resident set is the next best figure.
        memory = {"Pss": status.get("VmRSS", 0), "Rss": status.get("VmRSS", 0), "Swap": status.get("VmSwap", 0)}
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
        before, _, after = stream.read().rpartition(")")
    stat = after.split()
    # Fields 14 to 17 of proc(5): own user and system time, and those of children that were waited for.
    user, system = (int(stat[11]) + int(stat[13])) / _TICKS, (int(stat[12]) + int(stat[14])) / _TICKS
    io = _fields(f"/proc/{pid}/io", ("rchar", "wchar", "read_bytes", "write_bytes"))
    sums = (
        memory["Pss"],
        memory.get("Rss", 0),
        status.get("VmSize", 0),
        memory.get("Swap", 0),
        user,
        system,
        io.get("rchar", 0),
        io.get("wchar", 0),
        io.get("read_bytes", 0),
        io.get("write_bytes", 0),
    )
    return _Process(sums, _charged(memory, status), int(stat[17]), stat[0], before.partition("(")[2])


def _charged(memory: dict[str, int], status: dict[str, int]) -> int:
    """What counts of one process (kB). Kernels before 5.3 do not split PSS: it is at most PSS, and at most what is
    resident without pages of files."""
    if "Pss_Anon" in memory:
        return memory["Pss_Anon"] + memory.get("Pss_Shmem", 0)
    if "RssAnon" in status:
        return min(memory["Pss"], status["RssAnon"] + status.get("RssShmem", 0))
    return memory["Pss"]


def _fields(path: str, names: tuple[str, ...]) -> dict[str, int]:
    """The named numbers of a file of `name: number` lines, summed up where a name stands there several times (as in
    smaps); nothing when the kernel does not show it to us."""
    found: dict[str, int] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                name, _, value = line.partition(":")
                if name in names:
                    found[name] = found.get(name, 0) + int(value.split()[0])
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return {}
    return found


def own_children() -> list[int]:
    """Pids of this process's children, zombies included."""
    return children_of(os.getpid())


def session_of(pid: int) -> int:
    """The session that a process is in; 0 when it is gone."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def state_of(pid: int) -> str:
    """The letter that the kernel has for a process's state (proc(5)); empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def is_alive(pid: int) -> bool:
    """Whether a process exists and is more than a zombie."""
    return state_of(pid) not in ("", "Z", "X")
