"""What a test leaves behind: threads, processes, file descriptors, listening ports. The fixtures are in conftest.py.

A snapshot is taken before and compared after. Only what is new counts, and not the doings of processes that were there
before: a server that outlives the test (a fixture of the module) may start and end workers as it likes, and is looked
after when its own scope ends. There is no list of exceptions.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

# Seconds that what is about to end gets to do so: generous, since only a test that leaks waits them out.
GRACE = 20.0

# Seconds between two looks while waiting for descriptors, which tell nobody when they are closed.
_LOOK_AGAIN = 0.02

_PR_SET_CHILD_SUBREAPER = 36  # from linux/prctl.h


def adopt_orphans() -> None:
    """Make this process the parent of every descendant that loses its own, so that a double fork cannot hide one."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed: leaked processes could go unnoticed")


@dataclass(frozen=True)
class Snapshot:
    """What this process has at one moment."""

    threads: frozenset[threading.Thread]
    processes: frozenset[psutil.Process]  # compared by pid and start time, so a pid that is used again is another one
    descriptors: frozenset[tuple[int, str]]  # number and what it is open on
    ports: frozenset[tuple[int, str]]  # pid and address

    @classmethod
    def take(cls) -> Snapshot:
        """Look at this process and its descendants."""
        processes = frozenset(_descendants(os.getpid()))
        return cls(
            threads=frozenset(threading.enumerate()),
            processes=processes,
            descriptors=_descriptors(),
            ports=_listening(process.pid for process in processes),
        )


def leaks_since(before: Snapshot) -> list[str]:
    """What is there now and was not there before, one sentence each; new processes are ended, being ours.

    What is just ending gets up to GRACE seconds in all.
    """
    deadline = time.monotonic() + GRACE
    threads = _leaked_threads(before, deadline)
    processes = _leaked_processes(before, deadline)
    # The ports first: a leaked process is ended below, and its port with it.
    ports = _leaked_ports(before, processes)
    found = threads + [_describe_process(process) for process in processes] + ports
    _end(processes)
    return found + _leaked_descriptors(before, deadline)


def _leaked_threads(before: Snapshot, deadline: float) -> list[str]:
    new = [thread for thread in threading.enumerate() if thread not in before.threads]
    for thread in new:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))
    return [_describe_thread(thread) for thread in new if thread.is_alive()]


def _describe_thread(thread: threading.Thread) -> str:
    target = getattr(thread, "_target", None)
    doing = getattr(target, "__qualname__", None) or type(thread).__name__
    return f"thread {thread.name!r} still runs ({doing}{', daemon' if thread.daemon else ''}): join it"


def _leaked_processes(before: Snapshot, deadline: float) -> list[psutil.Process]:
    while True:
        new = [process for process in _new_descendants(before) if not _reap(process)]
        left = deadline - time.monotonic()
        if not new or left <= 0:
            return new
        psutil.wait_procs(new, timeout=min(left, 0.1))


def _new_descendants(before: Snapshot) -> list[psutil.Process]:
    """Descendants that were not there before and do not descend from one that was."""
    return _descendants(os.getpid(), but_not=before.processes)


def _descendants(pid: int, but_not: frozenset[psutil.Process] = frozenset()) -> list[psutil.Process]:
    """The processes below one, without some and what is below those.

    From the kernel's own lists: psutil reads every process of the machine for the same, which two looks a test would
    make the slowest part of the suite.
    """
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process = psutil.Process(child)
                    if process not in but_not:
                        found += [process, *_descendants(child, but_not)]
    return found


def _reap(process: psutil.Process) -> bool:
    """Whether the process is over. An orphan that came to us and ended is a zombie until we ask for its exit code."""
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return False
        os.waitpid(process.pid, os.WNOHANG)
    except (psutil.NoSuchProcess, ChildProcessError):
        return True
    return True


def _describe_process(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
        command = " ".join(process.cmdline()) or process.name()
        orphan = ", an orphan" if process.ppid() == os.getpid() and os.getsid(process.pid) != os.getsid(0) else ""
        return f"process {process.pid} still runs ({command[:200]}{orphan}): end it and wait for it"
    return f"process {process.pid} only just ended: wait for it"


def _end(processes: Iterable[psutil.Process]) -> None:
    """End what a test leaked, so that the next test does not suffer for it."""
    leaked = list(processes)
    for process in leaked:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(leaked, timeout=GRACE)


def _descriptors() -> frozenset[tuple[int, str]]:
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listdir itself used
            found.add((int(entry), os.readlink(f"/proc/self/fd/{entry}")))
    return frozenset(found)


def _leaked_descriptors(before: Snapshot, deadline: float) -> list[str]:
    new = _descriptors() - before.descriptors
    if new:
        gc.collect()  # an object that is only waiting for this is not a leak, but warns if it was never closed
        new = _descriptors() - before.descriptors
    while new and time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN)
        new = _descriptors() - before.descriptors
    return [
        f"file descriptor {number} is still open on {what}{_peer(number)}: close it" for number, what in sorted(new)
    ]


def _peer(descriptor: int) -> str:
    """Which connection a descriptor is, if it is one: the inode that /proc shows tells nobody anything."""
    for connection in psutil.Process().net_connections(kind="all"):
        if connection.fd == descriptor:
            ends = [":".join(map(str, end)) if isinstance(end, tuple) else str(end) for end in connection[3:5] if end]
            return f" ({connection.status.lower()} {' -> '.join(ends)})"
    return ""


def _listening(pids: Iterable[int]) -> frozenset[tuple[int, str]]:
    """The TCP ports on which processes listen, as (pid, "address:port")."""
    sockets = _listening_sockets()
    found = set()
    for pid in (os.getpid(), *pids):
        with contextlib.suppress(OSError):  # it ended, or is not ours to look at
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    address = sockets.get(os.readlink(entry))
                    if address is not None:
                        found.add((pid, address))
    return frozenset(found)


def _listening_sockets() -> dict[str, str]:
    """Every listening TCP socket of this machine: what a descriptor open on it shows -> its address.

    Read from /proc/net/tcp and tcp6 (proc(5)): column 1 is the local address in hexadecimal, 3 the state (0A is
    LISTEN), 9 the inode. psutil would take a walk over all processes for the same.
    """
    sockets = {}
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/self/net/{table}") as lines:
            next(lines)
            for line in lines:
                columns = line.split()
                if columns[3] == "0A":
                    sockets[f"socket:[{columns[9]}]"] = f"{table} port {int(columns[1].rpartition(':')[2], 16)}"
    return sockets


def _leaked_ports(before: Snapshot, leaked: Iterable[psutil.Process]) -> list[str]:
    """New ports of this process and of the processes it leaked."""
    now = _listening(process.pid for process in leaked)
    return [f"{address} is still listened on by process {pid}: close it" for pid, address in sorted(now - before.ports)]
