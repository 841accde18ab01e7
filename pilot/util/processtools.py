"""Processes for plugins and scripts, under the documented names.

Import them from pilot.util.processes, as chapter 7.3.2 of PanDA's documents has it. What ends processes reaches only
those below this one: whatever number it is given, nothing foreign is touched.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Union

from pilot.util.cgroups import memory_group
from pilot.util.container import execute
from pilot.util.guard import descendants, send
from pilot.util.processes import is_alive, sample_tree, state_of
from pilot.util.stacks import describe_processes

__all__ = [
    "convert_ps_to_dict",
    "dump_stack_trace",
    "find_cmd_pids",
    "find_pid",
    "find_processes_in_group",
    "get_cgroups_base_path",
    "get_cpu_consumption_time",
    "get_current_cpu_consumption_time",
    "get_instant_cpu_consumption_time",
    "get_max_memory_usage_from_cgroups",
    "get_number_of_child_processes",
    "get_pilot_pid_from_processes",
    "get_process_commands",
    "get_trimmed_dictionary",
    "is_child",
    "is_process_running",
    "is_zombie",
    "kill",
    "kill_child_processes",
    "kill_process",
    "kill_process_group",
    "kill_processes",
    "killpg",
]

log = logging.getLogger(__name__)

# The output of ps in columns, by their headings.
PsColumns = Mapping[str, Sequence[Union[int, str]]]
# Time between TERM and KILL (s): as long as a batch system gives a pilot's payload, see grace_on_signal in default.cfg.
_GRACE = 3.0
_PAUSE = 0.02
# A stack trace that takes longer (s) is ended; the process that it looks at waits meanwhile.
_STACK_LIMIT = 60.0
# The most that the memory group has held so far, by the version of control groups.
_PEAK = {1: "memory.max_usage_in_bytes", 2: "memory.peak"}


# ---- the output of ps


def convert_ps_to_dict(output: str, pattern: str = r"(\d+) (\d+) (\d+) (.+)") -> dict[str, list[int | str]]:
    """The output of ps (its first line has the headings) in columns: {"PID": [1, 2], ..., "COMMAND": ["a", "b"]}.

    Numbers become such; lines that the pattern does not fit, their blanks reduced to one, are left out.
    """
    head, *lines = output.splitlines() or [""]
    # Both headings are used for what the documents call COMMAND.
    names = ["COMMAND" if name == "CMD" else name for name in head.split()]
    found: dict[str, list[int | str]] = {name: [] for name in names}
    for line in lines:
        match = re.match(pattern, " ".join(line.split(None, max(0, len(names) - 1))))
        if match is not None and len(match.groups()) == len(names):
            for name, value in zip(names, match.groups()):
                found[name].append(int(value) if value.isdigit() else value)
    return found


def get_trimmed_dictionary(keys: Iterable[str], dictionary: Mapping[str, object]) -> dict[str, object]:
    """The entries of a dictionary with these keys, as far as it has them."""
    return {key: dictionary[key] for key in keys if key in dictionary}


def find_cmd_pids(cmd: str, ps_dictionary: PsColumns) -> list[int]:
    """The processes whose command holds `cmd`."""
    pairs = zip(ps_dictionary.get("PID", ()), ps_dictionary.get("COMMAND", ()))
    return [int(pid) for pid, command in pairs if cmd in str(command)]


def find_pid(pandaid: str, ps_dictionary: PsColumns) -> int:
    """The process whose command sets PandaID (export PandaID=...); -1 if there is none."""
    wanted = re.compile(rf"export PandaID={re.escape(str(pandaid))}\b")
    pairs = zip(ps_dictionary.get("PID", ()), ps_dictionary.get("COMMAND", ()))
    return next((int(pid) for pid, command in pairs if wanted.search(str(command))), -1)


def is_child(pid: int, pandaid_pid: int, dictionary: PsColumns) -> bool:
    """Whether `pid` is `pandaid_pid` or below it, by the columns PID and PPID."""
    parents = {int(one): int(above) for one, above in zip(dictionary.get("PID", ()), dictionary.get("PPID", ()))}
    while pid != pandaid_pid and pid in parents:
        # Each is looked at once: what ps shows of a changing system may go round in circles.
        pid = parents.pop(pid)
    return pid == pandaid_pid


def get_pilot_pid_from_processes(_processes: str, pattern: re.Pattern[str]) -> int | None:
    """The number that the pattern's first group finds in the output of ps, line by line; None if there is none."""
    for line in _processes.splitlines():
        match = pattern.search(line)
        if match is not None and match.groups() and match.group(1).isdigit():
            return int(match.group(1))
    return None


