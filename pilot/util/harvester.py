"""The files that Harvester and a pilot exchange, under the documented names.

Names of files are those of section [Harvester] in default.cfg. What a caller gives no path for lies in the current
directory, which is where the pilot was launched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pilot.common.exception import FileHandlingFailure
from pilot.util.config import read
from pilot.util.filehandling import read_json, write_atomically, write_json
from pilot.util.filetools import remove, touch
from pilot.util.https import Json
from pilot.util.timing import time_stamp
from pilot.util.workernode import get_node_name

# What fills job reports and tells nothing but to who reads logs: each step's messages.
_BULKY = ("logfileReport",)


class File(Protocol):
    """What is needed of a file's description."""

    lfn: str
    guid: str
    filesize: int
    checksum: dict[str, str]
    filetype: str


class Job(Protocol):
    """What is needed of a job."""

    jobid: str
    workdir: str
    outdata: Sequence[File]
    logdata: Sequence[File]


def _argument(args: object, name: str) -> str:
    return str(getattr(args, name, "") or "")


def is_harvester_mode(args: object) -> bool:
    """Whether the pilot's arguments name anything of Harvester's, or say that jobs are pushed."""
    names = ("harvester_workdir", "harvester_datadir", "harvester_eventstatusdump", "harvester_workerattributes")
    return any(_argument(args, name) for name in names) or _argument(args, "harvester_submitmode").upper() == "PUSH"


def get_job_request_file_name() -> str:
    """Path of the file with which the pilot asks for jobs."""
    return os.path.join(os.getcwd(), read().harvester.job_request_file)


def get_event_status_file(args: object) -> str:
    """Path of the file that tells of output files: as the arguments name it, in --harvester-workdir."""
    return _path(args, _argument(args, "harvester_eventstatusdump") or read().harvester.event_status_file)


def get_worker_attributes_file(args: object) -> str:
    """Path of the file that tells of the job: as the arguments name it, in --harvester-workdir."""
    return _path(args, _argument(args, "harvester_workerattributes") or read().harvester.worker_attributes_file)


def _path(args: object, name: str) -> str:
    return os.path.join(_argument(args, "harvester_workdir"), name)


def request_new_jobs(njobs: int = 1) -> None:
    """Ask Harvester for so many jobs. Raises FileHandlingFailure."""
    write_json(get_job_request_file_name(), {"nJobs": njobs})


def remove_job_request_file() -> None:
    """Take the request back, if there is one."""
    path = get_job_request_file_name()
    if os.path.exists(path):
        remove(path)


def kill_worker() -> None:
    """Leave the file that tells Harvester that this pilot has ended. Raises FileHandlingFailure."""
    touch(os.path.join(os.getcwd(), read().harvester.kill_worker_file))


def parse_job_definition_file(filename: str) -> list[dict[str, Json]]:
    """The jobs of Harvester's file, {id: {field: value}}, each with its id as the field "jobid".

    Raises FileHandlingFailure when there is no such file, or something else is in it.
    """
    found = read_json(filename)
    jobs: list[dict[str, Json]] = []
    for jobid, fields in (found if isinstance(found, dict) else {"": found}).items():
        if not isinstance(fields, dict):
            raise FileHandlingFailure(f"{filename} holds no jobs by their ids")
        jobs.append({**fields, "jobid": jobid})
    return jobs


def get_initial_work_report() -> dict[str, Json]:
    """What Harvester is told of a job that has just begun, by the names of updateJob."""
    return {
        "jobStatus": "starting",
        "node": get_node_name(),
        "workdir": os.getcwd(),
        "timestamp": time_stamp(),
        "endTime": "",
        "cpuConsumptionTime": 0,
        "cpuConversionFactor": 1.0,
        "transExitCode": 0,
        "pilotErrorCode": 0,
        "pilotErrorDiag": "",
        "exeErrorCode": 0,
        "exeErrorDiag": "",
        "jobMetrics": "",
        "nEvents": 0,
    }


def publish_work_report(
    work_report: Mapping[str, Json] | None = None, worker_attributes_file: str = "worker_attributes.json"
) -> bool:
    """Tell Harvester of a job; whether there was something to tell. Raises FileHandlingFailure."""
    return write_json(worker_attributes_file, dict(work_report)) if work_report else False


def publish_stageout_files(job: Job, event_status_file: str) -> bool:
    """Tell Harvester of a job's outputs and log, as far as they are there; whether there are any.

    Raises FileHandlingFailure.
    """
    entries: list[Json] = []
    for spec in (*job.outdata, *job.logdata):
        path = os.path.join(job.workdir, spec.lfn)
        if not os.path.isfile(path):
            continue
        about: dict[str, Json] = {"path": path, "type": "log" if spec.filetype == "log" else "output"}
        about["fsize"] = spec.filesize or os.path.getsize(path)
        if spec.guid:
            about["guid"] = spec.guid
        if spec.checksum:
            about["chksum"] = next(iter(spec.checksum.values()))
        entries.append(about)
    return write_json(event_status_file, {str(job.jobid): entries}) if entries else False


def publish_job_report(job: Job, args: object, job_report_file: str = "jobReport.json") -> bool:
    """Put a job's report where Harvester finds it, without blanks and the log messages of its steps.

    Whether there is one. Raises FileHandlingFailure.
    """
    source = os.path.join(job.workdir, job_report_file)
    if not os.path.isfile(source):
        return False
    target = Path(_path(args, os.path.basename(job_report_file)))
    try:
        write_atomically(target, json.dumps(_shrunk(read_json(source)), separators=(",", ":")).encode())
    except OSError as exc:
        raise FileHandlingFailure(f"the job report cannot be copied to {target}: {exc.strerror}") from exc
    return True


def _shrunk(data: Json) -> Json:
    if isinstance(data, dict):
        return {name: _shrunk(value) for name, value in data.items() if name not in _BULKY}
    return [_shrunk(one) for one in data] if isinstance(data, list) else data


def findfile(path: str, name: str) -> str:
    """The first file of a name in a directory or below, empty if there is none."""
    for folder, folders, names in os.walk(path):
        folders.sort()
        if name in names:
            return os.path.join(folder, name)
    return ""


def dump(obj: object) -> None:
    """Print what an object's attributes are, one a line."""
    for name in dir(obj):
        print(f"obj.{name} = {getattr(obj, name, None)!r}")
