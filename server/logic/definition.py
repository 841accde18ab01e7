"""The job definition a pilot gets: the keys of getJob (wire.md section 4) from columns, files and the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from server.db.files import JobFile
from server.logic.matching import ANY_LABEL

#: What stands for this server's address in stored definitions; it is filled in when a pilot asks, since only then it
#: is known how pilots reach us. The name is JEDI's (client.md 1.3).
SERVER_MARK = "${SURL}"

#: The keys of getJob that are neither columns nor lists of files, with their values where the submitter gave none. A
#: text that is not set is the word NULL on this wire.
DEFINITION_DEFAULTS: Mapping[str, str | int] = {
    "swRelease": "NULL",
    "homepackage": "NULL",
    "transformation": "NULL",
    "jobDefinitionID": 0,
    "cloud": "NULL",
    "destinationSE": "NULL",
    "prodUserID": "NULL",
    "maxCpuCount": 0,
    "cmtConfig": "NULL",
    "transferType": "NULL",
    "sourceSite": "NULL",
    "reqID": 0,
    "nucleus": "NULL",
    "ioIntensity": 0,
    "ioIntensityUnit": "NULL",
    "jobPars": "",
}

#: Keys a pilot understands and most jobs do not have; they are passed on as given. Truth values are the word True.
OPTIONAL_KEYS = frozenset(
    {
        "preprocess",
        "postprocess",
        "coprocess",
        "loopingCheck",
        "cloneJob",
        "eventService",
        "eventServiceMerge",
        "prodDBlockTokenForOutput",
        "writeToFile",
        "allowNoOutput",
        "altStageOut",
        "putLogToOS",
        "noExecStrCnv",
        "inFilePosEvtNum",
        "usePrefetcher",
        "container_name",
        "isHPO",
        "useVP",
        "onSiteMerging",
        "credname",
        "myproxy",
    }
)

#: Positional lists of a job's inputs: key of getJob -> where the value comes from in a file's `wire`, if not a column.
INPUT_LISTS = ("dispatchDblock", "dispatchDBlockToken", "prodDBlocks", "prodDBlockToken")
OUTPUT_LISTS = ("destinationDblock", "destinationDBlockToken", "fileDestinationSE", "dispatchDBlockTokenForOut")

_NULL = "NULL"


def wire_definition(
    job: Mapping[str, str | int | float | bool | None],
    definition: Mapping[str, object],
    files: Sequence[JobFile],
    *,
    server: str,
    endpoint: str,
) -> dict[str, object]:
    """What getJob answers for one job, without the claim.

    Args:
        job: its WIRE_COLUMNS.
        definition: the stored rest.
        files: its files.
        server: this server's address as pilots know it.
        endpoint: the storage of outputs that name none.
    """
    attempt = job["attemptNr"]
    inputs = [file for file in files if file.type == "input"]
    outputs = [file for file in files if file.type == "output"]
    logs = [file for file in files if file.type == "log" and file.attemptNr == attempt]
    answer: dict[str, object] = {**DEFINITION_DEFAULTS, **definition}
    for key in ("transformation", "jobPars"):
        answer[key] = str(answer[key]).replace(SERVER_MARK, server)
    answer |= {
        "StatusCode": 0,
        "PandaID": job["PandaID"],
        "attemptNr": attempt,
        "taskID": job["taskID"],
        "jobsetID": job["jobsetID"],
        "jobName": _or_null(job["jobName"]),
        "prodSourceLabel": "user" if job["prodSourceLabel"] == ANY_LABEL else job["prodSourceLabel"],
        "processingType": _or_null(job["processingType"]),
        "currentPriority": job["currentPriority"],
        "coreCount": job["coreCount"] or 1,
        "minRamCount": job["minRamCount"],
        "maxDiskCount": job["maxDiskCount"],
        "maxWalltime": job["maxWalltime"],
        "resource_type": job["resource_type"],
        "nSent": 0,
        **_inputs(inputs),
        **_outputs(outputs, logs, endpoint),
    }
    if job["debug"]:
        answer["debug"] = "True"
    return answer


def _inputs(inputs: Sequence[JobFile]) -> dict[str, object]:
    """The lists of inputs; a file that is read twice is listed once."""
    distinct = list({file.lfn: file for file in inputs}.values())
    return {
        "inFiles": _joined(file.lfn for file in distinct),
        "GUID": _joined(_or_null(file.guid) for file in distinct),
        "fsize": _joined(_or_null(file.fsize) for file in distinct),
        "checksum": _joined(_or_null(file.checksum) for file in distinct),
        "scopeIn": _joined(file.scope for file in distinct),
        "ddmEndPointIn": _joined(_or_null(file.endpoint) for file in distinct),
        "realDatasetsIn": _joined(_or_null(file.dataset) for file in distinct),
        **{key: _joined(_extra(file, key) for file in distinct) for key in INPUT_LISTS},
    }


def _outputs(outputs: Sequence[JobFile], logs: Sequence[JobFile], endpoint: str) -> dict[str, object]:
    """The lists of outputs and log; scopeOut leaves the log out, which has scopeLog."""
    everything = [*outputs, *logs]
    defaults = {"destinationDblock": "dataset", "fileDestinationSE": "endpoint"}
    answer: dict[str, object] = {
        "outFiles": _joined(file.lfn for file in everything),
        "realDatasets": _joined(file.dataset_name for file in everything),
        "ddmEndPointOut": _joined(_or_null(file.endpoint or endpoint) for file in everything),
        "scopeOut": _joined(file.scope for file in outputs),
        "scopeLog": _joined(file.scope for file in logs),
        "logFile": _joined(file.lfn for file in logs),
        "logGUID": _joined(_or_null(_extra(file, "logGUID")) for file in logs),
    }
    for key in OUTPUT_LISTS:
        values = []
        for file in everything:
            value = _extra(file, key)
            if value == _NULL and defaults.get(key) == "dataset":
                value = file.dataset_name
            elif value == _NULL and defaults.get(key) == "endpoint":
                value = _or_null(file.endpoint or endpoint)
            values.append(value)
        answer[key] = _joined(values)
    return answer


def _extra(file: JobFile, key: str) -> str:
    return (file.wire or {}).get(key) or _NULL


def _or_null(value: str | int | float | None) -> str:
    return _NULL if value is None or value == "" else str(value)


def _joined(values: Iterable[str]) -> str:
    return ",".join(values)
