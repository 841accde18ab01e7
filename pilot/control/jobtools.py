"""Helpers around a job for plugins and scripts, under the documented names.

Import them from pilot.control.job, as chapter 7.3.2 of PanDA's documents has it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import parse_qs

from pilot.common.exception import FileHandlingFailure
from pilot.control.debug import COMMANDS
from pilot.util.config import read
from pilot.util.filehandling import (
    find_latest_modified_file,
    get_valid_path_from_list,
    read_file,
    read_json,
    tail,
)
from pilot.util.harvester import remove_job_request_file
from pilot.util.https import Json
from pilot.util.workernode import collect

__all__ = [
    "get_cpu_consumption_time",
    "get_debug_command",
    "get_heartbeat_period",
    "get_job_definition_from_file",
    "get_job_retrieval_delay",
    "get_latest_log_tail",
    "get_payload_log_tail",
    "get_task_id",
    "locate_job_definition",
    "now",
    "print_node_info",
    "remove_pilot_logs_from_list",
]

log = logging.getLogger(__name__)

# Where the payload's environment names its task.
_TASK = "PanDA_TaskID"
# More CPU seconds than this (30 years) are a mistake; the documents give the number.
_CPU_LIMIT = 10**9
# Harvester puts a job into a file: it is looked for so often (s).
_HARVESTER_DELAY = 1
# What Harvester's templates for HPCs call the file with jobs.
_HPC_JOBS = "HPCJobs.json"
# Lines of a log that are shown.
_TAIL_LINES = 20


def now() -> str:
    """Whole seconds since 1970, as text."""
    return str(int(time.time()))


def get_task_id() -> str:
    """The task that a payload's process belongs to: PanDA_TaskID of its environment, empty where it is not set."""
    return os.environ.get(_TASK, "")


def get_heartbeat_period(debug: bool = False) -> int:
    """Seconds between two heartbeats: heartbeat in [Pilot], or heartbeat_debug."""
    settings = read().pilot
    return settings.heartbeat_debug if debug else settings.heartbeat


def get_job_retrieval_delay(harvester: bool) -> int:
    """Seconds between two looks for a job: in a file of Harvester's, or at a server that names no time itself."""
    return _HARVESTER_DELAY if harvester else int(read().pilot.getjob_delay_min)


def locate_job_definition(args: object) -> str:
    """The file in which Harvester leaves jobs, in --harvester-workdir or the current directory; empty for none."""
    folders = (str(getattr(args, "harvester_workdir", "") or ""), os.getcwd())
    names = (read().harvester.job_definition_file, _HPC_JOBS)
    return get_valid_path_from_list(os.path.join(folder, name) for folder in folders if folder for name in names)


def get_job_definition_from_file(path: str, harvester: bool) -> dict[str, Json]:
    """One job of a file: a definition as JSON or as a form, or the first of Harvester's, {PandaID: definition}.

    harvester: the request for jobs is taken back. Raises FileHandlingFailure when no job is in the file.
    """
    text = str(read_file(path)).strip()
    if text.startswith("{"):
        found = read_json(path)
        jobs = list(found.values()) if isinstance(found, dict) and "PandaID" not in found else [found]
        definition = jobs[0] if jobs else None
    else:
        definition = {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True).items()}
    if not isinstance(definition, dict) or "PandaID" not in definition:
        raise FileHandlingFailure(f"{path} holds no job definition (one has a field PandaID)")
    if harvester:
        remove_job_request_file()
    return definition


def get_cpu_consumption_time(cpuconsumptiontime: float | None) -> int | None:
    """CPU time in whole seconds, None for none and for what cannot be true."""
    if cpuconsumptiontime is None or not 0 <= cpuconsumptiontime < _CPU_LIMIT:
        return None
    return int(cpuconsumptiontime)


def get_debug_command(cmd: str) -> tuple[bool, str]:
    """Whether a server's command is one of those that are obeyed (tail, ls, ps, du, gdb), and the command, or nothing.

    Whether its options and files are allowed is found out when it is run.
    """
    words = cmd.split()
    known = bool(words) and words[0] in COMMANDS
    return known, cmd.strip() if known else ""


def print_node_info() -> None:
    """Put what is known of the node into the log."""
    facts = collect(os.environ)
    log.info(
        "node %s: %s, %d core(s), %.0f MB, %s", facts.name, facts.cpu_model, facts.cores, facts.memory, facts.system
    )


def remove_pilot_logs_from_list(list_of_files: Iterable[str]) -> list[str]:
    """Files without those that a pilot writes itself."""
    settings = read()
    own = {settings.pilot.pilotlog, settings.payload.stdout, settings.payload.stderr, "memory_monitor_output.txt"}
    return [path for path in list_of_files if os.path.basename(path) not in own]


def get_latest_log_tail(files: Sequence[str]) -> str:
    """The last lines of the file that was written last; empty if there is none."""
    path, _ = find_latest_modified_file(files)
    return tail(path, _TAIL_LINES) if path else ""


def get_payload_log_tail(workdir: str) -> str:
    """The last lines of the payload's stdout, or, as long as that is empty, of its log that was written last."""
    shown = tail(os.path.join(workdir, read().payload.stdout), _TAIL_LINES)
    logs = [str(path) for pattern in ("log.*", "*.log") for path in Path(workdir).glob(pattern)]
    return shown or get_latest_log_tail(remove_pilot_logs_from_list(logs))
