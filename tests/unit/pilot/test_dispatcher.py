"""The client of the dispatcher, against a server that speaks either generation of the wire, or nonsense."""

from __future__ import annotations

import json
import threading
from urllib.parse import parse_qsl, urlsplit

import pytest

from pilot.control.dispatcher import Dispatcher, JobAnswer, UpdateAnswer
from pilot.util.https import HttpClient, Json, RequestFailed, RetryPolicy
from tests.unit.pilot.builders import definition
from tests.unit.pilot.webserver import Answer, Asked, Handler, WebServer

ALIVE_V1, ALIVE_LEGACY = "/api/v1/system/is_alive", "/server/panda/isAlive"
GETJOB = {"v1": "/api/v1/pilot/acquire_jobs", "legacy": "/server/panda/getJob"}
UPDATE = {"v1": "/api/v1/pilot/update_job", "legacy": "/server/panda/updateJob"}
WORKER = {"v1": "/api/v1/pilot/update_worker_status", "legacy": "/server/panda/updateWorkerPilotStatus"}
OURS = {"X-Pilotkit": "0.1.0"}

APIS = pytest.mark.parametrize("api", ["v1", "legacy"])

REQUEST: dict[str, Json] = {"siteName": "Q", "mem": 24105.56, "cpu": 2600.0, "remaining_time": 3600, "worker_id": "42"}
UPDATE_BODY: dict[str, Json] = {"jobId": "254", "state": "running", "timestamp": "now", "attemptNr": 1}


def serve(web: WebServer, api: str, ours: bool = False) -> None:
    """Make the web server a dispatcher of one generation, of our own make or of another."""
    headers = OURS if ours else {}
    if api == "v1":
        web.route(ALIVE_V1, Answer({"success": True, "message": "", "data": None}, headers=headers))
    web.route(ALIVE_LEGACY, Answer(b"alive=yes", headers=headers))


def dispatcher(http: HttpClient, web: WebServer, attempts: int = 3) -> Dispatcher:
    return Dispatcher(http, web.url + "/", RetryPolicy(attempts, 0.001, 0.002), threading.Event())


def job_answer(api: str, **changes: Json) -> Answer:
    """An answer to getJob with the recorded definition."""
    job = definition(**changes)
    if api == "legacy":
        return Answer({**job, "StatusCode": 0})
    return Answer({"success": True, "message": "", "data": {"StatusCode": 0, "jobs": [job]}})


def empty_answer(api: str, **more: Json) -> Answer:
    if api == "legacy":
        return Answer({"StatusCode": 20, **more})
    return Answer({"success": False, "message": "No jobs in PanDA", "data": None, **more})


def update_answer(api: str, **data: Json) -> Answer:
    if api == "legacy":
        return Answer({"StatusCode": 0, **data})
    return Answer({"success": True, "message": "", "data": {"StatusCode": 0, **data}})


# ---- which generation


@APIS
def test_the_generation_is_found_out_once(web: WebServer, http: HttpClient, api: str) -> None:
    serve(web, api)
    client = dispatcher(http, web)
    assert [client.api, client.api] == [api, api]
    assert web.paths() == [ALIVE_V1] + ([ALIVE_LEGACY] if api == "legacy" else [])


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"Not Found", 404),
        Answer(b"ERROR : method is_alive is forbidden", 403),
        Answer(b"", 500),
        Answer(b"<html></html>"),
        Answer(b"alive=yes"),
        Answer([1]),
        Answer({"success": False, "message": "no"}),
        Answer({}),
    ],
)
def test_a_server_without_v1_is_a_legacy_one_however_it_says_so(
    web: WebServer, http: HttpClient, answer: Answer
) -> None:
    web.route(ALIVE_V1, answer)
    web.route(ALIVE_LEGACY, Answer(b"alive=yes"))
    assert dispatcher(http, web).api == "legacy"


def test_what_is_no_dispatcher_is_said_to_be_none(web: WebServer, http: HttpClient) -> None:
    web.route(ALIVE_LEGACY, Answer(b"<html>It works!</html>"))
    with pytest.raises(RequestFailed, match=f"{web.url} answers, but is no dispatcher") as raised:
        assert dispatcher(http, web).api
    assert not raised.value.temporary


