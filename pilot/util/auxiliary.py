"""Small helpers for plugins, scripts and Harvester (documented names)."""

from __future__ import annotations

import getpass
import logging
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pilot import __version__
from pilot.common.errorcodes import ERRORS
from pilot.common.errorcodes import convert_to_pilot_error_code as _convert_to_pilot_error_code
from pilot.common.errorcodes import shell_exit_code as _shell_exit_code
from pilot.common.errortable import SHELL_CODE_OTHER
from pilot.common.exception import is_python3
from pilot.util.container import execute
from pilot.util.filesearch import locate_file
from pilot.util.workernode import collect

__all__ = [
    "convert_to_pilot_error_code",
    "cut_output",
    "display_architecture_info",
    "extract_memory_usage_value",
    "get_batchsystem_jobid",
    "get_display_info",
    "get_error_code_translation_dictionary",
    "get_job_scheduler_id",
    "get_key_value",
    "get_memory_usage",
    "get_object_size",
    "get_pid_from_command",
    "get_pilot_id",
    "get_size",
    "has_instruction_set",
    "has_instruction_sets",
    "is_python3",
    "is_string",
    "is_virtual_machine",
    "list_hardware",
    "locate_core_file",
    "pilot_version_banner",
    "shell_exit_code",
    "show_memory_usage",
    "whoami",
]

log = logging.getLogger(__name__)

# lshw and ps look at the node alone; one that takes longer (s) hangs.
_COMMAND_LIMIT = 60.0
_OS_RELEASE = Path("/etc/os-release")
_CPUINFO = Path("/proc/cpuinfo")


# ---- error codes


def shell_exit_code(exit_code: int) -> int:
    """The exit code of pilot.py for a pilot error code."""
    return _shell_exit_code(exit_code)


def convert_to_pilot_error_code(exit_code: int) -> int:
    """The pilot error code that an exit code of pilot.py stands for; Harvester asks this of failed workers."""
    return _convert_to_pilot_error_code(exit_code)


def get_error_code_translation_dictionary() -> dict[int, tuple[int, str]]:
    """Exit code and text of each pilot error that has an exit code of its own."""
    own = (info for info in ERRORS.values() if info.shell_code != SHELL_CODE_OTHER)
    return {info.code: (info.shell_code, info.message) for info in own}


# ---- text and objects


def cut_output(txt: str, cutat: int = 1024, separator: str = "\n[...]\n") -> str:
    """Text, of which both ends are kept (`cutat` characters each) when it is longer than both together."""
    return txt if len(txt) <= 2 * cutat else txt[:cutat] + separator + txt[-cutat:]


def get_key_value(catchall: str, key: str = "SOMEKEY") -> str:
    """The value of key=value in a queue's catchall; empty if it is not there."""
    found = re.search(rf"(?:^|[\s,;]){re.escape(key)}=([^\s,;]*)", catchall)
    return found.group(1) if found else ""


def get_pid_from_command(cmd: str, pattern: str = r"gdb --pid (\d+)") -> int | None:
    """The process id that the pattern's first group finds in a command; None if there is none."""
    found = re.search(pattern, cmd)
    return int(found.group(1)) if found else None


def is_string(obj: object) -> bool:
    """Whether an object is text."""
    return isinstance(obj, str)


def get_object_size(obj: object, seen: set[int] | None = None) -> int:
    """Bytes of an object with all that it holds: items and attributes. seen: ids of objects that count already."""
    counted = set() if seen is None else seen
    todo, total = [obj], 0
    while todo:
        one = todo.pop()
        if id(one) in counted:
            continue
        counted.add(id(one))
        total += sys.getsizeof(one)
        if isinstance(one, Mapping):
            todo += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset)):
            todo += one
        if not isinstance(one, type):
            todo += vars(one).values() if hasattr(one, "__dict__") else ()
    return total


def get_size(obj_0: object) -> int:
    """The same."""
    return get_object_size(obj_0)


# ---- this pilot


def pilot_version_banner() -> None:
    """Put this pilot's version, Python and node into the log, so that they catch the eye."""
    text = f"  pilotkit {__version__}, Python {platform.python_version()}, {platform.node()}  "
    for line in ("=" * len(text), text, "=" * len(text)):
        log.info("%s", line)


def get_pilot_id() -> str:
    """Where the pilot's log will be, or its id: GTAG; "unknown" where it is not set."""
    return os.environ.get("GTAG", "unknown")


def get_job_scheduler_id() -> str:
    """Who has submitted the pilot: PANDA_JSID; "unknown" where it is not set."""
    return os.environ.get("PANDA_JSID", "unknown")


def get_batchsystem_jobid() -> str:
    """The batch system's id of this job, empty outside of one."""
    return collect(os.environ).batch_id


def whoami() -> str:
    """The user this process runs as: the name, or the number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def show_memory_usage() -> None:
    """Put what memory this process uses into the log."""
    log.info("memory of the pilot: %d kB resident", extract_memory_usage_value(get_memory_usage(os.getpid())[2]))


def get_memory_usage(pid: int) -> tuple[int, str, str]:
    """Exit code, stderr and stdout of ps for a process."""
    code, stdout, stderr = execute(["ps", "u", "-p", str(pid)], timeout=_COMMAND_LIMIT)
    return code, stderr, stdout


def extract_memory_usage_value(output: str) -> int:
    """The resident set (kB) of the first process in the output of ps; 0 if there is none."""
    for line in output.splitlines():
        words = line.split()
        if len(words) > 5 and words[1].isdigit() and words[5].isdigit():
            return int(words[5])
    return 0


def locate_core_file(cmd: str | None = None, pid: int | None = None) -> str:
    """The core file of a process below the current directory, empty for none. cmd: gdb's command, with a pid."""
    wanted = get_pid_from_command(cmd) if pid is None and cmd else pid
    return locate_file(os.path.join(os.getcwd(), "**", f"core.{wanted}")) if wanted is not None else ""


# ---- the node


def display_architecture_info() -> None:
    """Put what the node's system calls itself into the log."""
    text = _OS_RELEASE.read_text(encoding="utf-8", errors="replace") if _OS_RELEASE.is_file() else ""
    log.info("%s\n%s", platform.platform(), text)


def is_virtual_machine() -> bool:
    """Whether the CPU is one of a virtual machine: Linux then names a hypervisor among what it can do."""
    return has_instruction_set("hypervisor") != ""


def has_instruction_set(instruction_set: str) -> str:
    """The instruction set, if the CPU has it, in capitals or not; else empty."""
    return has_instruction_sets([instruction_set])


def has_instruction_sets(instruction_sets: Iterable[str]) -> str:
    """Those of the instruction sets that the CPU has: "AVX|AVX2|SSE4_2"; empty if it has none of them."""
    known: set[str] = set()
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                known.update(value.lower().split())
    return "|".join(one for one in instruction_sets if one.lower() in known)


def list_hardware() -> str:
    """What lshw says of the node; empty where it is not installed."""
    return _lshw()


def get_display_info() -> tuple[str, str]:
    """Product and vendor of the node's first display adapter, as lshw names them; empty where it does not."""
    said = _lshw("-class", "display")
    return _named("product", said), _named("vendor", said)


def _lshw(*options: str) -> str:
    program = shutil.which("lshw")
    return execute([program, "-quiet", *options], timeout=_COMMAND_LIMIT)[1] if program else ""


def _named(name: str, text: str) -> str:
    found = re.search(rf"^\s*{name}: (.*?)(?: \[[0-9A-F:]+\])*$", text, re.MULTILINE | re.IGNORECASE)
    return found.group(1).strip() if found else ""
