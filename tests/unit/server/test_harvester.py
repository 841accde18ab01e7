"""Harvester's side: instances and whose they are, workers, commands, what operators see of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.logic import harvesters, workers
from server.logic.context import ANYBODY, Identity, Role
from server.logic.errors import BadField, NotAllowed, NotFound
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE, Dispatcher
from tests.unit.server.test_routes import bearer, client_of

HARVESTER = "harvester-1"
SITE_A = Identity("site-a", frozenset({Role.HARVESTER}))
SITE_B = Identity("site-b", frozenset({Role.HARVESTER}))
OPERATOR = Identity("root", frozenset({Role.OPERATOR}))


@pytest.fixture
def client(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[FlaskClient]:
    """An open server with one queue."""
    for made in client_of(tmp_path, empty_database):
        made.post("/api/v1/queue/add", json={"queues": {QUEUE: {}}})
        yield made


def worker(number: int = 7, status: str = "running", **more: object) -> dict[str, object]:
    return {"workerID": number, "status": status, "computingSite": QUEUE, "batchID": "12.0", **more}


def update(dispatcher: Dispatcher, *items: object, identity: Identity = SITE_A) -> list[bool]:
    return workers.update_workers(dispatcher.context, HARVESTER, items, identity)[0]


def shown(dispatcher: Dispatcher, number: int = 7) -> dict[str, Any]:
    found = workers.list_workers(dispatcher.context, harvester_id=HARVESTER, queue=None, statuses=(), limit=100)
    return next(one for one in found if one["workerID"] == str(number))


def test_an_instance_registers_itself_and_is_shown(dispatcher: Dispatcher) -> None:
    first = {
        "startTime": "datetime/2027-01-14 10:00:00.5",
        "sw_version": "0.7.5",
        "commit_stamp": "abc",
        "commands": [{"command": "KILL_WORKERS", "computingSite": QUEUE, "resourceType": "ANY", "more": 1}],
    }
    harvesters.heartbeat(dispatcher.context, HARVESTER, first, SITE_A)
    dispatcher.clock.now += 600
    harvesters.heartbeat(dispatcher.context, HARVESTER, {}, SITE_A)
    (instance,) = harvesters.list_instances(dispatcher.context)
    assert instance == {
        "harvesterID": HARVESTER,
        "owner": "site-a",
        "startTime": "2027-01-14T10:00:00.500+00:00",
        "sw_version": "0.7.5",
        "commit_stamp": "abc",
        "hostname": None,
        "commands": [{"command": "KILL_WORKERS", "computingSite": QUEUE, "resourceType": "ANY"}],
        "maxWorkerID": 0,
        "creationTime": "2027-01-15T08:00:00.000+00:00",
        "lastUpdate": "2027-01-15T08:10:00.000+00:00",
        "workers": {},
    }


def test_nobody_speaks_for_anothers_instance(dispatcher: Dispatcher) -> None:
    context = dispatcher.context
    harvesters.heartbeat(context, HARVESTER, {}, SITE_A)
    harvesters.order(context, HARVESTER, "REPORT_WORKER_STATS", QUEUE, None, OPERATOR)
    (command,) = harvesters.list_commands(context, None, 9)
    for strange in (
        lambda: harvesters.heartbeat(context, HARVESTER, {}, SITE_B),
        lambda: update(dispatcher, worker(), identity=SITE_B),
        lambda: workers.report_statistics(context, HARVESTER, QUEUE, {}, SITE_B),
        lambda: harvesters.add_dialogs(context, HARVESTER, [], SITE_B),
        lambda: harvesters.add_metrics(context, HARVESTER, [], SITE_B),
        lambda: harvesters.take_commands(context, HARVESTER, 9, SITE_B),
        lambda: harvesters.acknowledge(context, [int(str(command["commandID"]))], SITE_B),
    ):
        with pytest.raises(NotAllowed, match="belongs to site-a, not to site-b"):
            strange()
    assert len(harvesters.take_commands(context, HARVESTER, 9, OPERATOR)) == 1


def test_all_fields_of_a_worker_are_stored_and_what_is_left_out_stays(dispatcher: Dispatcher) -> None:
    facts = {
        "nCore": 8,
        "nJobs": 2,
        "submitTime": "datetime/2027-01-14 10:00:00",
        "startTime": "datetime/2027-01-14 10:05:00",
        "jobType": "managed",
        "resourceType": "MCORE",
        "diagMessage": "12.0 w p a 1 RUNNING",
        "syncLevel": 1,
        "harvesterHost": "vm",
        "submissionHost": "sub,sub",
        "computingElement": "ce",
        "queueName": "batch",
        "nodeID": "n1",
        "nativeExitCode": 0,
        "nativeStatus": "RUNNING",
        "errorCode": 0,
        "minRamCount": 2000,
        "stdOut": "http://x/out",
        "stdErr": "http://x/err",
        "batchLog": "http://x/log",
        "jdl": "http://x/jdl",
    }
    assert update(dispatcher, worker(**facts, pandaid_list=[31, 32], unknown=1)) == [True]
    assert update(dispatcher, worker(nCore=16, pandaid_list=[32, 33])) == [True]
    found = shown(dispatcher)
    times = {"submitTime": "2027-01-14T10:00:00.000+00:00", "startTime": "2027-01-14T10:05:00.000+00:00", "nCore": 16}
    assert {name: found[name] for name in facts} == {**facts, **times}
    assert (found["status"], found["batchID"], found["pandaid_list"]) == ("running", "12.0", [31, 32, 33])
    assert harvesters.current_worker_id(dispatcher.context, HARVESTER) == 7


def test_a_last_state_of_a_worker_stays(dispatcher: Dispatcher) -> None:
    update(dispatcher, worker(status="submitted"), worker(8))
    update(dispatcher, worker(status="finished", endTime="datetime/2027-01-14 11:00:00"))
    late = worker(status="running", endTime="datetime/2027-01-14 12:00:00", nativeStatus="LATE")
    assert update(dispatcher, late) == [True]
    found = shown(dispatcher)
    assert (found["status"], found["endTime"]) == ("finished", "2027-01-14T11:00:00.000+00:00")
    assert found["nativeStatus"] == "LATE"
    assert shown(dispatcher, 8)["status"] == "running"


@pytest.mark.parametrize(
    "bad",
    [
        "no object",
        {"status": "running"},
        worker(status="dancing"),
        worker(-1),
        {**worker(), "workerID": "x"},
        worker(nCore="many"),
        worker(nCore=2**40),
        worker(startTime="yesterday"),
        worker(pandaid_list=["x"]),
        worker(pandaid_list=7),
        worker(diagMessage={}),
    ],
)
def test_a_worker_that_cannot_be_stored_does_not_keep_the_others_out(dispatcher: Dispatcher, bad: object) -> None:
    stored, complaints = workers.update_workers(dispatcher.context, HARVESTER, [worker(1), bad, worker(2)], SITE_A)
    assert stored == [True, False, True]
    assert len(complaints) == 1 and complaints[0].startswith("worker 1: ")
    assert {one["workerID"] for one in workers.list_workers(
        dispatcher.context, harvester_id=None, queue=QUEUE, statuses=["running"], limit=9
    )} == {"1", "2"}  # fmt: skip


def test_pilot_and_harvester_may_speak_of_a_worker_in_any_order(dispatcher: Dispatcher) -> None:
    said: dict[str, Any] = {
        "harvester_id": HARVESTER,
        "worker_id": "7",
        "site": "SITE",
        "node_id": "node1",
        "identity": ANYBODY,
    }
    workers.note_pilot(dispatcher.context, status="started", **said)
    assert shown(dispatcher)["status"] is None
    update(dispatcher, worker())
    workers.note_pilot(dispatcher.context, status="finished", **said)
    found = shown(dispatcher)
    assert (found["status"], found["pilotStatus"], found["computingSite"], found["nodeID"]) == (
        "running", "finished", QUEUE, "node1",
    )  # fmt: skip
    assert found["pilotStartTime"] == found["pilotEndTime"] == "2027-01-15T08:00:00.000+00:00"


def test_statistics_of_workers_are_replaced_queue_by_queue(dispatcher: Dispatcher) -> None:
    context = dispatcher.context
    of = {"managed": {"SCORE": {"running": 5, "submitted": 2}, "MCORE": {"running": 1}}}
    workers.report_statistics(context, HARVESTER, QUEUE, of, SITE_A)
    workers.report_statistics(context, HARVESTER, "OTHER", {"user": {"SCORE": {"running": 1}}}, SITE_A)
    workers.report_statistics(context, HARVESTER, QUEUE, {"managed": {"SCORE": {"running": 6}}}, SITE_A)
    assert workers.read_statistics(context) == {
        QUEUE: {HARVESTER: {"managed": {"SCORE": {"running": 6}}}},
        "OTHER": {HARVESTER: {"user": {"SCORE": {"running": 1}}}},
    }
    (instance,) = harvesters.list_instances(context)
    assert instance["workers"] == {"running": 7}
    workers.report_statistics(context, HARVESTER, "OTHER", {"ANY": {}}, SITE_A)
    none = {HARVESTER: {"ANY": {"ANY": {"running": 0}}}}
    assert workers.read_statistics(context)["OTHER"] == none, "to have none is not the same as to say nothing"
    for bad in ([], {"managed": 1}, {"managed": {"SCORE": {"running": "x"}}}, {"x" * 33: {"SCORE": {"running": 1}}}):
        with pytest.raises(BadField):
            workers.report_statistics(context, HARVESTER, QUEUE, bad, SITE_A)


def order(dispatcher: Dispatcher, command: str, queue: str = "", params: object = None) -> int:
    return harvesters.order(dispatcher.context, HARVESTER, command, queue, params, OPERATOR)


def fetched(dispatcher: Dispatcher, number: int = 20) -> list[dict[str, Any]]:
    return harvesters.take_commands(dispatcher.context, HARVESTER, number, SITE_A)


def test_a_command_is_fetched_once_and_acknowledged(dispatcher: Dispatcher) -> None:
    assert fetched(dispatcher) == []
    wanted = order(dispatcher, "SET_N_WORKERS_JOBTYPE", QUEUE, {"managed": {"SCORE": 2, "MCORE": 1}})
    kill = order(dispatcher, "KILL_WORKERS", "", {"status": ["submitted"], "computingSite": [QUEUE]})
    order(dispatcher, "SYNC_WORKERS_KILL", "", [7, 8])
    assert fetched(dispatcher, 2) == [
        {
            "command_id": wanted,
            "command": f"SET_N_WORKERS_JOBTYPE:{QUEUE}",
            "params": {"managed": {"SCORE": 2, "MCORE": 1}},
            "ack_requested": False,
            "creation_date": "2027-01-15T08:00:00.000+00:00",
        },
        {
            "command_id": kill,
            "command": "KILL_WORKERS",
            "params": {
                "status": ["submitted"], "computingSite": [QUEUE], "computingElement": "ALL", "submissionHost": "ALL",
            },
            "ack_requested": True,
            "creation_date": "2027-01-15T08:00:00.000+00:00",
        },
    ]  # fmt: skip
    (sync,) = fetched(dispatcher)
    assert (sync["command"], sync["params"]) == ("SYNC_WORKERS_KILL", [7, 8])
    assert fetched(dispatcher) == []
    assert harvesters.acknowledge(dispatcher.context, [kill, wanted, 999], SITE_A) == 2
    states = {one["commandID"]: one["status"] for one in harvesters.list_commands(dispatcher.context, HARVESTER, 9)}
    assert states == {wanted: "acknowledged", kill: "acknowledged", sync["command_id"]: "retrieved"}


def test_a_command_whose_answer_was_lost_comes_again_under_a_new_number(dispatcher: Dispatcher) -> None:
    harvesters.heartbeat(dispatcher.context, HARVESTER, {}, SITE_A)
    kill = order(dispatcher, "KILL_WORKERS", "", {"status": ["submitted"]})
    order(dispatcher, "REPORT_WORKER_STATS", QUEUE)
    assert len(fetched(dispatcher)) == 2
    dispatcher.clock.now += 599
    assert fetched(dispatcher) == []
    dispatcher.clock.now += 2
    (again,) = fetched(dispatcher)
    assert again["command"] == "KILL_WORKERS" and again["command_id"] > kill
    harvesters.acknowledge(dispatcher.context, [again["command_id"]], SITE_A)
    dispatcher.clock.now += 601
    assert fetched(dispatcher) == []


def test_of_several_orders_about_a_queue_only_the_last_is_fetched_and_kills_add_up(dispatcher: Dispatcher) -> None:
    harvesters.heartbeat(dispatcher.context, HARVESTER, {}, SITE_A)
    order(dispatcher, "SET_N_WORKERS_JOBTYPE", QUEUE, {"managed": {"SCORE": 2}})
    order(dispatcher, "SET_N_WORKERS_JOBTYPE", QUEUE, {"managed": {"SCORE": 5}})
    (command,) = fetched(dispatcher)
    assert command["params"] == {"managed": {"SCORE": 5}}
    for numbers in ([7], [8]):
        order(dispatcher, "SYNC_WORKERS_KILL", "", numbers)
    assert [one["params"] for one in fetched(dispatcher)] == [[7], [8]]


@pytest.mark.parametrize(
    ("command", "queue", "params", "says"),
    [
        ("DANCE", "", None, "must be one of"),
        ("KILL_WORKERS", QUEUE, {"status": ["running"]}, "has no meaning"),
        ("KILL_WORKERS", "", {}, "would end all"),
        ("KILL_WORKERS", "", {"computingElement": "ALL"}, "would end all"),
        ("KILL_WORKERS", "", {"status": []}, "must be a list of names or ALL"),
        ("KILL_WORKERS", "", {"shoes": ["x"]}, "does not know 'shoes'"),
        ("SYNC_WORKERS_KILL", "", [], "must be a list of worker numbers"),
        ("SYNC_WORKERS_KILL", "", ["x"], "must be a worker's number"),
        ("REPORT_WORKER_STATS", "", None, "is needed"),
        ("SET_N_WORKERS_JOBTYPE", QUEUE, {"managed": 3}, "must be like"),
        ("SET_N_WORKERS_JOBTYPE", QUEUE, {"managed": {"SCORE": -3}}, "must not be negative"),
    ],
)
def test_what_is_no_order_is_refused(
    dispatcher: Dispatcher, command: str, queue: str, params: object, says: str
) -> None:
    harvesters.heartbeat(dispatcher.context, HARVESTER, {}, SITE_A)
    with pytest.raises(BadField, match=says):
        order(dispatcher, command, queue, params)
    assert fetched(dispatcher) == []


def test_orders_to_nobody_and_about_unknown_queues_are_refused(dispatcher: Dispatcher) -> None:
    with pytest.raises(NotFound, match="No Harvester 'harvester-1' has been heard of"):
        order(dispatcher, "KILL_WORKERS", "", {"status": ["running"]})
    harvesters.heartbeat(dispatcher.context, HARVESTER, {}, SITE_A)
    with pytest.raises(NotFound, match="no queue 'NOSUCH'"):
        order(dispatcher, "REPORT_WORKER_STATS", "NOSUCH")


def test_dialogs_and_metrics_may_be_sent_twice(dispatcher: Dispatcher) -> None:
    context = dispatcher.context
    dialogs = [
        {"diagID": 1, "moduleName": "m", "creationTime": "2027-01-15 07:00:00", "messageLevel": "ERROR",
         "diagMessage": "x" * 9000},
        {"diagID": 2, "messageLevel": "WARNING"},
    ]  # fmt: skip
    metrics = [["2027-01-15 07:00:00.5", "host", '{"rss_mib": 82.29}'], ["2027-01-15 07:05:00", "host", {"cpu_pc": 1}]]
    for _ in range(2):
        harvesters.add_dialogs(context, HARVESTER, dialogs, SITE_A)
        harvesters.add_metrics(context, HARVESTER, metrics, SITE_A)
    assert [one["diagID"] for one in harvesters.list_dialogs(context, HARVESTER, None, 9)] == [2, 1]
    (error,) = harvesters.list_dialogs(context, None, "ERROR", 9)
    assert (error["creationTime"], len(str(error["diagMessage"]))) == ("2027-01-15T07:00:00.000+00:00", 500)
    assert [one["metrics"] for one in harvesters.list_metrics(context, None, 9)] == [{"cpu_pc": 1}, {"rss_mib": 82.29}]
    for bad in (
        ["x"],
        [["2027-01-15", "host", "[]"]],
        [["2027-01-15", "host", '{"a": NaN}']],
        [["never", "host", "{}"]],
    ):
        with pytest.raises(BadField):
            harvesters.add_metrics(context, HARVESTER, bad, SITE_A)
    for bad in (["x"], [{}], [{"diagID": "x"}]):
        with pytest.raises(BadField):
            harvesters.add_dialogs(context, HARVESTER, bad, SITE_A)


def test_counts_of_jobs_are_made_once_a_minute(client: FlaskClient) -> None:
    submit = {"jobs": [{"queue": QUEUE, "command": "true", "label": "user", "cores": 2}] * 3}
    client.post("/api/v1/job/submit_jobs", json=submit)
    client.post("/api/v1/pilot/acquire_jobs", json={"site_name": QUEUE, "prod_source_label": "user"})
    detailed = client.get("/api/v1/statistics/active_job_detailed_stats_by_site").json["data"]
    assert detailed == {QUEUE: {"user": {"MCORE": {"activated": 2, "sent": 1}}}}
    client.post("/api/v1/pilot/acquire_jobs", json={"site_name": QUEUE, "prod_source_label": "user"})
    by_state = client.get("/api/v1/statistics/active_job_stats_by_site").json["data"]
    assert by_state == {QUEUE: {"activated": 2, "sent": 1}}


def test_the_legacy_names_do_the_same(client: FlaskClient) -> None:
    def call(name: str, **values: object) -> Any:
        form = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        answer = client.post(f"/server/panda/{name}", data=form, headers={"Accept": "application/json"})
        assert answer.status_code == 200, answer.text
        return answer.json

    assert call("harvesterIsAlive", harvesterID="h", data={"sw_version": "0.1"}) == [True, ""]
    assert call("updateWorkers", harvesterID="h", workers=[worker(), {}]) == [True, [True, False]]
    assert call("get_max_worker_id", harvester_id="h") == 7
    stats = {"managed": {"SCORE": {"running": 1}}}
    assert call("reportWorkerStats_jobtype", harvesterID="h", siteName=QUEUE, paramsList=stats) == [True, "OK"]
    assert call("getWorkerStats") == [True, {QUEUE: {"h": stats}}]
    assert call("addHarvesterDialogs", harvesterID="h", dialogs=[{"diagID": 1}]) == [True, ""]
    assert call("updateServiceMetrics", harvesterID="h", metrics=[["2027-01-15 07:00:00", "vm", "{}"]]) == [True, ""]
    ordered = {"harvester_id": "h", "command": "REPORT_WORKER_STATS", "panda_queue": QUEUE}
    number = client.post("/api/v1/harvester/add_command", json=ordered).json["data"]
    (command,) = call("getCommands", harvester_id="h", n_commands=5)["Commands"]
    assert (command["command_id"], command["command"]) == (number, f"REPORT_WORKER_STATS:{QUEUE}")
    assert call("ackCommands", command_ids=[number]) == {"StatusCode": 0}
    for name, values in (
        ("updateWorkers", {"harvesterID": "h", "workers": "{}"}),
        ("ackCommands", {"command_ids": '["x"]'}),
        ("harvesterIsAlive", {"harvesterID": "h", "data": "[]"}),
        ("harvesterIsAlive", {"harvesterID": "", "data": "{}"}),
    ):
        assert client.post(f"/server/panda/{name}", data=values).status_code == 400


def test_a_pilots_token_is_no_harvesters(tmp_path: Path, empty_database: EmptyDatabase) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({
        "pilot-token": {"name": "node", "roles": ["pilot"]},
        "harvester-token": {"name": "site-a", "roles": ["harvester"]},
    }))  # fmt: skip
    for client in client_of(tmp_path, empty_database, tokens=str(tokens)):
        body = {"harvester_id": "h", "data": {}}
        beat = "/api/v1/harvester/heartbeat"
        assert client.post(beat, json=body, headers=bearer("pilot-token")).json["success"] is False
        assert client.post(beat, json=body, headers=bearer("harvester-token")).json["success"]
        asked = {"site_name": QUEUE}
        answer = client.post("/api/v1/pilot/acquire_jobs", json=asked, headers=bearer("harvester-token")).json
        assert answer["reason"] == "queue_unknown"