def test_a_server_that_is_not_there_is_asked_for_its_generation_again(http: HttpClient) -> None:
    web = WebServer()
    web.close()
    client = dispatcher(http, web)
    for _ in range(2):
        with pytest.raises(RequestFailed, match="connection refused") as raised:
            assert client.api
        assert raised.value.temporary and not raised.value.sent


def test_a_server_that_is_just_starting_is_asked_again(web: WebServer, http: HttpClient) -> None:
    web.route(ALIVE_V1, Answer(b"", 503), Answer({"success": True}))
    web.route(ALIVE_LEGACY, Answer(b"", 503))
    web.route(GETJOB["v1"], job_answer("v1"))
    assert dispatcher(http, web).get_job(REQUEST).definition is not None


# ---- getJob


@APIS
def test_a_job_is_taken_with_its_definition(web: WebServer, http: HttpClient, api: str) -> None:
    serve(web, api)
    web.route(GETJOB[api], job_answer(api, claim_id="c1", next_heartbeat=60))
    answer = dispatcher(http, web).get_job(REQUEST)
    assert answer.definition is not None
    assert definition(claim_id="c1", next_heartbeat=60).items() <= {**answer.definition}.items()


def test_a_claim_that_stands_around_the_jobs_is_read_as_well(web: WebServer, http: HttpClient) -> None:
    serve(web, "v1", ours=True)
    data: dict[str, Json] = {"StatusCode": 0, "claim_id": "c9", "next_heartbeat": 30, "jobs": [definition()]}
    web.route(GETJOB["v1"], Answer({"success": True, "data": data}))
    taken = dispatcher(http, web).get_job(REQUEST).definition
    assert taken is not None and (taken["claim_id"], taken["next_heartbeat"]) == ("c9", 30)


@APIS
def test_an_old_server_gets_no_argument_that_it_would_refuse(web: WebServer, http: HttpClient, api: str) -> None:
    serve(web, api)
    web.route(GETJOB[api], job_answer(api))
    dispatcher(http, web).get_job(REQUEST)
    sent = web.to(GETJOB[api])[0].json()
    assert sent == (
        {"site_name": "Q", "memory": 24106, "remaining_time": 3600, "worker_id": 42}
        if api == "v1"
        else {"siteName": "Q", "mem": 24105.56, "cpu": 2600.0, "worker_id": "42"}
    )


def test_our_own_legacy_server_is_told_the_time_that_remains(web: WebServer, http: HttpClient) -> None:
    serve(web, "legacy", ours=True)
    web.route(GETJOB["legacy"], job_answer("legacy"))
    client = dispatcher(http, web)
    client.get_job(REQUEST)
    assert client.is_pilotkit
    assert web.to(GETJOB["legacy"])[0].json()["remaining_time"] == 3600


@APIS
def test_legacy_bodies_are_packed_and_v1_bodies_are_plain(web: WebServer, http: HttpClient, api: str) -> None:
    serve(web, api)
    web.route(GETJOB[api], job_answer(api))
    dispatcher(http, web).get_job(REQUEST)
    asked = web.to(GETJOB[api])[0]
    assert asked.body.startswith(b"\x1f\x8b") is (api == "legacy")
    assert "content-encoding" not in asked.headers


@APIS
def test_request_id_and_capabilities_travel_as_headers(web: WebServer, http: HttpClient, api: str) -> None:
    serve(web, api)
    web.route(GETJOB[api], job_answer(api))
    asking = dispatcher(http, web)
    asking.announce("guard=subreaper")
    asking.get_job(REQUEST)
    headers = web.to(GETJOB[api])[0].headers
    assert len(headers["x-pilotkit-request"]) == 32
    assert headers["x-pilotkit-capabilities"] == "guard=subreaper"


@APIS
def test_the_task_of_the_last_job_is_the_one_a_pilot_prefers(web: WebServer, http: HttpClient, api: str) -> None:
    serve(web, api)
    tasks: tuple[Json, ...] = ("NULL", 0, 41000017, 0, "41000018", 5)
    web.route(GETJOB[api], *(job_answer(api, taskID=task) for task in tasks))
    asking = dispatcher(http, web)
    for _ in tasks:
        asking.get_job(REQUEST)
    preferred = [asked.headers.get("x-pilotkit-prefer") for asked in web.to(GETJOB[api])]
    assert preferred == [None, None, None, "task=41000017", "task=41000017", "task=41000018"]


