"""Promise S1: every route, and everybody who may come to it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from server.db import accounts
from server.db.accounts import Token
from server.logic import tokens, users
from server.logic.context import ANYBODY, Context, Role
from server.routes import panda, state, v1
from tests.oidc import POLICIES, VO, Issuer, running_issuer
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE
from tests.unit.server.rights import GUARDED_ADDRESSES, OPEN_ADDRESSES, rights
from tests.unit.server.test_routes import bearer, client_of

OTHER_QUEUE = "OTHER_QUEUE"
METHODS = {
    f"{prefix}/{method.path}": method
    for prefix, registry in (("/server/panda", panda.registry), ("/api/v1", v1.registry))
    for method in registry
}


def test_every_method_has_its_row_and_declares_what_stands_there() -> None:
    declared = {method.path: method.roles for method in METHODS.values()}
    assert declared == rights()


def test_every_method_declares_what_it_does() -> None:
    for method in METHODS.values():
        assert method.summary, method.path
        assert method.verbs <= {"GET", "POST"}, method.path


@dataclass(frozen=True)
class Guarded:
    """A server that tells callers apart: its client, its inside, and the headers of everybody who comes to it."""

    client: FlaskClient
    context: Context
    callers: Mapping[str, dict[str, str]]

    def get_job(self, caller: str, queue: str = QUEUE, **more: str) -> dict[str, object]:
        body = {"site_name": queue, "prod_source_label": "managed", **more}
        answer = self.client.post("/api/v1/pilot/acquire_jobs", json=body, headers=self.callers[caller])
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json
        return found


#: The roles of everybody whom the server lets in.
ROLES: Mapping[str, frozenset[Role]] = {
    "pilot": frozenset({Role.PILOT}),
    "other pilot": frozenset({Role.PILOT}),
    "pilot with a renewed token": frozenset({Role.PILOT}),
    "pilot of the tokens file": frozenset({Role.PILOT}),
    "harvester": frozenset({Role.HARVESTER}),
    "user": frozenset({Role.USER}),
    "other user": frozenset({Role.USER}),
    "operator": frozenset({Role.OPERATOR}),
    "user with an ID token": frozenset({Role.USER}),
    "operator with an ID token": frozenset({Role.OPERATOR}),
    "somebody of no group": frozenset(),
    "pilot with a proxy": frozenset({Role.PILOT}),
    "somebody with a certificate alone": frozenset(),
}
#: Who is a pilot in the old API and nobody in the other.
LIMITED = "pilot with a limited proxy"
#: Whom it turns away, and a word of the reason.
DENIED: Mapping[str, str] = {
    "nobody": "A token is needed",
    "somebody with another scheme": "A token is needed",
    "unknown": "not known",
    "made up": "not known",
    "expired": "ended",
    "revoked": "revoked",
    "renewed from a revoked one": "revoked",
    "banned": "banned",
    "wrong audience": "for another service",
    "other provider": "not from the provider",
    "expired ID token": "has ended",
    "not in that role": "no role 'operator'",
    "certificate that was not verified": "A token is needed",
}


def make_token(context: Context, name: str, role: str, queue: str = "", label: str = "") -> str:
    return tokens.create(context, ANYBODY, name, [role], queue, label, 3600)[0]


def everybody(context: Context, issuer: Issuer) -> dict[str, dict[str, str]]:
    pilot = make_token(context, "site-a", "pilot", QUEUE, "managed")
    revoked = make_token(context, "site-r", "pilot", QUEUE)
    renewals = [tokens.renew(context, tokens.identify(context, {}, token))[0] for token in (pilot, revoked)]
    tokens.revoke(context, ANYBODY, "", "site-r")
    banned = make_token(context, "mallory", "user")
    users.change(context, "mallory", banned=True)
    expired, now = tokens.PREFIX + "expired", time.time()
    digest = tokens.digest_of(expired)
    ended = Token(tokens.number_of(digest), digest, "old", ["operator"], "", "", now - 90, "root", now - 30)
    with context.database.durable() as connection:
        accounts.add_token(connection, ended)
    return {
        "pilot": bearer(pilot),
        "other pilot": bearer(make_token(context, "site-b", "pilot", OTHER_QUEUE)),
        "pilot with a renewed token": bearer(renewals[0]),
        "pilot of the tokens file": bearer("pilot-of-the-file"),
        "harvester": bearer(make_token(context, "harvester", "harvester")),
        "user": bearer(make_token(context, "alice", "user")),
        "other user": bearer(make_token(context, "bob", "user")),
        "operator": bearer("operator-token"),
        "nobody": {},
        "somebody with another scheme": {"Authorization": "Basic eDp5"},
        "unknown": bearer("pkt_unknown"),
        "made up": bearer("eyJhbGciOiJub25lIn0.eyJpc3MiOiJwaWxvdGtpdCIsInBhciI6IjAifQ."),
        "expired": bearer(expired),
        "revoked": bearer(revoked),
        "renewed from a revoked one": bearer(renewals[1]),
        "banned": bearer(banned),
        "user with an ID token": bearer(issuer.token(preferred_username="carol")),
        "operator with an ID token": bearer(
            issuer.token(sub="2", preferred_username="dora", groups=["test/operators"])
        ),
        "somebody of no group": bearer(issuer.token(sub="3", groups=[])),
        "wrong audience": bearer(issuer.token(aud="https://elsewhere.test")),
        "other provider": bearer(issuer.token(iss="https://elsewhere.test")),
        "expired ID token": bearer(issuer.token(exp=int(time.time()) - 90)),
        "pilot with a proxy": proxied("/DC=test/CN=Pilot", "SUCCESS", "/testvo/Role=pilot"),
        "pilot with a limited proxy": proxied("/DC=test/CN=Pilot/CN=limited proxy", "SUCCESS", "/testvo/Role=pilot"),
        "somebody with a certificate alone": proxied("/DC=test/CN=Somebody", "SUCCESS", ""),
        "certificate that was not verified": proxied("/DC=test/CN=Pilot", "FAILED:expired", "/testvo/Role=pilot"),
        "not in that role": {**bearer(issuer.token()), "Origin": "testvo.operator"},
    }


def proxied(name: str, verified: str, fqan: str) -> dict[str, str]:
    """What a proxy server in front says of a client's certificate."""
    return {"SSL-Client-S-DN": name, "SSL-Client-Verify": verified, "GRST-CRED-AURI-1": f"fqan:{fqan}"}


