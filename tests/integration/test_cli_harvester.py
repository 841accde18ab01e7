"""`pilotkit harvester` and kills that wait for nobody, against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import requests

from tests.integration.test_cli import Shell, serve


@pytest.fixture(scope="module")
def pilotkit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A server that a Harvester has spoken to."""
    with serve(tmp_path_factory.mktemp("data")) as server:
        shell = Shell(server.url)
        assert shell("queue", "add", "-", stdin='{"Q": {}}').returncode == 0
        said: dict[str, dict[str, object]] = {
            "heartbeat": {"data": {"sw_version": "0.7.5"}},
            "update_workers": {"workers": [{"workerID": 7, "status": "running", "computingSite": "Q", "batchID": "5"}]},
            "report_worker_statistics": {"panda_queue": "Q", "statistics": {"managed": {"SCORE": {"running": 1}}}},
            "add_dialogs": {"dialogs": [{"diagID": 1, "messageLevel": "ERROR", "diagMessage": "no space"}]},
            "update_service_metrics": {"metrics": [["2027-01-15 07:00:00", "vm", {"rss_mib": 82}]]},
        }
        for name, body in said.items():
            url = f"{server.url}/api/v1/harvester/{name}"
            assert requests.post(url, json={"harvester_id": "h1", **body}, timeout=30).json()["success"]
        yield shell


def test_what_harvester_has_said_is_shown(pilotkit: Shell) -> None:
    for command, words in (
        ("list", ("h1", "0.7.5", "running=1")),
        ("workers --queue Q --state running", ("h1", "7", "Q", "5")),
        ("dialogs --level ERROR --id h1", ("no space",)),
        ("metrics", ("vm", "rss_mib=82")),
    ):
        shown = pilotkit("harvester", *command.split())
        assert shown.returncode == 0, shown.stderr
        assert all(word in shown.stdout.splitlines()[1].split() or word in shown.stdout for word in words), shown.stdout
    assert pilotkit.json("harvester", "workers", "--state", "finished") == []
    assert "there are pending" in pilotkit("harvester", "workers", "--state", "x").stderr


def test_operators_order_workers_and_see_what_became_of_it(pilotkit: Shell) -> None:
    for command in (
        "set-workers h1 Q managed/SCORE=2 managed/MCORE=1 user/SCORE=0",
        "report h1 Q",
        "kill-workers h1 17 18",
        "kill-workers h1 --queue Q --state submitted --state ready",
    ):
        done = pilotkit("harvester", *command.split())
        assert done.returncode == 0 and "h1 fetches it within seconds" in done.stdout, done.stderr
    orders = [(one["command"], one["params"], one["status"]) for one in pilotkit.json("harvester", "commands")]
    assert orders == [
        (
            "KILL_WORKERS",
            {
                "status": ["submitted", "ready"],
                "computingSite": ["Q"],
                "computingElement": "ALL",
                "submissionHost": "ALL",
            },
            "new",
        ),
        ("SYNC_WORKERS_KILL", [17, 18], "new"),
        ("REPORT_WORKER_STATS:Q", None, "new"),
        ("SET_N_WORKERS_JOBTYPE:Q", {"managed": {"SCORE": 2, "MCORE": 1}, "user": {"SCORE": 0}}, "new"),
    ]


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("set-workers h1 Q SCORE=2", 2, "is not of the form TYPE/RESOURCE=N"),
        ("set-workers h1 Q managed/SCORE=x", 2, "is not of the form TYPE/RESOURCE=N"),
        ("kill-workers h1", 2, "say which workers"),
        ("kill-workers h1 17 --queue Q", 2, "say which workers"),
        ("kill-workers h1 --ce X", 1, "would end all workers"),
        ("report h2 Q", 1, "No Harvester 'h2' has been heard of"),
        ("report h1 NOSUCH", 1, "no queue 'NOSUCH'"),
    ],
)
def test_an_order_that_cannot_be_meant_is_refused(pilotkit: Shell, command: str, code: int, says: str) -> None:
    done = pilotkit("harvester", *command.split())
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr


def test_a_harvester_has_a_token_of_its_own(pilotkit: Shell) -> None:
    done = pilotkit("token", "create", "--role", "harvester", "--name", "site-a")
    assert done.returncode == 0, done.stderr
    (token,) = pilotkit.json("token", "list")
    assert (token["name"], token["roles"]) == ("site-a", ["harvester"])


def test_resource_types_are_listed_and_set(pilotkit: Shell) -> None:
    stock = pilotkit.json("harvester", "resource-types")
    assert [one["resource_name"] for one in stock][-1] == "Undefined"
    shown = pilotkit("harvester", "resource-types", "-", stdin='[{"resource_name": "ONE", "maxcore": 1}]')
    assert "ONE" in shown.stdout and "MCORE" not in shown.stdout
    assert pilotkit("harvester", "resource-types", "-", stdin=json.dumps([{}])).returncode == 1
    pilotkit("harvester", "resource-types", "-", stdin="[]")
    assert pilotkit.json("harvester", "resource-types") == stock


def test_a_job_is_killed_by_force_or_softly(pilotkit: Shell) -> None:
    number = pilotkit.submit()
    pilotkit.call("pilot/acquire_jobs", site_name="Q", prod_source_label="user")
    soft = pilotkit("kill", "--soft", str(number))
    assert soft.returncode == 1 and "no job of the event service" in soft.stderr
    assert pilotkit("kill", "--soft", "--force", str(number)).returncode == 2
    done = pilotkit("kill", "--force", str(number))
    assert done.stdout == f"job {number}: cancelled, its pilot is told at its next update\n"


def test_workers_are_counted_as_harvester_says(pilotkit: Shell) -> None:
    shown = pilotkit("harvester", "statistics", "--queue", "Q").stdout.splitlines()
    assert [line.split() for line in shown] == [
        ["QUEUE", "INSTANCE", "TYPE", "RESOURCE", "WORKERS"],
        ["Q", "h1", "managed", "SCORE", "running=1"],
    ]
    assert pilotkit.json("harvester", "statistics") == [{"Q": {"h1": {"managed": {"SCORE": {"running": 1}}}}}]
    assert pilotkit.json("harvester", "statistics", "--queue", "OTHER") == [{}]
