"""What an existing pilot and an existing Harvester send, replayed: the answers must be those they know."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.servers import RunningServer
from tests.site import OVER

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "server_traffic.json").read_text())
QUEUE = "SITE_QUEUE"
HEADERS = {"User-Agent": "pilot/3.11.5.1 (Python 3.11.7; Linux x86_64)", "Origin": "vo.pilot"}


@pytest.fixture(scope="module")
def site(server: RunningServer) -> RunningServer:
    """The queue and the storage the pilot was recorded with."""
    for path, body in (
        ("queue/add", {"queues": {QUEUE: GOLDEN["queue"]}}),
        ("storage/add", {"storages": {"SITE_DISK": GOLDEN["storage"]}}),
    ):
        assert requests.post(f"{server.url}/api/v1/{path}", json=body, timeout=30).json()["success"]
    return server


def send(server: RunningServer, method: str, path: str, body: object, encoding: str) -> requests.Response:
    """One request the way an existing pilot makes it: a connection of its own, its encoding, its headers."""
    url = server.url + path
    headers = {**HEADERS, "Connection": "close"}
    if method == "GET":
        return requests.get(url, headers=headers, timeout=30)
    if encoding == "gzip":  # without Content-Encoding
        data = gzip.compress(json.dumps(body).encode())
        return requests.post(url, data=data, headers={**headers, "Content-Type": "application/json"}, timeout=30)
    if encoding == "json":
        return requests.post(url, json=body, headers=headers, timeout=30)
    return requests.post(url, data=body, headers={**headers, "Accept": "application/json"}, timeout=30)


def details(server: RunningServer, job: int) -> dict[str, Any]:
    answer = requests.get(f"{server.url}/api/v1/job/get_details", params={"job_id": job}, timeout=30).json()
    assert answer["success"], answer
    return answer["data"]


def wait_until_over(server: RunningServer, job: int) -> dict[str, Any]:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = details(server, job)
        if found["jobStatus"] in OVER:
            return found
        threading.Event().wait(0.01)  # the state is the daemon's to change; nothing here is told
    raise AssertionError(f"job {job} is still {found['jobStatus']}")


@pytest.mark.parametrize("encoding", ["gzip", "json", "form"])
@pytest.mark.parametrize(
    ("name", "ends"), [("success", "finished"), ("failed_payload", "failed"), ("tobekilled", "failed")]
)
def test_a_recorded_pilot_is_answered_as_it_expects(site: RunningServer, name: str, ends: str, encoding: str) -> None:
    steps = GOLDEN["sessions"][name]
    definition = next(step["definition"] for step in steps if "definition" in step)
    submitted = {"jobs": [{"queue": QUEUE, **definition}]}
    made = requests.post(f"{site.url}/api/v1/job/submit_jobs", json=submitted, timeout=30).json()
    (job,) = made["data"]
    number = job["PandaID"]
    names = {"JOB": str(number), "OUT": job["outputs"][0]["lfn"], "LOG": job["log"]["lfn"]}
    for step in steps:
        text = json.dumps(step.get("body"))
        for word, actual in names.items():
            text = text.replace(word, actual)
        if step.get("command") == "tobekilled":
            killed = requests.post(f"{site.url}/api/v1/job/kill", json={"job_ids": [number]}, timeout=30).json()
            assert killed["data"] == [True]
        answer = send(site, step["method"], step["path"], json.loads(text), encoding)
        if step["path"].startswith("/trf/"):
            continue  # the recorded job had a script of its own
        assert answer.status_code == 200, (step, answer.text)
        if "answer" not in step:
            continue
        values = answer.json()
        assert {key: type(values[key]).__name__ for key in step["answer"]} == step["answer"]
        if "command" in step:
            assert values["command"] == step["command"]
        if "definition" in step:
            assert values["PandaID"] == number
            same = definition.keys() - {"outFiles", "logFile", "jobPars", "transformation"}
            assert {key: values[key] for key in same} == {key: definition[key] for key in same}
    done = wait_until_over(site, number)
    assert done["jobStatus"] == ends
    assert done["node"] == "worker1"
    if ends == "finished":
        assert {f["lfn"]: f["status"] for f in done["files"]} == {names["OUT"]: "ready", names["LOG"]: "ready"}
        assert done["error"] is None
    else:
        assert done["error"]["code"] == (1144 if name == "tobekilled" else 1305)
        assert done["transExitCode"] == (0 if name == "tobekilled" else 1)


def test_the_recorded_pilot_gets_its_queue_and_storage_as_they_were_given(site: RunningServer) -> None:
    queue = send(site, "GET", f"/cache/schedconfig/{QUEUE}.all.json", None, "").json()
    assert {key: queue[key] for key in GOLDEN["queue"]} == GOLDEN["queue"]
    storages = send(site, "GET", "/cache/ddmendpoints.json", None, "").json()
    assert {key: storages["SITE_DISK"][key] for key in GOLDEN["storage"]} == GOLDEN["storage"]


@pytest.fixture
def harvester(site: RunningServer) -> Iterator[requests.Session]:
    """Harvester's own way of calling: JSON in and out, a token that an open server does not look at."""
    with requests.Session() as session:
        session.headers.update({"Accept": "application/json", "Connection": "close", "Authorization": "Bearer x.y.z"})
        yield session