@APIS
@pytest.mark.parametrize(
    ("more", "reason", "retry_after"),
    [
        ({}, "jobs in PanDA", None),
        (
            {"errorDialog": "needs more memory", "message": "needs more memory", "reason": "memory", "retry_after": 12},
            "more memory",
            12.0,
        ),
        ({"retry_after": "7.5", "reason": "throttled"}, "jobs in PanDA", 7.5),
        ({"retry_after": "soon"}, "jobs in PanDA", None),
        ({"retry_after": float("nan")}, "jobs in PanDA", None),
        ({"retry_after": float("inf")}, "jobs in PanDA", None),
        ({"retry_after": None}, "jobs in PanDA", None),
    ],
)
def test_an_empty_answer_says_why_and_when_to_come_back(
    web: WebServer, http: HttpClient, api: str, more: dict[str, Json], reason: str, retry_after: float | None
) -> None:
    serve(web, api)
    web.route(GETJOB[api], empty_answer(api, **more))
    answer = dispatcher(http, web).get_job(REQUEST)
    assert answer.definition is None and reason in answer.reason
    assert answer.retry_after == retry_after
    assert len(web.to(GETJOB[api])) == 1


def test_an_empty_list_of_jobs_is_an_empty_answer(web: WebServer, http: HttpClient) -> None:
    serve(web, "v1")
    web.route(GETJOB["v1"], Answer({"success": True, "message": "", "data": {"StatusCode": 0, "jobs": []}}))
    assert dispatcher(http, web).get_job(REQUEST) == JobAnswer(reason="no jobs in PanDA")


@APIS
@pytest.mark.parametrize("code", [40, 60, 70, 90])
def test_a_refusal_is_not_asked_again(web: WebServer, http: HttpClient, api: str, code: int) -> None:
    serve(web, api)
    legacy: dict[str, Json] = {"StatusCode": code, "errorDialog": "wrong role"}
    envelope: dict[str, Json] = {"success": False, "message": "wrong role", "data": {"StatusCode": code}}
    web.route(GETJOB[api], Answer(legacy if api == "legacy" else envelope))
    with pytest.raises(RequestFailed, match=r"was refused.*wrong role") as raised:
        dispatcher(http, web).get_job(REQUEST)
    assert not raised.value.temporary
    assert len(web.to(GETJOB[api])) == 1


def hang_up(handler: Handler) -> None:
    """The request arrived, the answer is lost."""


LOST = [Answer(act=hang_up), Answer(b"", 502), Answer(b"", 504), Answer(b"<html>"), Answer({"StatusCode": 30})]


@APIS
@pytest.mark.parametrize("lost", LOST[:3])
def test_our_server_is_asked_again_under_the_same_request_id(
    web: WebServer, http: HttpClient, api: str, lost: Answer
) -> None:
    serve(web, api, ours=True)
    web.route(GETJOB[api], lost, lost, job_answer(api))
    assert dispatcher(http, web).get_job(REQUEST).definition is not None
    ids = [asked.headers["x-pilotkit-request"] for asked in web.to(GETJOB[api])]
    assert len(ids) == 3 and len(set(ids)) == 1


@APIS
@pytest.mark.parametrize("lost", LOST)
def test_another_server_that_may_have_handed_out_a_job_is_not_asked_again(
    web: WebServer, http: HttpClient, api: str, lost: Answer
) -> None:
    serve(web, api)
    if lost.body == {"StatusCode": 30} and api == "v1":
        lost = Answer({"success": False, "message": "DB error", "data": {"StatusCode": 30}})
    web.route(GETJOB[api], lost, job_answer(api))
    with pytest.raises(RequestFailed, match="would hand out a second job") as raised:
        dispatcher(http, web).get_job(REQUEST)
    assert not raised.value.temporary
    assert len(web.to(GETJOB[api])) == 1


@APIS
@pytest.mark.parametrize("status", [429, 503])
def test_another_server_that_turns_the_request_away_is_asked_again(
    web: WebServer, http: HttpClient, api: str, status: int
) -> None:
    serve(web, api)
    web.route(GETJOB[api], Answer(b"busy", status), job_answer(api))
    assert dispatcher(http, web).get_job(REQUEST).definition is not None


