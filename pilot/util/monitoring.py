"""Limits and scores that the watching of a payload goes by (documented names).

What decides about a payload are the rules in pilot/control/rules, which take figures (docs/compatibility.md).
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Protocol

from pilot.common.errorcodes import ErrorCodes
from pilot.util.config import read
from pilot.util.workernode import local_space

log = logging.getLogger(__name__)

_MB = 2**20
# Words of exceptions that tell what the node lacks; anything else is the pilot's own.
_CAUSES = (
    (r"ctypes", ErrorCodes.NOCTYPES),
    (r"No space left on device|Disk quota exceeded", ErrorCodes.NOLOCALSPACE),
    (r"Resource temporarily unavailable|Cannot allocate memory|can't start new thread", ErrorCodes.RESOURCEUNAVAILABLE),
)


class Queue(Protocol):
    """What is needed of a queue's description (MB; 0: no limit)."""

    maxwdir: int
    maxinputsize: int


def check_local_space(initial: bool = True) -> int:
    """0, or NOLOCALSPACE when too little is free below the current directory.

    initial: enough to start a job (space_to_start in [File]), else to go on with one (space_to_run).
    """
    settings = read().file
    least = settings.space_to_start if initial else settings.space_to_run
    free = local_space(Path("."))
    if free >= least:
        return 0
    log.warning("%d bytes are free below the current directory, %d are needed", free, least)
    return ErrorCodes.NOLOCALSPACE


def get_local_size_limit_stdout(bytes: bool = True) -> int:
    """How large a payload's stdout may be (stdout_limit in [Payload]): in bytes, or else in kB."""
    limit = read().payload.stdout_limit
    return limit * 1024 if bytes else limit


def get_max_allowed_work_dir_size(queuedata: Queue) -> int:
    """How large a job's directory may be (bytes); 0 when the queue has no limit."""
    return queuedata.maxwdir * _MB


def get_max_input_size(queuedata: Queue, megabyte: bool = False) -> int:
    """How large all inputs of a job may be together, in bytes or in MB: as the queue says, else as the settings do."""
    limit = queuedata.maxinputsize or read().file.input_limit
    return limit if megabyte else limit * _MB


def get_score(pid: int) -> str:
    """How soon the kernel chooses a process when memory runs out (oom_score); "UNKNOWN" when it does not tell."""
    try:
        return Path(f"/proc/{pid}/oom_score").read_text(encoding="utf-8").strip()
    except OSError:
        return "UNKNOWN"


def display_oom_info(payload_pid: int) -> None:
    """Put the scores of the payload's process and of the pilot's into the log."""
    log.info("OOM scores: payload (pid %d) %s, pilot %s", payload_pid, get_score(payload_pid), get_score(os.getpid()))


def get_exception_error_code(diagnostics: str) -> int:
    """The pilot error code for the text of an exception: what the node lacks, else INTERNALPILOTPROBLEM."""
    return next(
        (code for words, code in _CAUSES if re.search(words, diagnostics, re.IGNORECASE)),
        ErrorCodes.INTERNALPILOTPROBLEM,
    )
