"""The names of the two generations of the wire: one table in here, one in the documents, and they agree."""

from __future__ import annotations

import pytest

from pilot.info import wire
from pilot.util.https import Json

# Every argument of updateJob (wire.md, section 5), with its name in v1; None: v1 refuses it.
UPDATE = {
    "jobId": "job_id",
    "state": "job_status",
    "token": None,
    "transExitCode": "trans_exit_code",
    "pilotErrorCode": "pilot_error_code",
    "pilotErrorDiag": "pilot_error_diag",
    "timestamp": None,
    "timeout": "timeout",
    "xml": "job_output_report",
    "node": "node",
    "workdir": None,
    "cpuConsumptionTime": "cpu_consumption_time",
    "cpuConsumptionUnit": "cpu_consumption_unit",
    "remainingSpace": None,
    "schedulerID": "scheduler_id",
    "pilotID": "pilot_id",
    "siteName": "site_name",
    "messageLevel": None,
    "pilotLog": "pilot_log",
    "metaData": "meta_data",
    "cpuConversionFactor": "cpu_conversion_factor",
    "exeErrorCode": "exe_error_code",
    "exeErrorDiag": "exe_error_diag",
    "pilotTiming": "pilot_timing",
    "computingElement": None,
    "startTime": "start_time",
    "endTime": "end_time",
    "nEvents": "n_events",
    "nInputFiles": "n_input_files",
    "batchID": "batch_id",
    "attemptNr": "attempt_nr",
    "jobMetrics": "job_metrics",
    "stdout": "stdout",
    "jobSubStatus": "job_sub_status",
    "coreCount": "core_count",
    "maxRSS": "max_rss",
    "maxVMEM": "max_vmem",
    "maxSWAP": "max_swap",
    "maxPSS": "max_pss",
    "avgRSS": "avg_rss",
    "avgVMEM": "avg_vmem",
    "avgSWAP": "avg_swap",
    "avgPSS": "avg_pss",
    "totRCHAR": "tot_rchar",
    "totWCHAR": "tot_wchar",
    "totRBYTES": "tot_rbytes",
    "totWBYTES": "tot_wbytes",
    "rateRCHAR": "rate_rchar",
    "rateWCHAR": "rate_wchar",
    "rateRBYTES": "rate_rbytes",
    "rateWBYTES": "rate_wbytes",
    "corruptedFiles": "corrupted_files",
    "meanCoreCount": "mean_core_count",
    "cpu_architecture_level": "cpu_architecture_level",
    "grid": "grid",
    "source_site": "source_site",
    "destination_site": "destination_site",
}

# Those that v1 wants as whole numbers; it casts nothing that comes by POST.
UPDATE_INTEGERS = (
    "jobId", "transExitCode", "pilotErrorCode", "exeErrorCode", "cpuConsumptionTime", "nEvents", "nInputFiles",
    "attemptNr", "coreCount", "meanCoreCount",
)  # fmt: skip

# Every argument of getJob (wire.md, section 4), with its name in v1; None: v1 refuses it.
GETJOB = {
    "siteName": "site_name",
    "token": None,
    "timeout": "timeout",
    "cpu": None,
    "mem": "memory",
    "diskSpace": "disk_space",
    "prodSourceLabel": "prod_source_label",
    "node": "node",
    "computingElement": "computing_element",
    "AtlasRelease": None,
    "prodUserID": "prod_user_id",
    "getProxyKey": "get_proxy_key",
    "countryGroup": None,
    "workingGroup": None,
    "allowOtherCountry": None,
    "taskID": "task_id",
    "nJobs": "n_jobs",
    "background": "background",
    "resourceType": "resource_type",
    "harvester_id": "harvester_id",
    "worker_id": "worker_id",
    "schedulerID": "scheduler_id",
    "jobType": "job_type",
    "viaTopic": "via_topic",
    "remaining_time": "remaining_time",
}


def test_every_argument_of_an_update_has_its_v1_name_or_stays_behind() -> None:
    for legacy, v1 in UPDATE.items():
        wanted: dict[str, Json] = {} if v1 is None else {v1: 7 if legacy in UPDATE_INTEGERS else "7"}
        assert wire.update_to_v1({legacy: "7"}) == wanted


def test_every_argument_of_getjob_has_its_v1_name_or_stays_behind() -> None:
    for legacy, v1 in GETJOB.items():
        assert list(wire.getjob_to_v1({legacy: "7"})) == ([] if v1 is None else [v1]), legacy


def test_getjob_leaves_out_what_is_empty_and_unknown() -> None:
    assert wire.getjob_to_v1({"siteName": "S", "prodUserID": "", "taskID": None, "newThing": "x"}) == {"site_name": "S"}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("254", 254),
        ("-1305", -1305),
        ("9223372036854775807", 9223372036854775807),
        (12, 12),
        (0.97, 1),
        (1.6, 2),
        (24105.56, 24106),
        (True, True),
        (None, None),
        ("", ""),
        ("slot7", "slot7"),
        (float("inf"), float("inf")),
    ],
)
def test_whole_numbers_become_numbers_and_what_is_none_is_left_to_the_servers_refusal(
    value: Json, wanted: Json
) -> None:
    assert wire.update_to_v1({"jobId": value}) == {"job_id": wanted}


def test_memory_and_disk_of_getjob_are_whole_megabytes() -> None:
    assert wire.getjob_to_v1({"mem": 24105.56, "diskSpace": 20000, "worker_id": "42"}) == {
        "memory": 24106,
        "disk_space": 20000,
        "worker_id": 42,
    }


def test_figures_that_are_no_counts_stay_as_they_are() -> None:
    assert wire.update_to_v1({"rateRCHAR": 1.5, "maxRSS": 7, "cpuConversionFactor": 0.5}) == {
        "rate_rchar": 1.5,
        "max_rss": 7,
        "cpu_conversion_factor": 0.5,
    }


def test_a_worker_status_has_its_v1_names() -> None:
    status: dict[str, Json] = {
        "workerID": "42", "harvesterID": "h", "status": "started", "site": "Q", "node_id": "n"
    }  # fmt: skip
    assert wire.worker_to_v1(status) == {
        "worker_id": 42, "harvester_id": "h", "status": "started", "node_id": "n"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("camel", "snake"),
    [("siteName", "site_name"), ("pilotID", "pilot_id"), ("maxRSS", "max_rss"), ("totRCHAR", "tot_rchar"),
     ("nEvents", "n_events"), ("node", "node"), ("worker_id", "worker_id"), ("JSONText", "json_text"), ("", "")],
)  # fmt: skip
def test_names_are_put_into_snake_case(camel: str, snake: str) -> None:
    assert wire.snake_case(camel) == snake