@APIS
def test_the_next_call_repeats_the_request_id_of_one_that_was_never_answered(
    web: WebServer, http: HttpClient, api: str
) -> None:
    serve(web, api, ours=True)
    lost = Answer(act=hang_up)
    web.route(GETJOB[api], lost, lost, job_answer(api), empty_answer(api), job_answer(api))
    client = dispatcher(http, web, attempts=2)
    with pytest.raises(RequestFailed):
        client.get_job(REQUEST)
    for _ in range(3):
        client.get_job(REQUEST)
    ids = [asked.headers["x-pilotkit-request"] for asked in web.to(GETJOB[api])]
    assert ids[0] == ids[1] == ids[2]
    assert len({ids[2], ids[3], ids[4]}) == 3


# ---- updateJob


@APIS
@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({}, UpdateAnswer()),
        ({"command": "NULL"}, UpdateAnswer()),
        ({"command": None}, UpdateAnswer()),
        ({"command": "tobekilled"}, UpdateAnswer(("tobekilled",))),
        ({"command": "debug,ls -l"}, UpdateAnswer(("debug", "ls -l"))),
        ({"command": "debug,NULL,"}, UpdateAnswer(("debug",))),
        ({"next_heartbeat": 60, "lease_end": "2026-01-01T00:00:00"}, UpdateAnswer((), 60.0, "2026-01-01T00:00:00")),
        ({"next_heartbeat": "x", "lease_end": None}, UpdateAnswer()),
        ({"next_heartbeat": float("nan")}, UpdateAnswer()),
    ],
)
def test_the_answer_to_an_update_is_understood(
    web: WebServer, http: HttpClient, api: str, data: dict[str, Json], wanted: UpdateAnswer
) -> None:
    serve(web, api)
    web.route(UPDATE[api], update_answer(api, **data))
    assert dispatcher(http, web).update_job(UPDATE_BODY, "") == wanted


@APIS
def test_an_update_is_sent_in_the_names_of_its_generation_with_the_claim_as_a_header(
    web: WebServer, http: HttpClient, api: str
) -> None:
    serve(web, api)
    web.route(UPDATE[api], update_answer(api))
    client = dispatcher(http, web)
    client.update_job(UPDATE_BODY, "c1")
    client.update_job(UPDATE_BODY, "")
    first, second = web.to(UPDATE[api])
    assert first.headers["x-pilotkit-claim"] == "c1" and "x-pilotkit-claim" not in second.headers
    assert first.json() == ({"job_id": 254, "job_status": "running", "attempt_nr": 1} if api == "v1" else UPDATE_BODY)


@APIS
@pytest.mark.parametrize(
    ("code", "temporary"), [(10, True), (30, True), (40, False), (50, False), (60, False), (70, False), (90, False)]
)
def test_an_update_that_the_server_did_not_take_fails(
    web: WebServer, http: HttpClient, api: str, code: int, temporary: bool
) -> None:
    serve(web, api)
    legacy: dict[str, Json] = {"StatusCode": code, "errorDialog": "no"}
    # The real v1 says success even when its database failed.
    web.route(UPDATE[api], Answer(legacy if api == "legacy" else {"success": True, "data": {"StatusCode": code}}))
    with pytest.raises(RequestFailed, match=f"StatusCode {code}") as raised:
        dispatcher(http, web).update_job(UPDATE_BODY, "")
    assert raised.value.temporary is temporary
    assert len(web.to(UPDATE[api])) == 1


@pytest.mark.parametrize(
    ("envelope", "temporary"),
    [
        ({"success": False, "message": "unknown argument", "data": None}, False),
        ({"success": False, "message": "bad state", "data": {"StatusCode": 50}}, False),
        ({"success": False, "message": "later", "data": {"StatusCode": 30}}, True),
        ({"message": "what?"}, False),
    ],
)
def test_an_envelope_without_success_is_a_failure(
    web: WebServer, http: HttpClient, envelope: dict[str, Json], temporary: bool
) -> None:
    serve(web, "v1")
    web.route(UPDATE["v1"], Answer(envelope))
    with pytest.raises(RequestFailed, match=f"the server refused the call: {envelope['message']}") as raised:
        dispatcher(http, web).update_job(UPDATE_BODY, "")
    assert raised.value.temporary is temporary


NONSENSE = [
    b"",
    b"<html><body>502 Bad Gateway</body></html>",
    b'{"StatusCode": 0, "comm',
    b"[1, 2, 3]",
    b'"StatusCode"',
    b"null",
    b"7",
    b"StatusCode=0&command=NULL",
    b"\x00\xff\xfe",
    b"{'success': True, 'message': '', 'data': None}",
    b"[" * 100_000,
]


