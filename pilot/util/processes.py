"""What the processes of a payload use, read from /proc: the whole tree below its guard, the guard included.

PSS is what counts as memory: shared pages are divided among those who share them, so that forked workers are not
counted over and over (promise U2). Reading it costs about half a millisecond a process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from pilot.util.guard import children_of, descendants

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class TreeSample:
    """Sums over a process tree. Memory in kB, CPU in seconds, I/O in bytes.

    CPU and I/O include what ended children had used, as far as their parents have waited for them.
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


def sample_tree(root: int) -> TreeSample:
    """Measure a process and all below it. Processes that end meanwhile are left out; nothing is raised."""
    sums = [0.0] * 10
    count = 0
    for pid in [root, *descendants(root)]:
        try:
            figures = _measure(pid)
        except (OSError, ValueError, IndexError):
            continue
        count += 1
        sums = [total + figure for total, figure in zip(sums, figures)]
    pss, rss, vmem, swap, user, system, rchar, wchar, rbytes, wbytes = sums
    return TreeSample(
        count, int(pss), int(rss), int(vmem), int(swap), user, system, int(rchar), int(wchar), int(rbytes), int(wbytes)
    )


def _measure(pid: int) -> tuple[float, ...]:
    memory = _fields(f"/proc/{pid}/smaps_rollup", ("Pss", "Rss", "Swap"))
    status = _fields(f"/proc/{pid}/status", ("VmSize", "VmRSS", "VmSwap"))
    if "Pss" not in memory:
        # Kernels before 4.14 have no smaps_rollup: the resident set is the next best figure.
        memory = {"Pss": status.get("VmRSS", 0), "Rss": status.get("VmRSS", 0), "Swap": status.get("VmSwap", 0)}
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
        stat = stream.read().rpartition(")")[2].split()
    # Fields 14 to 17 of proc(5): own user and system time, and those of children that were waited for.
    user, system = (int(stat[11]) + int(stat[13])) / _TICKS, (int(stat[12]) + int(stat[14])) / _TICKS
    io = _fields(f"/proc/{pid}/io", ("rchar", "wchar", "read_bytes", "write_bytes"))
    return (
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


def _fields(path: str, names: tuple[str, ...]) -> dict[str, int]:
    """The named numbers of a file of `name: number` lines; nothing when the kernel does not show it to us."""
    found: dict[str, int] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                name, _, value = line.partition(":")
                if name in names:
                    found[name] = int(value.split()[0])
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return {}
    return found


def own_children() -> list[int]:
    """Pids of this process's children, zombies included."""
    return children_of(os.getpid())


def is_alive(pid: int) -> bool:
    """Whether a process exists and is more than a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return False
