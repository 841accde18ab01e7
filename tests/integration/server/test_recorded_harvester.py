"""The recorded traffic of an existing Harvester, replayed unchanged: its calls, in its order, with its bodies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.server.test_recorded_traffic import wait_until_over
from tests.servers import RunningServer

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "harvester_traffic.json").read_text())
STEPS: list[dict[str, Any]] = GOLDEN["steps"]
QUEUES = ("TEST_PUSH", "TEST_PULL", "TEST_LATE", "TEST_MANY")
#: The recording server ended this job with its last word; ours says so as soon as it is killed.
KILLED = "9101"


class Replay:
    """Harvester's side: the jobs of the recording have other numbers here."""

    def __init__(self, server: RunningServer, session: requests.Session) -> None:
        self.server = server
        self.session = session
        self.numbers: dict[str, int] = {}
        self.logs: dict[str, str] = {}

    def call(self, method: str, path: str, body: object) -> dict[str, Any]:
        """One call the way Harvester makes it."""
        url = f"{self.server.url}/api/v1/{path}"
        answer = self.session.get(url, timeout=30) if method == "GET" else self.session.post(url, json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def submit(self, queue: str, outputs: list[str]) -> None:
        job = {"queue": queue, "label": "user", "command": "true", "outputs": outputs}
        assert self.call("POST", "job/submit_jobs", {"jobs": [job]})["success"]

    def acquire(self, queue: str, number: int) -> list[dict[str, Any]]:
        step = next(step for step in STEPS if step["path"] == "pilot/acquire_jobs")
        answer = self.call("POST", step["path"], {**step["body"], "site_name": queue, "n_jobs": number})
        assert not set(step["jobs"]) - answer["data"]["jobs"][0].keys()
        return answer["data"]["jobs"]

    def translated(self, step: dict[str, Any]) -> dict[str, Any]:
        """The body of a step with the numbers and file names of this server."""
        body = json.loads(json.dumps(step["body"]))
        for item in body.get("job_list", []):
            recorded = str(item["job_id"])
            item["job_id"] = self.numbers[recorded]
            if recorded in self.logs and "job_output_report" in item:
                item["job_output_report"] = item["job_output_report"].replace(f"l{recorded}.tgz", self.logs[recorded])
        return body

    def end_of(self, recorded: str) -> dict[str, Any]:
        """A job of the recording, when it is over here."""
        return wait_until_over(self.server, self.numbers[recorded])


@pytest.fixture(scope="module")
def replay(server: RunningServer) -> Iterator[Replay]:
    """The recording's queues and jobs; the first three are Harvester's own doing, the others came before."""
    with requests.Session() as session:
        session.headers.update(GOLDEN["headers"])
        made = Replay(server, session)
        assert made.call("POST", "queue/add", {"queues": {name: {} for name in QUEUES}})["success"]
        for queue, outputs, recorded in (
            ("TEST_PUSH", ["o.txt"], ("9001", "9002", "9003")),
            ("TEST_PUSH", [], ("9101", "9102")),
            ("TEST_LATE", [], ("9201", "9202")),
            ("TEST_MANY", [], ("9301", "9302", "9303", "9401", "9402", "9403", "9404")),
        ):
            for _ in recorded:
                made.submit(queue, outputs)
            for name, job in zip(recorded, made.acquire(queue, len(recorded)), strict=True):
                made.numbers[name], made.logs[name] = job["PandaID"], job["logFile"]
        yield made


def test_a_recorded_harvester_is_answered_as_it_expects_and_shown(replay: Replay) -> None:
    for step in STEPS:
        if step["path"] == "pilot/acquire_jobs":
            continue  # done for all jobs of the recording beforehand
        if KILLED in step.get("commands", {}) and any(
            item["job_status"] == "running" for item in step["body"]["job_list"]
        ):
            assert replay.call("POST", "job/kill", {"job_ids": [replay.numbers[KILLED]]})["data"] == [True]
        answer = replay.call(step["method"], step["path"], replay.translated(step) if "body" in step else None)
        assert answer["success"], (step, answer)
        if "commands" in step:
            commands = [item["data"]["command"] for item in answer["data"]]
            wanted = [_command(item) for item in step["body"]["job_list"]]
            assert [item["success"] for item in answer["data"]] == [True] * len(wanted)
            assert commands == wanted, step
        elif step["path"] == "metaconfig/get_resource_types":
            assert sorted(answer["data"][0]) == step["answer"][0]
        elif step["method"] == "POST":
            assert answer["data"] == step["answer"], step
        else:
            assert isinstance(answer["data"], dict)
    for names, status in ((("9001", "9002", "9003"), "failed"), (("9201", "9202"), "finished"), (("9401",), "failed")):
        for name in names:  # the first three have outputs, and their reports are empty
            assert replay.end_of(name)["jobStatus"] == status
    assert replay.end_of(KILLED)["error"]["code"] == 1144
    _check_what_is_shown(replay)


def _command(item: dict[str, Any]) -> str:
    return "tobekilled" if str(item["job_id"]) == KILLED and item["job_status"] == "running" else "NULL"


def _check_what_is_shown(replay: Replay) -> None:
    (instance,) = replay.call("GET", "harvester/list", None)["data"]
    assert (instance["harvesterID"], instance["sw_version"], instance["hostname"]) == ("harvester-1", "0.7.5", "vm")
    assert instance["startTime"].startswith("2026-11-20T22:55:08.885")
    (worker,) = replay.call("GET", "harvester/list_workers?panda_queue=TEST_PULL", None)["data"]
    assert (worker["workerID"], worker["batchID"], worker["status"], worker["jobType"]) == (
        "2", "1001", "running", "managed",
    )  # fmt: skip
    assert replay.call("GET", "harvester/get_current_worker_id?harvester_id=harvester-1", None)["data"] == 2
    dialogs = replay.call("GET", "harvester/list_dialogs?harvester_id=harvester-1", None)["data"]
    assert [dialog["diagID"] for dialog in dialogs] == [3, 2, 1]
    metrics = replay.call("GET", "harvester/list_metrics", None)["data"]
    assert [line["metrics"]["rss_mib"] for line in metrics] == [96.73, 82.29]
