"""What those who run a server see of it: numbers, health, ids of requests, limits, logs, and the description of v1."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

from server import logs
from server.app import create_app
from server.db import daemons
from server.db.database import DatabaseUnavailable
from server.logic.changes import TooMany
from server.logic.context import ANYBODY, Identity, Role
from server.logic.metrics import collect_metrics
from server.routes import openapi, state, v1
from server.routes.front import Front, TokenBuckets
from server.routes.registry import Kind
from server.settings import ConfigurationError, Settings
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE
from tests.unit.server.test_routes import TOKENS, bearer, client_of, submit


@pytest.fixture
def client(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[FlaskClient]:
    """An open server with one queue."""
    for made in client_of(tmp_path, empty_database):
        made.post("/api/v1/queue/add", json={"queues": {QUEUE: {}}})
        yield made


def numbers(client: FlaskClient, **headers: str) -> dict[tuple[str, ...], float]:
    """(name, label values) -> value, as Prometheus' own reader understands them."""
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    families = text_string_to_metric_families(answer.text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


# ---- numbers


def test_requests_answers_to_getjob_and_updates_are_counted(client: FlaskClient) -> None:
    job = submit(client)
    for body in ({"siteName": QUEUE, "prodSourceLabel": "user"}, {"siteName": QUEUE}, {"siteName": "NOWHERE"}):
        client.post("/server/panda/getJob", json=body)
    client.post("/api/v1/pilot/acquire_jobs", json={"site_name": "NOWHERE"})
    client.post("/server/panda/updateJob", json={"jobId": str(job), "state": "running"})
    client.post("/api/v1/pilot/update_job", json={"job_id": 999, "job_status": "running"})
    client.get("/server/panda/nonsense/x?secret=canary-1")
    client.get("/cache/ddmendpoints.json")
    found = numbers(client)
    assert found["pilotkit_getjob_answers_total", "job"] == 1
    assert found["pilotkit_getjob_answers_total", "queue_unknown"] == 2
    assert found["pilotkit_jobs_given_total",] == 1
    assert found["pilotkit_updates_total", "running", ""] == 1
    assert found["pilotkit_updates_total", "running", "tobekilled"] == 1
    assert found["pilotkit_requests_total", "panda", "getJob", "200"] == 3
    assert found["pilotkit_request_seconds_count", "panda", "getJob"] == 3
    assert found["pilotkit_request_seconds_bucket", "panda", "getJob", "+Inf"] == 3
    assert found["pilotkit_requests_total", "none", "none", "404"] == 1
    assert found["pilotkit_requests_total", "own", "/cache/ddmendpoints.json", "200"] == 1
    assert found["pilotkit_requests_in_progress",] == 1
    assert "canary-1" not in client.get("/metrics").text


def test_jobs_are_counted_by_their_states_as_the_daemon_counted_them_last(client: FlaskClient) -> None:
    submit(client), submit(client)
    assert ("pilotkit_jobs", "activated") not in numbers(client)
    collect_metrics(state.of(client.application).context)
    assert numbers(client)["pilotkit_jobs", "activated"] == 2


def test_numbers_are_for_operators_and_for_the_addresses_that_the_settings_name(
    tmp_path: Path, empty_database: EmptyDatabase
) -> None:
    (tmp_path / "tokens.json").write_text(json.dumps(TOKENS))
    for client in client_of(tmp_path, empty_database, tokens=str(tmp_path / "tokens.json")):
        assert client.get("/metrics").status_code == 200
        for elsewhere in ({"REMOTE_ADDR": "192.0.2.1"}, {"HTTP_X_FORWARDED_FOR": "127.0.0.1"}):
            assert client.get("/metrics", environ_overrides=elsewhere).status_code == 403
            pilot = client.get("/metrics", environ_overrides=elsewhere, headers=bearer("pilot-token-1"))
            assert pilot.status_code == 403
            operator = client.get("/metrics", environ_overrides=elsewhere, headers=bearer("operator-token"))
            assert operator.status_code == 200


# ---- health


def test_a_server_is_alive_whatever_its_database_does_and_ready_when_it_answers(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = {"ready": True, "database": "ok", "migrations": "ok", "daemon": "never seen"}
    assert (client.get("/readyz").status_code, client.get("/readyz").json) == (200, ready)
    context = state.of(client.application).context
    with context.database.durable() as connection:
        daemons.note_daemon(connection, "here", "1", context.clock())
        daemons.note_daemon(connection, "here", "1", context.clock())
        daemons.note_daemon(connection, "there", "1", context.clock() - 1000)
    assert client.get("/readyz").json["daemon"] == "ok"  # type: ignore[index]
    with context.database.durable() as connection:
        daemons.forget_daemons(connection, context.clock() - 500)
        daemons.note_daemon(connection, "here", "1", context.clock() - 300)
        assert daemons.last_seen(connection) == pytest.approx(context.clock() - 300, abs=60)
    assert re.match(r"not seen for 3\d\d s", client.get("/readyz").json["daemon"])  # type: ignore[index]
    monkeypatch.setattr("server.routes.health.HEAD", "9999")
    answer = client.get("/readyz")
    assert answer.status_code == 503 and "this server at 9999" in answer.text

    def away(_connection: object) -> None:
        raise DatabaseUnavailable("it is away")

    monkeypatch.setattr("server.routes.health.revision_of", away)
    assert client.get("/readyz").json == {"ready": False, "database": "did not answer"}
    assert client.get("/healthz").text == "ok\n"


# ---- ids and limits


def test_an_id_that_the_caller_gives_is_answered_and_a_bad_one_replaced(client: FlaskClient) -> None:
    for given in ("abc-123", "a/b:c=d.e_f+g"):
        assert client.get("/server/panda/isAlive", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given
    made = {
        client.get("/healthz", headers={"X-Request-Id": bad}).headers["X-Request-Id"] for bad in ("", "ü", "x" * 999)
    }
    assert len(made) == 3 and all("-" in request_id for request_id in made)


def test_refusals_carry_the_id_of_the_request(client: FlaskClient) -> None:
    headers = {"X-Request-Id": "find-me"}
    assert "(request find-me)" in client.get("/nowhere", headers=headers).text
    answer = client.post("/api/v1/nowhere", headers=headers).json
    assert answer == {"success": False, "data": None, "message": answer["message"], "request_id": "find-me"}


def test_a_bucket_fills_with_time_and_callers_do_not_disturb_each_other() -> None:
    now = [100.0]
    buckets = TokenBuckets(2, 3, lambda: now[0])
    assert [buckets.wait("a") for _ in range(7)] == [0, 0, 0, 0, 0, 0, 0.5]
    assert buckets.wait("b") == 0
    now[0] += 0.5
    assert [buckets.wait("a"), buckets.wait("a")] == [0, 0.5]
    now[0] += 1000
    assert [buckets.wait("a") > 0 for _ in range(7)] == [False] * 6 + [True]


def test_a_caller_that_is_forgotten_for_the_sake_of_others_was_the_idlest() -> None:
    buckets = TokenBuckets(1, 1, lambda: 0.0)
    assert buckets.wait("busy") == 0
    for number in range(20_000):
        buckets.wait(number)
        assert buckets.wait("busy") > 0


@pytest.mark.parametrize("setting", ["token_rate", "address_rate"])
def test_too_many_requests_are_refused_in_the_form_of_their_api_and_health_is_not(
    tmp_path: Path, empty_database: EmptyDatabase, setting: str
) -> None:
    for client in client_of(tmp_path, empty_database, rate_burst=1, **{setting: 1}):
        front = client.application.wsgi_app
        assert isinstance(front, Front)
        # No bucket fills meanwhile, however long the requests take.
        front._by_token._clock = front._by_address._clock = partial(next, itertools.count(step=0.01))
        headers = bearer("any") if setting == "token_rate" else {}
        path = "/server/panda/isAlive"
        first = client.get(path, headers=headers)
        legacy, v1_answer = client.get(path, headers=headers), client.get("/api/v1/system/is_alive", headers=headers)
        assert (first.status_code, legacy.status_code, v1_answer.status_code) == (200, 429, 429)
        assert legacy.text.startswith("ERROR : too many requests") and legacy.headers["Retry-After"] == "1"
        assert v1_answer.json["success"] is False and v1_answer.json["request_id"] == v1_answer.headers["X-Request-Id"]
        assert client.get("/readyz", headers=headers).status_code == 200
        if setting == "token_rate":
            assert client.get(path, headers=bearer("another")).status_code == 200
            assert client.get(path).status_code == 200
        else:
            assert client.get(path, environ_overrides={"REMOTE_ADDR": "192.0.2.1"}).status_code == 200
        assert numbers(client)["pilotkit_requests_refused_total", "rate"] == 2


# ---- logs


def test_every_line_of_the_log_is_json_with_the_id_of_its_request(
    tmp_path: Path, empty_database: EmptyDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(logs.JsonLines().format(record))  # type: ignore[method-assign]
    caplog.set_level(logging.INFO)
    for client in client_of(tmp_path, empty_database, access_log=1):
        logging.getLogger("server").addHandler(handler)
        try:
            client.get("/cache/ddmendpoints.json?token=canary-2", headers={"X-Request-Id": "it", **bearer("canary-3")})
        finally:
            logging.getLogger("server").removeHandler(handler)
    (line,) = map(json.loads, lines)
    assert line["request_id"] == "it" and line["level"] == "info" and line["time"].endswith("Z")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/cache/ddmendpoints.json", 200)
    assert "canary" not in lines[0] + caplog.text


def test_slow_requests_are_logged_now_and_then(
    tmp_path: Path, empty_database: EmptyDatabase, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=2)
    monkeypatch.setattr("server.routes.front.time.perf_counter", lambda: next(clock))
    for client in client_of(tmp_path, empty_database):
        for _ in range(5):
            client.get("/server/panda/isAlive")
    slow = [record.getMessage() for record in caplog.records if "slow" in record.getMessage()]
    assert slow == ["slow: GET /server/panda/isAlive 200 2000 ms"]


def test_a_line_for_people_ends_with_the_id_and_a_traceback_stays_in_its_json_line() -> None:
    record = logging.LogRecord("server.x", logging.ERROR, "x.py", 1, "it %s", ("broke",), None)
    assert logs.Text().format(record).endswith("ERROR server.x: it broke")
    token = logs.REQUEST_ID.set("r1")
    try:
        assert logs.Text().format(record).endswith("ERROR server.x: it broke [r1]")
        try:
            raise ValueError("a\nb")
        except ValueError as error:
            record.exc_info = (ValueError, error, error.__traceback__)
        line = logs.JsonLines().format(record)
        assert "\n" not in line and "ValueError: a" in json.loads(line)["exception"]
    finally:
        logs.REQUEST_ID.reset(token)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"log_format": "xml"}, "PILOTKIT_LOG_FORMAT must be text or json"),
        ({"log_level": "loud"}, "PILOTKIT_LOG_LEVEL must be debug or info"),
        ({"threads": 2, "event_clients": 2}, "PILOTKIT_EVENT_CLIENTS is 2"),
        ({"metrics_from": "127.0.0.1,here"}, "PILOTKIT_METRICS_FROM: 'here'"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_their_names(
    tmp_path: Path, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        create_app(Settings(data=str(tmp_path), **settings))  # type: ignore[arg-type]


# ---- the description of v1


def test_the_description_is_valid_and_has_every_method_with_its_roles(client: FlaskClient) -> None:
    content = client.get("/openapi.json").json
    validate(content)
    assert content is not None
    assert set(content["paths"]) == {f"/api/v1/{method.path}" for method in v1.registry}
    for method in v1.registry:
        for verb in method.verbs:
            operation = content["paths"][f"/api/v1/{method.path}"][verb.lower()]
            assert operation["x-roles"] == sorted(method.roles)
            assert bool(operation["security"]) == bool(method.roles)
            assert operation["summary"] == method.summary != ""


def test_every_kind_of_argument_has_a_schema_and_an_example() -> None:
    assert openapi._SCHEMAS.keys() == openapi._EXAMPLES_OF_KIND.keys() == set(Kind)


def test_the_examples_of_bodies_are_taken(client: FlaskClient) -> None:
    content = openapi.description()
    for path, verbs in content["paths"].items():  # type: ignore[attr-defined]
        for operation in verbs.values():
            for media in operation.get("requestBody", {}).get("content", {}).values():
                if "example" in media:
                    answer = client.post(path, json=media["example"])
                    assert answer.status_code < 500, (path, answer.text)
                    said = answer.json["message"]  # type: ignore[index]
                    assert not said.startswith(("Argument error", "Type error")), (path, said)


# ---- changes of state


def events(text: str) -> list[dict[str, object]]:
    """The data of server-sent events."""
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def test_changes_of_state_are_streamed_as_they_happen_and_from_a_number_on(client: FlaskClient) -> None:
    job = submit(client)
    with closing(client.get("/events?queue=" + QUEUE)) as answer:
        assert answer.content_type.startswith("text/event-stream")
        parts = answer.iter_encoded()
        assert next(parts) == b"retry: 2000\n\n"
        client.post("/server/panda/getJob", json={"siteName": QUEUE, "prodSourceLabel": "user"})
        client.post("/server/panda/updateJob", json={"jobId": str(job), "state": "running"})
        text = (next(parts) + next(parts)).decode()
    assert [(e["job_id"], e["status"], e["queue"]) for e in events(text)] == [
        (job, "sent", QUEUE),
        (job, "running", QUEUE),
    ]
    number = int(text.partition("id: ")[2].partition("\n")[0])
    with closing(client.get("/events", headers={"Last-Event-ID": str(number)})) as answer:
        parts = answer.iter_encoded()
        next(parts)
        assert [e["status"] for e in events(next(parts).decode())] == ["running"]
    with closing(client.get("/events", headers={"Last-Event-ID": "0"})) as answer:
        parts = answer.iter_encoded()
        next(parts)
        assert events(next(parts).decode())[0]["job_id"] == job


def test_a_user_sees_what_is_theirs_an_operator_all_and_a_pilot_nothing(
    tmp_path: Path, empty_database: EmptyDatabase
) -> None:
    (tmp_path / "tokens.json").write_text(json.dumps(TOKENS))
    for client in client_of(tmp_path, empty_database, tokens=str(tmp_path / "tokens.json")):
        feed = state.of(client.application).feed
        assert client.get("/events").status_code == 403
        assert client.get("/events", headers=bearer("pilot-token-1")).status_code == 403
        client.post("/api/v1/queue/add", json={"queues": {QUEUE: {}}}, headers=bearer("operator-token"))
        body = {"jobs": [{"queue": QUEUE, "command": "true"}]}
        client.post("/api/v1/job/submit_jobs", json=body, headers=bearer("user-token-1"))
        user = Identity(TOKENS["user-token-1"]["name"], frozenset({Role.USER}))  # type: ignore[index, arg-type]
        others = [Identity("somebody else", frozenset({Role.USER})), Identity("boss", frozenset({Role.OPERATOR}))]
        seen = []
        for identity in (user, *others):
            with closing(feed.follow(identity, frozenset(), 0)) as follower:
                seen.append(sum(1 for change in feed.missed(0) if follower.wants(change)))
        assert seen[0] == seen[2] > 0 and seen[1] == 0


def test_there_is_room_for_a_few_followers_and_again_when_one_has_gone(client: FlaskClient) -> None:
    feed = state.of(client.application).feed
    first = client.get("/events")  # closed before anything of it was read
    second = feed.follow(ANYBODY, frozenset(), None)
    refused = client.get("/events")
    assert refused.status_code == 503 and refused.headers["Retry-After"] == "30"
    with pytest.raises(TooMany):
        feed.follow(ANYBODY, frozenset(), None)
    assert numbers(client)["pilotkit_event_clients",] == 2
    first.close()
    second.close()
    second.close()
    assert numbers(client)["pilotkit_event_clients",] == 0
    client.get("/events").close()


@pytest.mark.parametrize("number", ["x", "-1", "1" * 30, "٣"])
def test_a_number_that_is_none_is_refused(client: FlaskClient, number: str) -> None:
    assert client.get("/events", query_string={"last_event_id": number}).status_code == 400