@APIS
@pytest.mark.parametrize("body", NONSENSE, ids=lambda body: repr(body[:20]))
def test_a_server_that_says_nonsense_has_not_taken_an_update(
    web: WebServer, http: HttpClient, api: str, body: bytes
) -> None:
    serve(web, api)
    web.route(UPDATE[api], Answer(body))
    with pytest.raises(RequestFailed) as raised:
        dispatcher(http, web).update_job(UPDATE_BODY, "")
    assert raised.value.temporary


@pytest.mark.parametrize("body", [b"{}", b'{"command": "NULL"}', b'{"StatusCode": "fine"}', b'{"StatusCode": NaN}'])
def test_a_legacy_answer_without_a_status_code_has_not_taken_an_update(
    web: WebServer, http: HttpClient, body: bytes
) -> None:
    serve(web, "legacy")
    web.route(UPDATE["legacy"], Answer(body))
    with pytest.raises(RequestFailed, match="has no StatusCode") as raised:
        dispatcher(http, web).update_job(UPDATE_BODY, "")
    assert raised.value.temporary


@APIS
@pytest.mark.parametrize("body", [*NONSENSE, b"{}", b'{"success": 1, "data": [1]}', b'{"StatusCode": 0}'])
def test_a_server_that_says_nonsense_has_no_job(web: WebServer, http: HttpClient, api: str, body: bytes) -> None:
    serve(web, api)
    web.route(GETJOB[api], Answer(body))
    try:
        answer = dispatcher(http, web, attempts=1).get_job(REQUEST)
    except RequestFailed:
        return
    assert answer.definition is None


# ---- worker status


@APIS
def test_a_worker_status_arrives_and_is_repeated_after_a_failure(web: WebServer, http: HttpClient, api: str) -> None:
    serve(web, api)
    web.route(WORKER[api], Answer(b"", 503), update_answer(api))
    dispatcher(http, web).update_worker_status(
        {"workerID": "42", "harvesterID": "h", "status": "started", "site": "Q", "node_id": "n"}
    )
    sent = web.to(WORKER[api])
    assert len(sent) == 2
    assert sent[1].json().get("worker_id" if api == "v1" else "workerID") == (42 if api == "v1" else "42")


def test_the_pilot_names_itself_to_the_server(web: WebServer, http: HttpClient) -> None:
    serve(web, "v1")
    assert dispatcher(http, web).api == "v1"
    assert json.loads(json.dumps(web.asked[0].headers["user-agent"])) == "pilotkit/test"


# ---- credentials

CREDENTIAL = {
    ("v1", "proxy"): ("/api/v1/creds/get_proxy", "user_proxy"),
    ("legacy", "proxy"): ("/server/panda/getProxy", "userProxy"),
    ("v1", "access"): ("/api/v1/creds/get_access_token", "user_proxy"),
    ("legacy", "access"): ("/server/panda/get_access_token", "userProxy"),
    ("v1", "key"): ("/api/v1/creds/get_token_key", "token_key"),
    ("legacy", "key"): ("/server/panda/get_token_key", "tokenKey"),
}


def credential(api: str, code: int = 0, **data: Json) -> Answer:
    """An answer with a credential, or a refusal."""
    if api == "legacy":
        return Answer({"StatusCode": code, **({"errorDialog": "no"} if code else data)})
    return Answer({"success": code == 0, "message": "no" if code else "", "data": {"StatusCode": code, **data}})


def asked_of(asked: Asked) -> dict[str, str]:
    """The arguments of a call: of a query for v1, of a packed body for legacy servers."""
    return asked.json() if asked.method == "POST" else dict(parse_qsl(urlsplit(asked.path).query))  # type: ignore[return-value]


@APIS
def test_a_proxy_is_asked_for_by_role_and_name(web: WebServer, http: HttpClient, api: str) -> None:
    serve(web, api)
    path, key = CREDENTIAL[api, "proxy"]
    web.route(path, credential(api, **{key: "the proxy"}))
    assert dispatcher(http, web).get_proxy("atlas:/atlas/Role=production", "/CN=A & B", 5.0) == "the proxy"
    (asked,) = web.to(path)
    assert asked_of(asked) == {"role": "atlas:/atlas/Role=production", "dn": "/CN=A & B"}


