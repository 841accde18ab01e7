"""Hide this process's secrets from other processes of the same user, as payloads are when they run without a container.

Two things of a process are there for all of its user's processes to read: /proc/PID/environ, which holds the
environment that it was started with, and through ptrace and /proc/PID/mem all of its memory.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection
from contextlib import suppress

# prctl(2): no core dumps, no ptrace, and /proc/PID belongs to root but for what everybody may read.
_PR_SET_DUMPABLE = 4
# Field of /proc/PID/stat, counted from 0 after the name in parentheses: where the environment lies (proc(5)).
_ENV_START = 47


def hide(names: Collection[str]) -> bool:
    """Wipe the values of these variables out of what /proc shows, and close the process to others of the same user.

    Python's own os.environ keeps the values. Returns whether both were done: kernels and sandboxes without /proc or
    prctl leave things as they are. Root may still read the memory, as root may everything.
    """
    wiped = _wipe(names)
    with suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0) and wiped
    return False


def _wipe(names: Collection[str]) -> bool:
    try:
        with open("/proc/self/environ", "rb") as stream:
            shown = stream.read()
        with open("/proc/self/stat", "rb") as stream:
            start = int(stream.read().rpartition(b")")[2].split()[_ENV_START])
    except (OSError, ValueError, IndexError):
        return False
    place = 0
    for entry in shown.split(b"\0"):
        name, _, value = entry.partition(b"=")
        address = start + place + len(name) + 1
        # Only what is still there as it was: a library may have put something else in its place.
        if start and value and os.fsdecode(name) in names and ctypes.string_at(address, len(value)) == value:
            ctypes.memset(address, 0, len(value))
        place += len(entry) + 1
    return bool(start)
