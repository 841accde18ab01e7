"""Hooks for Titan and its like: payloads run on the node's RAM disk, since the shared file system is a slow one.

The pilot's own workflow asks for get_setup alone; the others are for whoever runs jobs of Harvester's directories.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from pilot.common.exception import FileHandlingFailure
from pilot.info.jobdata import JobData
from pilot.resource.generic import get_setup as get_setup
from pilot.util.filehandling import write_json
from pilot.util.https import Json, parse_json

# Linux's RAM disk.
RAM_DISK = Path("/dev/shm")
# Where starters of parallel programs say which of its processes one is.
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "ALPS_APP_PE", "SLURM_PROCID")
# What makes a job report long, and nobody but its readers on the node needs.
_LONG = ("logfileReport",)


def command_fix(command: str, job_scratch_dir: str) -> str:
    """A payload's command as it is run on the RAM disk: one line, and files that lie there by their paths."""
    words = command.replace("\n", " ").split(" ")
    there = {name: os.path.join(job_scratch_dir, name) for name in _names(job_scratch_dir)}
    return " ".join(there.get(word, word) for word in words if word)


def get_job(harvesterpath: str) -> tuple[JobData, int]:
    """The job of this process of a parallel program, and its rank (0 without one).

    harvesterpath: Harvester's file with the definitions of jobs by PandaID, of which the rank-th is this process's.
    Raises FileHandlingFailure, and what JobData raises.
    """
    jobs = _read(harvesterpath)
    rank = next((int(os.environ[name]) for name in _RANKS if os.environ.get(name, "").isdigit()), 0)
    if rank >= len(jobs):
        raise FileHandlingFailure(f"{harvesterpath} has {len(jobs)} jobs, none for rank {rank}")
    definition = list(jobs.values())[rank]
    return JobData(definition if isinstance(definition, dict) else {}), rank


def set_job_workdir(job: JobData, path: str) -> str:
    """The directory of a job below Harvester's access point. The pilot's own directory stays what it is."""
    return os.path.join(path, job.jobid)


def set_scratch_workdir(job: JobData, work_dir: str, args: MutableMapping[str, float]) -> str:
    """Make a directory for a job on the RAM disk and copy its inputs there; return it.

    args: takes the seconds that this has needed, as "scratch". Raises FileHandlingFailure.
    """
    begun = time.monotonic()
    scratch = RAM_DISK / f"pilotkit-{os.getuid()}-{job.jobid}"
    try:
        scratch.mkdir(mode=0o700)
        for spec in job.indata:
            shutil.copyfile(os.path.join(work_dir, spec.lfn), scratch / spec.lfn)
    except OSError as exc:
        raise FileHandlingFailure(f"{scratch} cannot be filled from {work_dir}: {exc}") from exc
    args["scratch"] = time.monotonic() - begun
    return str(scratch)


def process_jobreport(payload_report_file: str, job_scratch_path: str, job_communication_point: str) -> None:
    """Copy a job report from the RAM disk to where Harvester looks for it, without what makes it long.

    Raises FileHandlingFailure.
    """
    report = _read(os.path.join(job_scratch_path, payload_report_file))
    executors = report.get("executor")
    for executor in executors if isinstance(executors, list) else []:
        if isinstance(executor, dict):
            for name in _LONG:
                executor.pop(name, None)
    write_json(os.path.join(job_communication_point, payload_report_file), report)


def postprocess_workdir(workdir: str) -> None:
    """Remove the links in a directory. Raises FileHandlingFailure."""
    try:
        for name in os.listdir(workdir):
            path = os.path.join(workdir, name)
            if os.path.islink(path):
                os.unlink(path)
    except OSError as exc:
        raise FileHandlingFailure(f"links in {workdir} cannot be removed: {exc}") from exc


def _names(folder: str) -> list[str]:
    with suppress(OSError):
        return os.listdir(folder)
    return []


def _read(path: str) -> dict[str, Json]:
    """A JSON object. Raises FileHandlingFailure."""
    try:
        found = parse_json(Path(path).read_bytes())
    except (OSError, ValueError) as exc:
        raise FileHandlingFailure(f"{path} cannot be read: {exc}") from exc
    if not isinstance(found, dict):
        raise FileHandlingFailure(f"{path} is no JSON object but {json.dumps(found)[:60]}")
    return found
