"""The two generations of the dispatcher's interface: v1 names and types for legacy ones (wire.md, sections 4, 5).

Inside the pilot the legacy names are used, because both generations' job definitions have them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pilot.util.https import Json

# v1 names that are not simply the legacy name in snake case.
_GETJOB_V1 = {"mem": "memory"}
_UPDATE_V1 = {
    "jobId": "job_id",
    "state": "job_status",
    "xml": "job_output_report",
    "metaData": "meta_data",
    "cpu_architecture_level": "cpu_architecture_level",
}
_WORKER_V1 = {"workerID": "worker_id", "harvesterID": "harvester_id"}

# Arguments of getJob that v1 knows; it refuses all others.
_GETJOB_V1_KNOWN = frozenset(
    {
        "site_name", "timeout", "memory", "disk_space", "prod_source_label", "node", "computing_element",
        "prod_user_id", "get_proxy_key", "task_id", "n_jobs", "background", "resource_type", "harvester_id",
        "worker_id", "scheduler_id", "job_type", "via_topic", "remaining_time",
    }
)  # fmt: skip
# Arguments of updateJob that legacy servers take but do not use, and v1 refuses.
_UPDATE_LEGACY_ONLY = frozenset({"timestamp", "token", "workdir", "remainingSpace", "messageLevel", "computingElement"})

_GETJOB_INTEGERS = frozenset({"memory", "disk_space", "task_id", "n_jobs", "worker_id", "remaining_time"})
_UPDATE_INTEGERS = frozenset(
    {
        "job_id", "cpu_consumption_time", "trans_exit_code", "pilot_error_code", "exe_error_code", "n_events",
        "n_input_files", "attempt_nr", "core_count", "mean_core_count",
    }
)  # fmt: skip
_WORKER_INTEGERS = frozenset({"worker_id"})
_EVENTS_V1 = {"pandaID": "job_id"}
_EVENTS_INTEGERS = frozenset({"job_id", "task_id", "jobset_id", "n_ranges", "version"})


def snake_case(name: str) -> str:
    """siteName -> site_name, pilotErrorCode -> pilot_error_code, maxRSS -> max_rss, totRCHAR -> tot_rchar."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def getjob_to_v1(request: Mapping[str, Json]) -> dict[str, Json]:
    """The arguments of v1's pilot/acquire_jobs for those of legacy getJob; what v1 does not know is left out."""
    translated = _translate(request, _GETJOB_V1, _GETJOB_INTEGERS)
    return {name: value for name, value in translated.items() if name in _GETJOB_V1_KNOWN and value not in ("", None)}


def update_to_v1(update: Mapping[str, Json]) -> dict[str, Json]:
    """The arguments of v1's pilot/update_job for those of legacy updateJob."""
    kept = {name: value for name, value in update.items() if name not in _UPDATE_LEGACY_ONLY}
    return _translate(kept, _UPDATE_V1, _UPDATE_INTEGERS)


def worker_to_v1(status: Mapping[str, Json]) -> dict[str, Json]:
    """The arguments of v1's pilot/update_worker_status for those of legacy updateWorkerPilotStatus."""
    return {n: v for n, v in _translate(status, _WORKER_V1, _WORKER_INTEGERS).items() if n != "site"}


def events_to_v1(arguments: Mapping[str, Json]) -> dict[str, Json]:
    """The arguments of v1's event/acquire_event_ranges and event/update_event_ranges for the legacy ones."""
    return _translate(arguments, _EVENTS_V1, _EVENTS_INTEGERS)


def _translate(legacy: Mapping[str, Json], special: Mapping[str, str], integers: frozenset[str]) -> dict[str, Json]:
    translated: dict[str, Json] = {}
    for name, value in legacy.items():
        new = special.get(name) or snake_case(name)
        translated[new] = _whole(value) if new in integers else value
    return translated


def _whole(value: Json) -> Json:
    """A whole number where there is one; what is none is left for the server to refuse by its name."""
    try:
        if isinstance(value, str):
            return int(value)
        return round(value) if isinstance(value, float) else value
    except (ValueError, OverflowError):
        return value
