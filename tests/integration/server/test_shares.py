"""Global shares with real servers on both databases: all get what is due, and none is told that there is nothing."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from server.cli.main import pilotkit
from tests.integration.server.clients import QUEUE, Client, run_together, wait_until
from tests.servers import RunningServer

CLIENTS = 32
#: Five times the share of C for A, three times for B.
TREE = {
    "Both": {
        "value": 80,
        "children": {"A": {"value": 50, "workingGroup": "a"}, "B": {"value": 30, "workingGroup": "b"}},
    },
    "C": {"value": 10, "workingGroup": "c"},
    "Test": {"value": 10, "processingType": "urgent"},
}
FAILED_SITE = 1325  # SINGULARITYNOTINSTALLED


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    """A client of the module's server, with a queue that has no jobs left in it, and the shares."""
    with Client(server.url) as made:
        made.data("queue/add", {"queues": {QUEUE: {}, "OTHER": {}}})
        # Else one answer in ten is the oldest job, whatever is preferred; even 0 is one in a hundred.
        made.data("metaconfig/set_config", {"component": "dispatch", "key": "SLOPPY_DISPATCH_RATIO", "value": "-1"})
        made.data("share/set", {"shares": {}})
        while made.get_job()["StatusCode"] == 0:
            pass
        made.data("share/set", {"shares": TREE})
        yield made
        made.data("share/set", {"shares": {}})


def run(server: RunningServer, *arguments: str, given: str = "") -> Result:
    return CliRunner().invoke(pilotkit, arguments, input=given, env={"PILOTKIT_URL": server.url})


def line(client: Client, share: str) -> dict[str, Any]:
    found: dict[str, Any] = next((one for one in client.data("share/list") if one["name"] == share), {})
    return found


def test_with_many_clients_and_shares_every_job_is_given_once_and_nobody_is_told_that_there_is_none(
    server: RunningServer, client: Client
) -> None:
    """Whoever is told that nothing is queued has been told the truth: by then every job was somebody's."""
    groups = [group for group, number in (("a", 200), ("b", 120), ("c", 40), ("other", 40)) for _ in range(number)]
    wanted = client.submit(
        *({"workingGroup": group, "memory": 100 * (n % 4), "priority": n % 7} for n, group in enumerate(groups))
    )
    taken: list[int] = []
    wrong: list[str] = []

    def work() -> None:
        with Client(server.url) as own:
            while True:
                answer = own.get_job()
                if answer["StatusCode"] == 0:
                    taken.append(answer["PandaID"])
                    continue
                if answer["reason"] == "busy":
                    continue
                # Those still on their way to other clients are not free: they are sent.
                if answer["reason"] != "nothing_queued":
                    wrong.append(answer["errorDialog"])
                queued = own.data("job/list", status="activated", queue=QUEUE)
                wrong.extend(f"job {job['PandaID']} is still queued" for job in queued)
                return

    run_together([work] * CLIENTS)
    assert not wrong
    assert Counter(taken) == Counter(wanted)


def test_slots_are_divided_by_the_targets_while_all_shares_have_jobs(server: RunningServer, client: Client) -> None:
    client.submit(*({"workingGroup": group} for group in "abc" for _ in range(150)))
    groups = {share["name"]: share for share in client.data("share/list")}
    assert groups["A"]["target_percent"] == 50.0
    taken: Counter[str] = Counter()
    lock = threading.Lock()

    def work() -> None:
        with Client(server.url) as own:
            for _ in range(9):
                job = own.get_job()
                gshare = own.job(job["PandaID"])["gshare"]
                with lock:
                    taken[gshare] += 1

    run_together([work] * 10)
    # Of 90 jobs 50, 30 and 10, but each of the two web workers only guesses what the other does between two counts.
    assert taken.total() == 90
    assert 35 <= taken["A"] <= 70
    assert 15 <= taken["B"] <= 40
    assert 3 <= taken["C"] <= 20


def test_the_daemon_counts_what_runs_and_tags_what_is_queued(server: RunningServer, client: Client) -> None:
    client.submit(*({"workingGroup": "c", "queue": "OTHER"} for _ in range(3)))
    body = {"siteName": "OTHER", "prodSourceLabel": "user"}
    client.panda("getJob", body)
    assert run(server, "shares", "set", "-", given='{"Fresh": {"value": 1, "workingGroup": "c"}}').exit_code == 0
    wait_until(lambda: line(client, "Fresh").get("queued") == 2, "the daemon to tag and count", patience=60)
    shown = run(server, "shares", "list")
    assert shown.exit_code == 0
    assert "Fresh" in shown.output
    assert json.loads(run(server, "shares", "show").output) == {"Fresh": {"value": 1.0, "workingGroup": "c"}}
    assert line(client, "C")["running"] >= 1  # jobs that pilots have keep their share, gone or not
    refused = run(server, "shares", "set", "-", given='{"Bad": {"value": 1, "workingGroup": "("}}')
    assert refused.exit_code == 1
    assert "shares.Bad.workingGroup is no regular expression" in refused.output
    for _ in range(2):
        client.panda("getJob", body)


def test_a_node_that_only_fails_is_paused_until_an_operator_ends_it(server: RunningServer, client: Client) -> None:
    client.submit(*[{}] * 8)
    body: dict[str, object] = {"siteName": QUEUE, "prodSourceLabel": "user", "node": "slot1@sick"}
    for _ in range(5):
        job = client.panda("getJob", body)
        client.update(job["PandaID"], "failed", pilotErrorCode=FAILED_SITE, pilotErrorDiag="no runtime")
        client.wait_for(job["PandaID"], "failed")
    wait_until(lambda: client.panda("getJob", {**body, "taskID": 99}).get("reason") == "throttled", "a pause")
    answer = client.panda("getJob", body)
    assert (answer["StatusCode"], answer["reason"]) == (20, "throttled")
    assert "SINGULARITYNOTINSTALLED" in answer["errorDialog"]
    assert 0 < answer["retry_after"] <= 900
    assert client.panda("getJob", {**body, "node": "well"})["StatusCode"] == 0
    assert "sick" in run(server, "node", "failing").output
    assert run(server, "node", "lift", QUEUE, "sick").exit_code == 0
    wait_until(lambda: client.panda("getJob", {**body, "taskID": 99}).get("reason") != "throttled", "its end")
    assert client.panda("getJob", body)["StatusCode"] == 0
    assert run(server, "node", "lift", QUEUE, "sick").exit_code == 1


def test_groups_and_preferences_of_pilots_are_honoured_on_both_apis(client: Client) -> None:
    _, ours, of_task = client.submit({}, {"countryGroup": "us", "workingGroup": "a"}, {"taskID": 7})
    legacy: dict[str, object] = {"siteName": QUEUE, "prodSourceLabel": "user"}
    v1 = {"site_name": QUEUE, "prod_source_label": "user"}
    assert client.panda("getJob", {**legacy, "countryGroup": "de"})["reason"] == "country_group"
    assert client.v1("pilot/acquire_jobs", {**v1, "working_group": "z"})["reason"] == "working_group"
    found = client.data("pilot/acquire_jobs", {**v1, "country_group": "us", "working_group": "a,b"})
    assert found["jobs"][0]["PandaID"] == ours
    assert client.panda("getJob", legacy, X_Pilotkit_Prefer="user=x; task=7")["PandaID"] == of_task
    assert client.panda("getJob", {**legacy, "countryGroup": "de", "allowOtherCountry": True})["StatusCode"] == 0