@APIS
def test_a_pair_of_keys_is_asked_for_by_their_names(web: WebServer, http: HttpClient, api: str) -> None:
    serve(web, api)
    path = {"v1": "/api/v1/creds/get_key_pair", "legacy": "/server/panda/getKeyPair"}[api]
    names = {"v1": ("public_key", "private_key"), "legacy": ("publicKey", "privateKey")}[api]
    web.route(path, credential(api, **dict(zip(names, ("id\n", "secret\n")))), credential(api, 70), credential(api))
    client = dispatcher(http, web)
    assert client.get_key_pair("a.pub", "a.key") == ("id", "secret")
    wanted = {
        "v1": {"public_key_name": "a.pub", "private_key_name": "a.key"},
        "legacy": {"publicKeyName": "a.pub", "privateKeyName": "a.key"},
    }
    assert asked_of(web.to(path)[0]) == wanted[api]
    for _ in ("refused", "without keys"):
        with pytest.raises(RequestFailed):
            client.get_key_pair("a.pub", "a.key")


@APIS
@pytest.mark.parametrize(("code", "temporary"), [(70, False), (90, False), (10, True), (30, True)])
def test_a_credential_that_is_refused_says_so(
    web: WebServer, http: HttpClient, api: str, code: int, temporary: bool
) -> None:
    serve(web, api)
    web.route(CREDENTIAL[api, "proxy"][0], credential(api, code))
    with pytest.raises(RequestFailed) as raised:
        dispatcher(http, web).get_proxy("atlas", "/CN=A", 5.0)
    assert (raised.value.temporary, raised.value.status_code) == (temporary, code)


@APIS
@pytest.mark.parametrize(
    "answer", [Answer({}), Answer([]), Answer(b"<html>"), Answer({"StatusCode": 0, "userProxy": 7})]
)
def test_an_answer_without_a_credential_is_none(web: WebServer, http: HttpClient, api: str, answer: Answer) -> None:
    serve(web, api)
    web.route(CREDENTIAL[api, "proxy"][0], answer)
    with pytest.raises(RequestFailed):
        dispatcher(http, web).get_proxy("atlas", "/CN=A", 5.0)


@APIS
@pytest.mark.parametrize("code", [80, 50])
def test_a_token_key_is_fetched_only_when_it_is_wanted(web: WebServer, http: HttpClient, api: str, code: int) -> None:
    serve(web, api)
    (path, key), (key_path, key_name) = CREDENTIAL[api, "access"], CREDENTIAL[api, "key"]
    web.route(path, credential(api, **{key: "open"}), credential(api, code), credential(api, **{key: "locked"}))
    web.route(key_path, credential(api, **{key_name: "k1"}))
    client = dispatcher(http, web)
    assert client.get_access_token("store", 5.0) == "open" and web.to(key_path) == []
    assert client.get_access_token("store", 5.0) == "locked"
    assert [asked_of(asked) for asked in web.to(path)][1:] == [
        {"client_name": "store"}, {"client_name": "store", "token_key": "k1"},
    ]  # fmt: skip


def test_our_server_renews_the_token_it_is_shown(web: WebServer, http: HttpClient) -> None:
    serve(web, "v1", ours=True)
    web.route("/api/v1/creds/renew_token", Answer({"success": True, "message": "", "data": {"token": "fresh"}}))
    assert dispatcher(http, web).renew_token("", 5.0) == "fresh"
    (asked,) = web.to("/api/v1/creds/renew_token")
    assert asked.method == "POST" and asked.headers["authorization"] == "Bearer sesame"


@APIS
def test_another_server_is_asked_for_the_token_of_a_client_that_must_be_set(
    web: WebServer, http: HttpClient, api: str
) -> None:
    serve(web, api)
    path, key = CREDENTIAL[api, "access"]
    web.route(path, credential(api, **{key: "fresh"}))
    assert dispatcher(http, web).renew_token("pilots", 5.0) == "fresh"
    with pytest.raises(RequestFailed, match="client_name"):
        dispatcher(http, web).renew_token("", 5.0)
    assert len(web.to(path)) == 1


def test_a_new_token_is_shown_with_the_next_request_and_to_the_server_alone(web: WebServer, http: HttpClient) -> None:
    web.route("/a", Answer(b"x"))
    http.get(f"{web.url}/a")
    http.use("fresh")
    http.get(f"{web.url}/a")
    http.get(f"{web.url.replace('127.0.0.1', 'localhost')}/a")
    assert [asked.headers.get("authorization") for asked in web.asked] == ["Bearer sesame", "Bearer fresh", None]
