"""The two APIs over a test client: shapes, errors and roles. What needs a real server is in tests/integration."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from flask.testing import FlaskClient

import pilot
from server.app import create_app
from server.logic.context import Role
from server.routes import panda, state, v1
from server.settings import ConfigurationError, Settings
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE

TOKENS = {
    "pilot-token-1": {"name": "site-a", "roles": ["pilot"]},
    "user-token-1": {"name": "alice", "roles": ["user"]},
    "user-token-2": {"name": "bob", "roles": ["user"]},
    "operator-token": {"name": "root", "roles": ["operator"]},
}


def client_of(folder: Path, empty: EmptyDatabase, **settings: object) -> Iterator[FlaskClient]:
    app = create_app(Settings(data=str(folder), database=empty.put_into(folder), **settings))  # type: ignore[arg-type]
    client = app.test_client()
    try:
        yield client
    finally:
        state.close(app)


@pytest.fixture
def client(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[FlaskClient]:
    """An open server with one queue."""
    for made in client_of(tmp_path, empty_database):
        made.post("/api/v1/queue/add", json={"queues": {QUEUE: {}}})
        yield made


@pytest.fixture
def guarded(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[FlaskClient]:
    """A server with tokens."""
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps(TOKENS))
    yield from client_of(tmp_path, empty_database, tokens=str(tokens))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def submit(client: FlaskClient, **job: object) -> int:
    answer = client.post("/api/v1/job/submit_jobs", json={"jobs": [{"queue": QUEUE, "command": "true", **job}]}).json
    assert answer["success"], answer["message"]
    return int(answer["data"][0]["PandaID"])


# ---- legacy


def test_getjob_answers_json_to_whoever_speaks_it_and_a_form_to_others(client: FlaskClient) -> None:
    submit(client), submit(client), submit(client)
    body = {"siteName": QUEUE, "prodSourceLabel": "user"}
    packed = client.post(
        "/server/panda/getJob", data=gzip.compress(json.dumps(body).encode()), content_type="application/json"
    )
    assert (packed.content_type, packed.json["PandaID"]) == ("application/json", 1)
    accepting = client.post("/server/panda/getJob", data=body, headers={"Accept": "application/json"})
    assert (accepting.content_type, accepting.json["PandaID"]) == ("application/json", 2)
    plain = client.post("/server/panda/getJob", data=body)
    assert plain.content_type.startswith("text/plain")
    assert parse_qs(plain.text)["PandaID"] == ["3"]


def test_getjob_with_njobs_answers_a_list_even_for_one(client: FlaskClient) -> None:
    submit(client), submit(client)
    body = {"siteName": QUEUE, "prodSourceLabel": "user", "nJobs": 1}
    answer = client.post("/server/panda/getJob", json=body).json
    assert (answer["StatusCode"], len(answer["jobs"])) == (0, 1)
    form = parse_qs(client.post("/server/panda/getJob", data=body).text)
    assert json.loads(form["jobs"][0])[0]["PandaID"] == 2


def test_an_empty_queue_is_status_20_with_a_reason(client: FlaskClient) -> None:
    answer = client.post("/server/panda/getJob", json={"siteName": QUEUE}).json
    assert answer.keys() == {"StatusCode", "errorDialog", "reason", "retry_after"}
    assert (answer["StatusCode"], answer["reason"]) == (20, "nothing_queued")


def test_updatejob_says_null_when_there_is_no_command(client: FlaskClient) -> None:
    job = submit(client)
    client.post("/server/panda/getJob", json={"siteName": QUEUE, "prodSourceLabel": "user"})
    answer = client.post("/server/panda/updateJob", json={"jobId": str(job), "state": "running"}).json
    assert (answer["StatusCode"], answer["command"]) == (0, "NULL")
    form = client.post("/server/panda/updateJob", data={"jobId": str(job), "state": "running"})
    assert form.text.startswith("StatusCode=0&command=NULL&lease_end=")


@pytest.mark.parametrize("job_id", ["99", 99])
def test_updatejob_of_an_unknown_job_is_told_to_kill_it(client: FlaskClient, job_id: object) -> None:
    answer = client.post("/server/panda/updateJob", json={"jobId": job_id, "state": "running"}).json
    assert answer == {"StatusCode": 0, "command": "tobekilled"}


def test_updatejob_of_no_job_or_an_unknown_state_does_nothing(client: FlaskClient) -> None:
    for body in ({"jobId": "NULL", "state": "running"}, {"jobId": "1", "state": "dancing"}):
        assert client.post("/server/panda/updateJob", json=body).json == {"StatusCode": 0, "command": "NULL"}


@pytest.mark.parametrize(
    ("method", "body", "word"),
    [
        ("getJob", {}, "siteName"),
        ("getJob", {"siteName": QUEUE, "mem": "much"}, "mem"),
        ("getJob", {"siteName": QUEUE, "colour": "red"}, "colour"),
        ("getJob", {"siteName": ["a", "b"]}, "siteName"),
        ("updateJob", {"state": "running"}, "jobId"),
        ("updateJob", {"jobId": "one", "state": "running"}, "jobId"),
        ("updateJob", {"jobId": "-1", "state": "running"}, "jobId"),
        ("updateJob", {"jobId": "1" * 30, "state": "running"}, "jobId"),
        ("updateJob", {"jobId": "1", "state": "running", "maxRSS": "x"}, "maxRSS"),
        ("updateJob", {"jobId": "1", "state": "running", "maxrss": 1}, "maxrss"),
        ("updateJobsInBulk", {"jobList": "{"}, "JSON"),
        ("updateJobsInBulk", {"jobList": "{}"}, "jobList"),
        ("getStatus", {"ids": "1 x"}, "ids"),
        ("getStatus", {"ids": ""}, "ids"),
        ("checkJobStatus", {}, "ids"),
        ("updateWorkerPilotStatus", {"site": "x", "workerID": "1", "harvesterID": "h", "status": "dead"}, "status"),
    ],
)
def test_bad_arguments_of_the_old_api_are_answered_400_with_their_name(
    client: FlaskClient, method: str, body: dict[str, object], word: str
) -> None:
    answer = client.post(f"/server/panda/{method}", json=body)
    assert answer.status_code == 400
    assert answer.text.startswith("ERROR : ")
    assert word in answer.text


def test_an_unknown_method_is_forbidden_in_both_apis(client: FlaskClient) -> None:
    for path in ("/server/panda/format_disk", "/api/v1/job/format", "/api/v9/system/is_alive"):
        assert client.get(path).status_code == 403, path


def test_head_claims_nothing(client: FlaskClient) -> None:
    job = submit(client)
    assert client.head(f"/server/panda/getJob?siteName={QUEUE}&prodSourceLabel=user").status_code == 405
    assert client.get(f"/api/v1/job/get_details?job_id={job}").json["data"]["jobStatus"] == "activated"


def test_one_bad_item_of_a_bulk_update_does_not_concern_the_others(client: FlaskClient) -> None:
    good = [submit(client) for _ in range(2)]
    body = {"siteName": QUEUE, "prodSourceLabel": "user", "nJobs": 2}
    client.post("/server/panda/getJob", json=body)
    items = [
        {"jobId": good[0], "state": "running"},
        {"jobId": "x", "state": "running"},
        "nonsense",
        {"jobId": good[1], "state": "running", "attemptNr": 5},
        {"jobId": good[1], "state": "starting"},
    ]
    ok, answers = client.post("/server/panda/updateJobsInBulk", data={"jobList": json.dumps(items)}).json
    assert ok is True
    parsed = [parse_qs(answer) for answer in answers]
    assert [p["StatusCode"][0] for p in parsed] == ["0", "30", "30", "0", "0"]
    assert [p["command"][0] for p in parsed] == ["NULL", "NULL", "NULL", "tobekilled", "NULL"]
    accepted = client.post(
        "/server/panda/updateJobsInBulk", json={"jobList": items}, headers={"Accept": "application/json"}
    ).json
    assert accepted[1][0]["type"] == "json"
    assert json.loads(accepted[1][0]["content"])["StatusCode"] == 0


def test_status_calls_have_their_odd_shapes(client: FlaskClient) -> None:
    submit(client)
    assert (
        client.get("/server/panda/getStatus?ids=1+99").text
        == "StatusCode=0&status=activated%2Bnotfound&attemptNr=1%2B0"
    )
    assert client.post("/server/panda/checkJobStatus", data={"ids": "1,99"}).json == {
        "StatusCode": 0,
        "data": [{"status": "activated", "command": "NULL"}, {"status": "unknown", "command": "tobekilled"}],
    }
    assert client.get("/server/panda/isAlive").text == "alive=yes"
    types = client.post("/server/panda/getResourceTypes", json={}).json
    assert (types["StatusCode"], types["Returns"], types["ResourceTypes"][0]["resource_name"]) == (0, 0, "SCORE")
    worker = {"workerID": 42, "harvesterID": "h", "status": "started", "site": QUEUE, "node_id": "vm"}
    assert client.post("/server/panda/updateWorkerPilotStatus", json=worker).json == {"StatusCode": 0}


# ---- v1


def call(client: FlaskClient, path: str, body: dict[str, object] | None = None, **query: object) -> dict[str, object]:
    url = f"/api/v1/{path}"
    answer = client.get(url, query_string=query) if body is None else client.post(url, json=body)
    assert answer.status_code == 200
    found = answer.json
    assert found.keys() >= {"success", "message", "data"}
    return found  # type: ignore[no-any-return]


def test_acquire_and_update_in_v1(client: FlaskClient) -> None:
    job = submit(client)
    answer = call(client, "pilot/acquire_jobs", {"site_name": QUEUE, "prod_source_label": "user", "n_jobs": 4})
    data = answer["data"]
    assert isinstance(data, dict)
    assert (data["StatusCode"], [j["PandaID"] for j in data["jobs"]]) == (0, [job])
    update = {"job_id": job, "job_status": "running", "attempt_nr": 1, "max_pss": 5, "node": "n"}
    answer = call(client, "pilot/update_job", update)
    found = answer["data"]
    assert isinstance(found, dict)
    assert (answer["success"], found["StatusCode"], found["command"], found["pilotSecrets"]) == (True, 0, "NULL", None)
    status = call(client, "pilot/get_job_status", job_ids=[job, 99])["data"]
    assert status == [
        {"job_id": job, "status": "running", "attempt_number": 1},
        {"job_id": 99, "status": "not found", "attempt_number": 0},
    ]
    # Harvester reads the first three of these, pilots the state and the command.
    assert call(client, "job/get_status", job_ids=[job])["data"] == [
        {"job_id": job, "status": "running", "attempt_number": 1, "command": "NULL"}
    ]


def test_no_job_in_v1_is_no_success_with_a_reason(client: FlaskClient) -> None:
    answer = call(client, "pilot/acquire_jobs", {"site_name": QUEUE})
    assert (answer["success"], answer["data"], answer["reason"], answer["retry_after"]) == (
        False,
        None,
        "nothing_queued",
        60,
    )
    assert str(answer["message"]).startswith("No jobs in PanDA")


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("pilot/update_job", {"job_id": "9010", "job_status": "running"}, "Type error: job_id must be int"),
        ("pilot/update_job", {"job_id": 1}, "Argument error: pilot/update_job needs the argument 'job_status'"),
        ("pilot/update_job", {"job_id": 1, "job_status": "x", "timestamp": ""}, "Argument error: "),
        ("pilot/acquire_jobs", {"site_name": 5}, "Type error: site_name must be str"),
        ("pilot/acquire_jobs", {}, "Argument error: "),
        ("job/kill", {"job_ids": 5}, "Type error: job_ids must be list[int]"),
        ("queue/add", {"queues": {"a/b": {}}}, "queues has a bad name"),
        ("queue/add", {"queues": {"A": {"status": "dancing"}}}, "status must be one of"),
        ("queue/add", {"queues": {"A": {"maxrss": "big"}}}, "maxrss must be a whole number"),
        ("queue/set", {"name": "NOWHERE", "changes": {}}, "This server has no queue 'NOWHERE'"),
        (
            "queue/set",
            {"name": QUEUE, "changes": {"maxrs": 1}},
            "maxrs is no key of a queue description; did you mean maxrss?",
        ),
        ("storage/add", {"storages": {"A": []}}, "storages.A must be an object"),
        ("job/submit_jobs", {"jobs": [{}]}, "job 0, field 'queue'"),
    ],
)
def test_bad_arguments_of_v1_are_no_success_and_named(
    client: FlaskClient, path: str, body: dict[str, object], message: str
) -> None:
    answer = call(client, path, body)
    assert answer["success"] is False
    assert message in str(answer["message"])


def test_the_wrong_verb_is_told_the_right_one(client: FlaskClient) -> None:
    answer = client.get("/api/v1/pilot/update_job")
    assert (answer.status_code, answer.json["message"]) == (200, "expecting POST, received GET")
    assert client.put("/api/v1/system/is_alive").json["message"] == "expecting GET, received PUT"


def test_a_state_no_pilot_reports_is_status_50(client: FlaskClient) -> None:
    answer = call(client, "pilot/update_job", {"job_id": 1, "job_status": "dancing"})
    assert (answer["success"], answer["data"]) == (False, {"StatusCode": 50})


def test_a_body_that_is_no_json_is_400_with_an_envelope(client: FlaskClient) -> None:
    answer = client.post("/api/v1/pilot/update_job", data=b"{", content_type="application/json")
    assert (answer.status_code, answer.json["success"]) == (400, False)


def test_a_body_that_is_too_large_is_413_in_both_apis(tmp_path: Path, empty_database: EmptyDatabase) -> None:
    for client in client_of(tmp_path, empty_database, body_limit=1000):
        for path in ("/api/v1/pilot/update_job", "/server/panda/updateJob"):
            assert client.post(path, data=b"x" * 2000, content_type="application/json").status_code == 413
            wrong = path.replace("pilot/update_job", "system/is_alive").replace("updateJob", "nonsense")
            assert client.post(wrong, data=b"x" * 2000).status_code in (200, 403)
            bomb = gzip.compress(b" " * 100_000)
            assert client.post(path, data=bomb, content_type="application/json").status_code == 413


def test_bulk_updates_of_v1_are_a_list_of_envelopes(client: FlaskClient) -> None:
    submit(client)
    call(client, "pilot/acquire_jobs", {"site_name": QUEUE, "prod_source_label": "user"})
    items = [
        {"job_id": 1, "job_status": "running"},
        {"job_id": "1", "job_status": "running"},
        5,
        {"job_id": 9, "job_status": "running"},
    ]
    data = call(client, "pilot/update_jobs_bulk", {"job_list": items, "harvester_id": "h"})["data"]
    assert isinstance(data, list)
    assert [d["success"] for d in data] == [True, False, False, True]
    assert data[3]["data"]["command"] == "tobekilled"


def test_latest_is_v1(client: FlaskClient) -> None:
    assert client.get("/api/latest/system/is_alive").json == {"success": True, "message": "", "data": "alive=True"}


def test_machines_are_remembered(client: FlaskClient) -> None:
    node = {"site": QUEUE, "host_name": "n1", "cpu_model": "EPYC", "n_logical_cpus": 64, "clock_speed": 2.5}
    assert call(client, "pilot/update_worker_node", node)["success"]
    gpu = {"site": QUEUE, "host_name": "n1", "vendor": "NVIDIA", "model": "A100", "count": 4}
    assert call(client, "pilot/update_worker_node_gpu", gpu)["success"]
    worker = {"worker_id": 7, "harvester_id": "h", "status": "finished"}
    assert call(client, "pilot/update_worker_status", worker)["success"]


def test_queue_descriptions_have_every_key_a_pilot_needs(client: FlaskClient) -> None:
    call(client, "queue/add", {"queues": {"B": {"maxrss": 4000, "own_key": [1]}}})
    found = client.get("/cache/schedconfig/B.all.json").json
    assert (found["name"], found["siteid"], found["state"], found["status"]) == ("B", "B", "ACTIVE", "online")
    assert (found["maxrss"], found["own_key"]) == (4000, [1])
    assert found["maxwdir"] > 0
    assert client.get("/cache/schedconfig/B.pilot.json").json == found
    assert client.get("/cache/schedconfig/schedconfig.all.json").json["B"] == found
    assert call(client, "queue/set", {"name": "B", "changes": {"corecount": "8", "status": "test"}})["success"]
    found = call(client, "queue/get", name="B")["data"]
    assert isinstance(found, dict)
    assert (found["corecount"], found["status"], found["maxrss"]) == (8, "test", 4000)
    for path in ("/cache/schedconfig/C.all.json", "/cache/schedconfig/x", "/cache/none", "/trf/user/none"):
        assert client.get(path).status_code == 404


def test_the_script_that_runs_jobs_is_served(client: FlaskClient) -> None:
    with client.get("/trf/user/runGen-00-00-02") as answer:
        assert answer.status_code == 200
        assert answer.data.startswith(b"#!")
    assert client.get("/trf/user/..%2f..%2fapp.py").status_code == 404


def test_every_answer_names_the_server(client: FlaskClient) -> None:
    for path in ("/server/panda/isAlive", "/nowhere", "/api/v1/x/y", "/cache/none"):
        assert client.get(path).headers["X-Pilotkit"] == pilot.__version__


# ---- identities


def test_every_method_declares_what_it_does_and_for_whom() -> None:
    for registry in (panda.registry, v1.registry):
        for method in registry:
            assert method.summary, method.path
            assert method.verbs <= {"GET", "POST"}, method.path
            assert method.roles <= set(Role), method.path


def test_users_see_and_kill_their_own_jobs_only(guarded: FlaskClient) -> None:
    operator, alice, bob = (bearer(t) for t in ("operator-token", "user-token-1", "user-token-2"))
    guarded.post("/api/v1/queue/add", json={"queues": {QUEUE: {}}}, headers=operator)
    body = {"jobs": [{"queue": QUEUE, "command": "true"}]}
    (made,) = guarded.post("/api/v1/job/submit_jobs", json=body, headers=alice).json["data"]
    url = f"/api/v1/job/get_details?job_id={made['PandaID']}"
    assert guarded.get(url, headers=alice).json["data"]["prodUserName"] == "alice"
    assert guarded.get(url, headers=bob).json["success"] is False
    assert guarded.get("/api/v1/job/list", headers=bob).json["data"] == []
    assert len(guarded.get("/api/v1/job/list", headers=operator).json["data"]) == 1
    kill = {"job_ids": [made["PandaID"]]}
    assert guarded.post("/api/v1/job/kill", json=kill, headers=bob).json["data"] == [False]
    assert guarded.post("/api/v1/job/kill", json=kill, headers=alice).json["data"] == [True]


def test_orders_to_a_running_job_are_answered_in_words(client: FlaskClient) -> None:
    job = submit(client)
    answer = client.post("/api/v1/job/set_debug_mode", json={"job_id": job, "mode": True}).json
    assert (answer["success"], answer["message"]) == (True, f"job {job}: debug mode on, from its start")
    refused = client.post("/api/v1/job/set_command", json={"job_id": job, "command": "ls"}).json
    assert refused["success"] is False and "no pilot has it" in refused["message"]


def test_an_open_server_answers_only_its_own_machine(client: FlaskClient) -> None:
    path = "/api/v1/queue/list"
    assert client.get(path).status_code == 200
    assert client.get(path, environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code == 403
    assert client.get(path, headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_address_others_reach_needs_tokens(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigurationError, match="tokens"):
        create_app(Settings(data=str(tmp_path), host=host))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "{",
        '{"short": {"name": "x", "roles": ["pilot"]}}',
        '{"long-enough": "x"}',
        '{"long-enough": {"roles": ["pilot"]}}',
        '{"long-enough": {"name": "x", "roles": []}}',
        '{"long-enough": {"name": "x", "roles": ["king"]}}',
    ],
)
def test_a_bad_tokens_file_stops_the_server_without_showing_a_token(tmp_path: Path, content: str) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        create_app(Settings(data=str(tmp_path), tokens=str(tokens)))
    assert str(tokens) in str(caught.value)
    assert "long-enough" not in str(caught.value)


def test_a_missing_tokens_file_stops_the_server(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        create_app(Settings(data=str(tmp_path), tokens=str(tmp_path / "none.json")))


@pytest.mark.parametrize(
    "host", ["a b", "evil.example/x", "x'; rm -rf ~", "user@host", "a:b", "a:123456", "$(id)", "[::1", "", "ä"]
)
def test_a_host_header_that_is_no_address_is_refused_before_a_job_is_claimed(client: FlaskClient, host: str) -> None:
    client.post("/api/v1/job/submit_jobs", json={"jobs": [{"queue": QUEUE, "command": "true"}]})
    wanted = {"siteName": QUEUE}
    for path, body in (("/server/panda/getJob", wanted), ("/api/v1/pilot/acquire_jobs", {"site_name": QUEUE})):
        assert client.post(path, json=body, headers={"Host": host}).status_code == 400
    for good in ("127.0.0.1:25080", "panda.example.org", "[::1]:80", "node_1"):
        assert client.get("/server/panda/isAlive", headers={"Host": good}).status_code == 200
    assert client.post("/server/panda/getJob", json=wanted).json["StatusCode"] == 0  # type: ignore[index]


def test_pilots_get_a_real_number_where_a_site_set_no_limit(client: FlaskClient) -> None:
    client.post("/api/v1/queue/set", json={"name": QUEUE, "changes": {"maxwdir": 0}})
    assert client.get(f"/api/v1/queue/get?name={QUEUE}").json["data"]["maxwdir"] == 0  # type: ignore[index]
    one = client.get(f"/cache/schedconfig/{QUEUE}.all.json").json
    every = client.get("/cache/schedconfig/schedconfig.all.json").json
    assert one["maxwdir"] == every[QUEUE]["maxwdir"] == 100_000  # type: ignore[index]
