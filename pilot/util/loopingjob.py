"""The limit for hung payloads, and their core files (documented names).

What decides whether a payload is hung is pilot/control/rules/looping.py.
"""

from __future__ import annotations

import logging
import os
import shutil

from pilot.util.config import read
from pilot.util.container import execute
from pilot.util.guard import descendants

log = logging.getLogger(__name__)

# A core file of all the memory of a large payload takes minutes to write (s).
_CORE_LIMIT = 600.0


def get_looping_job_limit() -> int:
    """Whole seconds without any sign of life, after which a payload is taken to be hung: looping_limit in [Payload]."""
    return int(read().payload.looping_limit)


def create_core_dump(pid: int | None = None, workdir: str | None = None) -> None:
    """Have gdb write core.PID of a process below this one into a directory; the process goes on.

    What stands in the way (no gdb, a process of somebody else) is told to the log.
    """
    gdb = shutil.which("gdb")
    if not pid or not workdir or pid not in descendants(os.getpid()):
        log.warning("no core file: process %s is not below this one, or there is no directory for it", pid)
        return
    if gdb is None:
        log.warning("no core file of process %d: gdb is not on the PATH", pid)
        return
    path = os.path.join(os.path.abspath(workdir), f"core.{pid}")
    command = [gdb, "--batch", "--nx", "--pid", str(pid), "-ex", f"generate-core-file {path}"]
    code, said, _ = execute(command, timeout=_CORE_LIMIT, cwd=workdir)
    log.info("gdb ends with %d: %s", code, said[-500:])
