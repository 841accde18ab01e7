"""A real daemon and a Harvester that behaves like the recorded one: workers are ordered, and lost ones are found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from server.daemon.config import DEFAULTS
from tests.integration.server.clients import QUEUE, Client, wait_until
from tests.integration.server.test_recorded_harvester import GOLDEN, STEPS
from tests.servers import running_server

HARVESTER = "harvester-1"
STREAMED = "TEST_STREAMED"
REPORT, SET = f"REPORT_WORKER_STATS:{STREAMED}", f"SET_N_WORKERS_JOBTYPE:{STREAMED}"
#: Hours a job may be silent after its worker has ended: a second.
PATIENCE = 1 / 3600


class Harvester:
    """The calls of the recording, with its headers, and its bodies as far as they are not about numbers."""

    def __init__(self, url: str) -> None:
        self.client = Client(url)
        self.client.session.headers.update(GOLDEN["headers"])
        self.orders: list[dict[str, Any]] = []

    def close(self) -> None:
        self.client.session.close()

    def call(self, path: str, **changes: object) -> Any:
        body = next(step["body"] for step in STEPS if step["path"] == path)
        return self.client.data(path, {**body, **changes})

    def report_statistics(self, **states: int) -> None:
        counts = json.dumps({"managed": {"SCORE": states}})
        self.call("harvester/report_worker_statistics", panda_queue=STREAMED, statistics=counts)

    def update_worker(self, number: int, status: str, **more: object) -> None:
        (recorded,) = next(step["body"]["workers"] for step in STEPS if step["path"] == "harvester/update_workers")
        worker = {**recorded, "workerID": number, "computingSite": QUEUE, "status": status, **more}
        assert self.call("harvester/update_workers", workers=[worker]) == [True]

    def fetch(self) -> list[dict[str, Any]]:
        """Ask for orders once, as Harvester does every few seconds."""
        fetched = self.call("harvester/acquire_commands")
        self.orders += fetched
        return list(fetched)

    def wait_for_order(self, words: str) -> Any:
        """The parameters of the next order of these words."""
        begun = len(self.orders)

        def is_there() -> bool:
            self.fetch()
            return any(order["command"] == words for order in self.orders[begun:])

        wait_until(is_there, words)
        return next(order["params"] for order in self.orders[begun:] if order["command"] == words)

    def orders_of_rounds(self, number: int) -> list[str]:
        """The words of all orders of so many rounds of the daemon: in each it asks for statistics."""
        begun = len(self.orders)
        for _ in range(number):
            self.wait_for_order(REPORT)
        return [order["command"] for order in self.orders[begun:]]


@pytest.fixture(scope="module")
def harvester(
    make_database: Callable[[str], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Harvester]:
    """A Harvester whose server has queues and jobs from its beginning, and does its rounds without delay.

    What is set is known to all processes after half a minute, and jobs are counted once a minute: so both are done
    before the daemon begins.
    """
    data = tmp_path_factory.mktemp("harvested")
    environment = {**make_database("harvested"), "PILOTKIT_DAEMON_CONFIG": str(data / "daemon.json")}
    _configure_daemon(data, "presence")
    with running_server(data, environment=environment) as server, Client(server.url) as operator:
        streamed = {"workflow": "pull_ups", "capability": "ucore", "harvester": HARVESTER}
        operator.data("queue/add", {"queues": {QUEUE: {}, STREAMED: streamed}})
        operator.submit(*[{"queue": STREAMED, "label": "managed"}] * 9)
        wish = {"component": "watcher", "key": "TIMEOUT_workerdone", "value": str(PATIENCE)}
        operator.data("metaconfig/set_config", wish)
    _configure_daemon(data, "presence", "pilot_streaming", "worker_synchronization")
    with running_server(data, environment=environment) as server, closing(Harvester(server.url)) as made:
        yield made


def _configure_daemon(data: Path, *scripts: str) -> None:
    config = {name: {"period": 0.2} if name in scripts else {"enable": False} for name in DEFAULTS}
    (data / "daemon.json").write_text(json.dumps(config))


def test_new_workers_are_ordered_while_they_are_wanted(harvester: Harvester) -> None:
    harvester.call("harvester/heartbeat")
    assert SET not in harvester.orders_of_rounds(2), "nobody knows yet how many workers there are"
    harvester.report_statistics(running=8, submitted=1)
    assert harvester.wait_for_order(SET) == {"managed": {"SCORE": 3}}  # half of 8, and one waits
    harvester.report_statistics(running=8, submitted=4)
    harvester.orders_of_rounds(2)  # the first may have begun before that
    assert SET not in harvester.orders_of_rounds(2)
    harvester.report_statistics(running=12, submitted=0)
    assert harvester.wait_for_order(SET) == {"managed": {"SCORE": 6}}
    harvester.report_statistics(running=40, submitted=0)
    harvester.orders_of_rounds(2)
    assert harvester.wait_for_order(SET) == {"managed": {"SCORE": 9}}, "more workers than jobs"


def test_the_job_of_a_worker_that_ended_in_silence_is_found_and_queued_again(harvester: Harvester) -> None:
    client = harvester.client
    jobs = client.submit({"max_attempts": 2}, {"max_attempts": 2})
    for number, job in zip((11, 12), jobs, strict=True):
        harvester.update_worker(number, "running", pandaid_list=[])
        worker = {"worker_id": number, "harvester_id": HARVESTER}
        assert client.data("pilot/update_worker_status", {**worker, "status": "started", "site": QUEUE})
        taken = client.data("pilot/acquire_jobs", {"site_name": QUEUE, "prod_source_label": "user", **worker})
        assert [one["PandaID"] for one in taken["jobs"]] == [job]
        client.data("pilot/update_job", {"job_id": job, "job_status": "running"})
    lost, other = jobs
    ended = datetime.now(UTC).strftime("datetime/%Y-%m-%d %H:%M:%S.%f")
    harvester.update_worker(11, "failed", endTime=ended, diagMessage="1001 w p a 1 NODE_FAIL 0:0")
    client.wait_for(lost, "activated")
    (failed, again) = client.job(lost)["history"][-2:]
    assert (failed["status"], failed["actor"], again["attemptNr"]) == ("failed", "worker_synchronization", 2)
    assert "worker 11 of harvester-1 (batch job 1001) is failed: 1001 w p a 1 NODE_FAIL 0:0" in failed["reason"]
    late = client.data("pilot/update_job", {"job_id": lost, "job_status": "running", "attempt_nr": 1})
    assert late["command"] == "tobekilled"
    assert client.status(other) == "running"
    (shown,) = [one for one in client.data("harvester/list_workers", panda_queue=QUEUE) if one["workerID"] == "11"]
    assert (shown["status"], shown["pilotStatus"], shown["pandaid_list"]) == ("failed", "started", [lost])