@pytest.fixture
def guarded(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[Guarded]:
    file = tmp_path / "tokens.json"
    filed = {
        "operator-token": {"name": "root", "roles": ["operator"]},
        "pilot-of-the-file": {"name": "site-f", "roles": ["pilot"], "queue": QUEUE},
    }
    file.write_text(json.dumps(filed))
    with running_issuer() as issuer:
        policies = {VO: [*POLICIES[VO], ["/testvo/Role=pilot", {"group": "p", "role": "pilot"}]]}
        trust: dict[str, object] = {"trusted_proxies": "127.0.0.1", "trusted_voms": 1}
        settings = {"tokens": str(file), **issuer.configuration(tmp_path, policies), **trust}
        for client in client_of(tmp_path, empty_database, **settings):
            context = state.of(client.application).context
            operator = bearer("operator-token")
            client.post("/api/v1/queue/add", json={"queues": {QUEUE: {}, OTHER_QUEUE: {}}}, headers=operator)
            yield Guarded(client, context, everybody(context, issuer))


def test_every_route_knows_everybody(guarded: Guarded) -> None:
    """Each method is called as each caller: who is denied gets 403, who has no role for it is told so."""
    assert guarded.callers.keys() == ROLES.keys() | DENIED.keys() | {LIMITED}
    allowed = rights()
    for url, method in METHODS.items():
        for caller, headers in guarded.callers.items():
            verb = sorted(method.verbs)[0]
            answer = guarded.client.open(url, method=verb, headers={**headers, "Accept": "application/json"})
            if not allowed[method.path]:
                assert answer.status_code == 200, (url, caller)
                continue
            if caller == LIMITED and url.startswith("/api/"):
                assert (answer.status_code, "limited proxy" in answer.text) == (403, True), (url, answer.text)
                continue
            if caller in DENIED:
                assert (answer.status_code, DENIED[caller] in answer.text) == (403, True), (url, caller, answer.text)
                continue
            refused = answer.status_code == 200 and f"{method.path} is for" in answer.text
            assert refused == (not allowed[method.path] & ROLES.get(caller, {Role.PILOT})), (url, caller, answer.text)
            if refused and url.startswith("/api/"):
                assert answer.json["success"] is False and answer.json["data"] is None, (url, caller)
            elif refused:
                assert answer.json["StatusCode"] == 60, (url, caller)


def test_what_is_no_method_is_in_the_table_too(guarded: Guarded) -> None:
    rules = {rule.rule for rule in guarded.client.application.url_map.iter_rules()}
    others = rules - {"/server/panda/<method_name>", "/api/<version>/<module>/<name>"}
    assert others == OPEN_ADDRESSES | GUARDED_ADDRESSES.keys()


@pytest.mark.parametrize("address", GUARDED_ADDRESSES)
def test_numbers_and_changes_of_state_are_for_those_in_the_table(guarded: Guarded, address: str) -> None:
    for caller, headers in guarded.callers.items():
        answer = guarded.client.get(address, headers={**headers, "X-Forwarded-For": "192.0.2.1"})
        allowed = caller not in DENIED and GUARDED_ADDRESSES[address] & ROLES.get(caller, {Role.PILOT})
        assert answer.status_code == (200 if allowed else 403), (caller, answer.status_code)
        answer.close()


# ---- what a pilot's token can do


def test_a_pilot_gets_jobs_of_its_own_queue_and_label_alone(guarded: Guarded) -> None:
    body = {"jobs": [{"queue": queue, "command": "true", "label": "managed"} for queue in (QUEUE, OTHER_QUEUE)]}
    made = guarded.client.post("/api/v1/job/submit_jobs", json=body, headers=guarded.callers["operator"]).json["data"]
    refused = guarded.get_job("pilot", OTHER_QUEUE)
    assert (refused["success"], refused["data"]) == (False, None)
    assert "for jobs of queue TEST_QUEUE" in str(refused["message"])
    refused = guarded.get_job("pilot", prod_source_label="user")
    assert refused["success"] is False and "for jobs with label managed" in str(refused["message"])
    legacy = guarded.client.post(
        "/server/panda/getJob", json={"siteName": OTHER_QUEUE}, headers=guarded.callers["pilot with a renewed token"]
    )
    assert (legacy.status_code, legacy.json["StatusCode"]) == (200, 60)
    got = guarded.get_job("pilot")["data"]
    assert [job["PandaID"] for job in got["jobs"]] == [made[0]["PandaID"]]  # type: ignore[index]
    unlabelled = guarded.client.post(
        "/server/panda/getJob", json={"siteName": OTHER_QUEUE}, headers=guarded.callers["other pilot"]
    )
    assert unlabelled.json["PandaID"] == made[1]["PandaID"]


def test_a_pilot_whose_token_has_a_label_need_not_name_it(guarded: Guarded) -> None:
    body = {"jobs": [{"queue": QUEUE, "command": "true", "label": "special"}]}
    guarded.client.post("/api/v1/job/submit_jobs", json=body, headers=guarded.callers["operator"])
    token = make_token(guarded.context, "special-site", "pilot", QUEUE, "special")
    answer = guarded.client.post("/server/panda/getJob", json={"siteName": QUEUE}, headers=bearer(token))
    assert answer.json["StatusCode"] == 0, answer.text


def test_a_pilot_updates_the_jobs_it_holds_alone(guarded: Guarded) -> None:
    body = {"jobs": [{"queue": QUEUE, "command": "true", "label": "managed"}]}
    guarded.client.post("/api/v1/job/submit_jobs", json=body, headers=guarded.callers["operator"])
    job = guarded.get_job("pilot")["data"]["jobs"][0]["PandaID"]  # type: ignore[index]

    def command(caller: str) -> object:
        update = {"job_id": job, "job_status": "running"}
        answer = guarded.client.post("/api/v1/pilot/update_job", json=update, headers=guarded.callers[caller])
        return answer.json["data"]["command"]

    assert command("other pilot") == command("pilot of the tokens file") == "tobekilled"
    url = f"/api/v1/job/get_details?job_id={job}"
    assert guarded.client.get(url, headers=guarded.callers["operator"]).json["data"]["jobStatus"] == "sent"
    assert command("pilot") == command("pilot with a renewed token") == "NULL"


def test_a_request_id_is_no_key_to_the_jobs_of_another(guarded: Guarded) -> None:
    """With the answer to somebody else's request would come its claim."""
    body = {"jobs": [{"queue": QUEUE, "command": "true", "label": "managed"}]}
    guarded.client.post("/api/v1/job/submit_jobs", json=body, headers=guarded.callers["operator"])
    first = guarded.get_job("pilot", request_id="one")
    assert first["success"] and guarded.get_job("pilot with a renewed token", request_id="one") == first
    assert guarded.get_job("pilot of the tokens file", request_id="one")["data"] is None