# ---- what there is


def is_process_running(process_id: int) -> bool:
    """Whether a process exists and is more than a zombie."""
    return is_alive(process_id)


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has waited for it."""
    return state_of(pid) == "Z"


def find_processes_in_group(cpids: list[int], pid: int) -> list[int]:
    """Add a process and all below it to a list, as far as they are not in it; returns the list."""
    cpids += [one for one in (pid, *descendants(pid)) if one not in cpids]
    return cpids


def get_number_of_child_processes(pid: int) -> int:
    """How many processes there are below one."""
    return len(descendants(pid))


def get_process_commands(euid: int, pids: Iterable[int]) -> list[str]:
    """The commands of those of the processes that belong to a user."""
    found = []
    for pid in pids:
        folder = Path(f"/proc/{pid}")
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            if folder.stat().st_uid == euid and command:
                found.append(command)
    return found


def dump_stack_trace(pid: int) -> None:
    """Put into the log what a process is doing: its state, and its stack where pstack or the kernel shows it."""
    for line in describe_processes([pid]):
        log.info("%s", line)
    pstack = shutil.which("pstack")
    if pstack is not None:
        code, said, _ = execute([pstack, str(pid)], timeout=_STACK_LIMIT)
        log.info("pstack %d ends with %d:\n%s", pid, code, said)


# ---- what they use


def get_cpu_consumption_time(t0: os.times_result | Sequence[float]) -> float:
    """CPU seconds of this process's children that were waited for since `t0`, an earlier os.times()."""
    now = os.times()
    return now[2] + now[3] - t0[2] - t0[3]


def get_current_cpu_consumption_time(pid: int) -> float:
    """CPU seconds, user and system, of a process and all below it, and of those that they have waited for."""
    sample = sample_tree(pid)
    return sample.cpu_user + sample.cpu_system


def get_instant_cpu_consumption_time(pid: int | None) -> float:
    """The same; 0.0 without a process."""
    return get_current_cpu_consumption_time(pid) if pid else 0.0


def get_cgroups_base_path() -> str:
    """The directory of this process's memory control group, empty if there is none."""
    group = memory_group(os.getpid())
    return str(group.directory) if group is not None else ""


def get_max_memory_usage_from_cgroups() -> int | None:
    """The most memory (bytes, page cache included) that this process's group has held; None when nobody tells."""
    group = memory_group(os.getpid())
    with suppress(OSError, ValueError):
        if group is not None:
            return int((group.directory / _PEAK[group.version]).read_text())
    return None


# ---- ending them


def kill(pid: int, sig: int) -> bool:
    """Send a signal to a process below this one; whether it was sent."""
    return pid in descendants(os.getpid()) and send([pid], sig) == 1


def kill_process(pid: int) -> bool:
    """KILL a process below this one; whether it was sent."""
    return kill(pid, signal.SIGKILL)


def kill_child_processes(pid: int) -> None:
    """KILL all that is below a process, which is this one or below it."""
    if pid in (os.getpid(), *descendants(os.getpid())):
        send(descendants(pid), signal.SIGKILL)


def kill_processes(pid: int) -> None:
    """TERM to a process below this one and to all below it, KILL to those left after 3 s."""
    if pid in descendants(os.getpid()):
        _end([*descendants(pid), pid])


def kill_process_group(pgrp: int) -> bool:
    """TERM to the members of a process group that are below this process, KILL to those left after 3 s.

    Whether there were any, and none is left.
    """
    members = _members(pgrp)
    return bool(members) and _end(members)


def killpg(pid: int, sig: int, args: object = None) -> None:
    """Send a signal to the members of process group `pid` that are below this process. args: not needed here."""
    send(_members(pid), sig)


def _members(pgrp: int) -> list[int]:
    found = []
    for pid in descendants(os.getpid()):
        with suppress(ProcessLookupError):
            if os.getpgid(pid) == pgrp:
                found.append(pid)
    return found


def _end(pids: list[int]) -> bool:
    send(pids, signal.SIGTERM)
    if not _are_gone(pids, _GRACE):
        send([pid for pid in pids if is_alive(pid)], signal.SIGKILL)
    return _are_gone(pids, _GRACE)


def _are_gone(pids: list[int], within: float) -> bool:
    deadline = time.monotonic() + within
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        # Most of them are not our own children: nothing can be waited for.
        time.sleep(_PAUSE)
    return True