def test_a_recorded_harvester_pushes_jobs_through_their_life(site: RunningServer, harvester: requests.Session) -> None:
    def post(path: str, body: dict[str, object]) -> dict[str, Any]:
        answer = harvester.post(f"{site.url}/api/v1/{path}", json=body, timeout=30)
        assert answer.status_code == 200
        return answer.json()

    jobs = [{"queue": QUEUE, "command": "true", "outputs": ["h.txt"]} for _ in range(3)]
    post("job/submit_jobs", {"jobs": jobs})
    request = {
        "site_name": QUEUE,
        "node": "vm",
        "prod_source_label": "user",
        "computing_element": "vm",
        "n_jobs": 4,
        "scheduler_id": "harvester-harvester-1",
        "resourceType": "SCORE",
    }
    given = post("pilot/acquire_jobs", request)["data"]["jobs"]
    assert len(given) == 3
    needed = """PandaID taskID attemptNr jobsetID currentPriority inFiles GUID fsize checksum scopeIn realDatasetsIn
    ddmEndPointIn outFiles scopeOut scopeLog logFile logGUID realDatasets ddmEndPointOut coreCount resource_type
    minRamCount maxDiskCount maxWalltime ioIntensity prodSourceLabel transformation jobPars"""
    assert not set(needed.split()) - given[0].keys()
    empty = post("pilot/acquire_jobs", request)
    assert (empty["success"], empty["data"]) == (False, None)

    def update(**values: object) -> list[dict[str, Any]]:
        common = {"scheduler_id": "harvester-harvester-1", "site_name": QUEUE, "attempt_nr": 1, "core_count": 1}
        items = [{**common, "job_id": job["PandaID"], "batch_id": f"10{n}", **values} for n, job in enumerate(given)]
        for item, job in zip(items, given, strict=True):
            if "job_output_report" in item:
                lfns = job["outFiles"].split(",")
                described = {"guid": "f37e4f62-27bb-4e7e-8522-9b0e1aa7d977", "fsize": 377, "adler32": "d017b9e5"}
                item["job_output_report"] = json.dumps(dict.fromkeys(lfns, described))
        return post("pilot/update_jobs_bulk", {"job_list": items, "harvester_id": "harvester-1"})["data"]

    for status, sub_status in (
        ("starting", "fetched"),
        ("starting", "prepared"),
        ("running", "running"),
        ("running", "running"),
        ("transferring", "to_transfer"),
    ):
        answers = update(job_status=status, job_sub_status=sub_status)
        assert [a["success"] for a in answers] == [True] * 3
        assert {(a["data"]["StatusCode"], a["data"]["command"], a["data"]["pilotSecrets"]) for a in answers} == {
            (0, "NULL", None)
        }
    final = {"pilot_error_code": 0, "trans_exit_code": 0, "node": "n1", "job_metrics": "nEvents=1"}
    report = {"meta_data": '{"a": "jobreport"}', "job_output_report": "{}"}
    assert all(a["success"] for a in update(job_status="finished", job_sub_status="staged", **final, **report))
    for job in given:
        done = wait_until_over(site, job["PandaID"])
        assert (done["jobStatus"], done["schedulerID"]) == ("finished", "harvester-harvester-1")
    late = update(job_status="finished", job_sub_status="staged", **final, **report)
    assert {a["data"]["command"] for a in late} == {"alreadydone"}


def test_harvesters_other_calls_are_known(site: RunningServer, harvester: requests.Session) -> None:
    types = harvester.get(f"{site.url}/api/v1/metaconfig/get_resource_types", timeout=30).json()["data"]
    assert {"resource_name", "mincore", "maxcore", "minrampercore", "maxrampercore"} == types[0].keys()
    assert harvester.get(f"{site.url}/api/v1/system/is_alive", timeout=30).json()["success"]
    status = harvester.get(f"{site.url}/api/v1/job/get_status?job_ids=1&job_ids=2", timeout=30).json()["data"]
    assert len(status) == 2
