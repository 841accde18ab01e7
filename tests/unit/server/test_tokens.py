"""Tokens that operators make, and what they know of users."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from server.app import create_app
from server.db import accounts
from server.logic import tokens, users
from server.logic.context import ANYBODY, Identity, Role
from server.logic.errors import BadCredential, BadField, Conflict, NotFound
from server.logic.users import Login
from server.routes import state
from server.routes.identities import REMEMBERED, Denied
from server.settings import ConfigurationError, Settings
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE, Dispatcher
from tests.unit.server.test_routes import bearer, client_of

ROOT = Identity("root", frozenset({Role.OPERATOR}))
HOUR = 3600


def create(dispatcher: Dispatcher, name: str = "site", role: str = "pilot", **wishes: object) -> str:
    queue = wishes.get("queue", QUEUE if role == "pilot" else "")
    label, lifetime = wishes.get("label", ""), wishes.get("lifetime", HOUR)
    return tokens.create(dispatcher.context, ROOT, name, [role], queue, label, lifetime)[0]  # type: ignore[arg-type]


def whose(dispatcher: Dispatcher, token: str) -> Identity:
    return tokens.identify(dispatcher.context, {}, token)


def test_a_token_says_who_its_bearer_is_until_it_ends(dispatcher: Dispatcher) -> None:
    token = create(dispatcher, label="managed")
    found = whose(dispatcher, token)
    assert (found.name, found.roles, found.queue, found.label) == ("site", {Role.PILOT}, QUEUE, "managed")
    dispatcher.clock.now += HOUR - 1
    assert whose(dispatcher, token) == found
    dispatcher.clock.now += 2
    with pytest.raises(BadCredential, match="ended 1 s ago"):
        whose(dispatcher, token)


def test_the_database_does_not_have_the_token_itself(dispatcher: Dispatcher) -> None:
    token = create(dispatcher)
    (kept,) = tokens.show(dispatcher.context)
    assert token.removeprefix(tokens.PREFIX) not in str(kept)
    assert token.startswith(tokens.PREFIX) and len(token) > 40
    assert create(dispatcher) != token


def test_a_token_is_known_by_all_of_it(dispatcher: Dispatcher) -> None:
    token = create(dispatcher)
    for wrong in (token[:-1], token + "x", token.upper(), tokens.PREFIX, tokens.show(dispatcher.context)[0].digest):
        with pytest.raises(BadCredential, match="not known"):
            whose(dispatcher, wrong)


def test_a_token_is_revoked_by_number_or_by_name_with_all_that_came_of_it(dispatcher: Dispatcher) -> None:
    first, second, other = create(dispatcher), create(dispatcher), create(dispatcher, "other")
    renewed, _ = tokens.renew(dispatcher.context, whose(dispatcher, first))
    again, _ = tokens.renew(dispatcher.context, whose(dispatcher, renewed))
    number = tokens.number_of(tokens.digest_of(first))
    assert tokens.revoke(dispatcher.context, ROOT, number, "") == [number]
    for dead in (first, renewed, again):
        with pytest.raises(BadCredential, match="revoked"):
            whose(dispatcher, dead)
    assert whose(dispatcher, second).name == "site"
    assert len(tokens.revoke(dispatcher.context, ROOT, "", "site")) == 1
    assert whose(dispatcher, other).name == "other"
    assert [bool(token.revokedTime) for token in tokens.show(dispatcher.context)] == [False, True, True]
    for wrong in ((number, ""), ("", "nobody")):
        with pytest.raises(NotFound):
            tokens.revoke(dispatcher.context, ROOT, *wrong)
    for wrong in (("", ""), ("1", "x")):
        with pytest.raises(BadField):
            tokens.revoke(dispatcher.context, ROOT, *wrong)


def test_what_a_token_was_exchanged_for_outlives_it_once_and_is_not_renewed_then(dispatcher: Dispatcher) -> None:
    """A job that began with a good token is seen through; a token that has leaked is not good for ever."""
    token = create(dispatcher)
    dispatcher.clock.now += HOUR - 1
    renewed, lifetime = tokens.renew(dispatcher.context, whose(dispatcher, token))
    dispatcher.clock.now += lifetime - 1
    late = whose(dispatcher, renewed)
    assert late.name == "site"
    with pytest.raises(Conflict, match="has ended; ask"):
        tokens.renew(dispatcher.context, late)
    dispatcher.clock.now += 2
    with pytest.raises(BadCredential, match="ended"):
        whose(dispatcher, renewed)


def test_tokens_that_ended_long_ago_are_forgotten(dispatcher: Dispatcher) -> None:
    create(dispatcher)
    dispatcher.clock.now += 60 * 86400
    create(dispatcher, "new")
    assert [token.name for token in tokens.show(dispatcher.context)] == ["new"]


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": " x"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"role": "king"}, "roles"),
        ({"queue": ""}, "queue"),
        ({"queue": "a/b"}, "queue"),
        ({"role": "user", "queue": QUEUE}, "queue"),
        ({"role": "operator", "label": "user"}, "label"),
        ({"label": "x" * 21}, "label"),
        ({"lifetime": 59}, "lifetime"),
        ({"lifetime": 367 * 86400}, "lifetime"),
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(dispatcher: Dispatcher, wishes: dict[str, str], field: str) -> None:
    with pytest.raises(BadField) as caught:
        create(dispatcher, **wishes)
    assert caught.value.field == field
    assert tokens.show(dispatcher.context) == []


def test_pilots_of_different_queues_cannot_have_the_same_name(dispatcher: Dispatcher) -> None:
    """By name they would update each other's jobs."""
    create(dispatcher)
    for wishes in ({"queue": "OTHER"}, {"label": "user"}, {"role": "user"}):
        with pytest.raises(Conflict, match="different names"):
            create(dispatcher, **wishes)
    everywhere = create(dispatcher, "harvester", queue=tokens.ANY_QUEUE)
    assert whose(dispatcher, everywhere).queue == ""


def test_an_operator_is_told_when_there_is_no_such_queue_yet(dispatcher: Dispatcher) -> None:
    *_, remark = tokens.create(dispatcher.context, ROOT, "x", ["pilot"], "TYPO", "", HOUR)
    assert remark == "this server has no queue TYPO yet"


# ---- the same over HTTP


def test_a_token_is_made_shown_and_revoked_by_operators(
    tmp_path: Path, empty_database: EmptyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.routes.identities.REMEMBERED", 0)  # what is remembered has a test of its own
    (tmp_path / "tokens.json").write_text(json.dumps({"operator-token": {"name": "root", "roles": ["operator"]}}))
    root = bearer("operator-token")
    for client in client_of(tmp_path, empty_database, tokens=str(tmp_path / "tokens.json")):
        body = {"name": "site", "roles": ["pilot"], "queue": QUEUE, "lifetime": HOUR}
        answer = client.post("/api/v1/token/create", json=body, headers=root).json
        assert answer["message"] == f"this server has no queue {QUEUE} yet"
        made = answer["data"]
        shown = bearer(made.pop("token"))
        assert client.get("/api/v1/token/list", headers=root).json["data"] == [made]
        assert made["created_by"] == "root"
        url = "/api/v1/system/get_attributes"
        assert client.get(url, headers=shown).json["data"]["name"] == "site"
        revoked = client.post("/api/v1/token/revoke", json={"name": "site"}, headers=root).json["data"]
        assert revoked == [made["token_id"]]
        refused = client.get(url, headers=shown)
        assert (refused.status_code, "revoked" in refused.text) == (403, True)


def test_who_is_remembered_is_asked_for_again_after_five_seconds(tmp_path: Path, empty_database: EmptyDatabase) -> None:
    assert REMEMBERED <= 5
    app = create_app(Settings(data=str(tmp_path), database=empty_database.put_into(tmp_path), closed=1))
    server = state.of(app)
    now = [1_800_000_000.0]
    context = replace(server.context, clock=lambda: now[0])
    try:
        token = tokens.create(context, ROOT, "alice", ["user"], "", "", HOUR)[0]
        with app.test_request_context(headers=bearer(token)) as asked:
            assert server.gate.identify(asked.request, context).name == "alice"
            users.change(context, "alice", banned=True)
            now[0] += REMEMBERED - 0.1
            assert server.gate.identify(asked.request, context).name == "alice"
            now[0] += 0.2
            with pytest.raises(Denied, match="banned"):
                server.gate.identify(asked.request, context)
    finally:
        context.database.close()
        context.bell.close()  # type: ignore[attr-defined]


def test_a_closed_server_lets_nobody_in_without_a_token(tmp_path: Path, empty_database: EmptyDatabase) -> None:
    Settings(host="0.0.0.0", closed=1).check_exposure()
    for client in client_of(tmp_path, empty_database, closed=1):
        assert client.get("/api/v1/queue/list").status_code == 403


def test_a_tokens_file_may_bind_pilots_as_well(tmp_path: Path, empty_database: EmptyDatabase) -> None:
    for entry in ({"queue": 5}, {"label": None}):
        (tmp_path / "tokens.json").write_text(json.dumps({"a-good-token": {"name": "a", "roles": ["pilot"], **entry}}))
        with pytest.raises(ConfigurationError, match="must be texts"):
            next(client_of(tmp_path, empty_database, tokens=str(tmp_path / "tokens.json")))


# ---- users


def test_a_name_belongs_to_the_credential_it_was_first_used_with(dispatcher: Dispatcher) -> None:
    alice = Login("/DC=test/CN=Alice", "alice", frozenset({Role.USER}))
    for _ in range(2):
        assert users.log_in(dispatcher.context, alice, ()).name == "alice"
    for thief, reserved in (
        (Login("/DC=evil/CN=Alice", "alice", frozenset({Role.USER})), ()),
        (Login("/CN=x", "root", frozenset({Role.USER})), ("root",)),
    ):
        with pytest.raises(BadCredential, match="somebody else's"):
            users.log_in(dispatcher.context, thief, reserved)
    create(dispatcher, "site")
    with pytest.raises(BadCredential, match="somebody else's"):
        users.log_in(dispatcher.context, Login("/CN=y", "site", frozenset({Role.PILOT})), ())


def test_who_has_no_role_is_nobody_and_leaves_no_trace(dispatcher: Dispatcher) -> None:
    assert users.log_in(dispatcher.context, Login("/CN=x", "x", frozenset()), ()).roles == frozenset()
    assert users.show(dispatcher.context) == []


def test_operators_give_names_roles_and_rights_and_ban(dispatcher: Dispatcher) -> None:
    context, login = dispatcher.context, Login("/CN=Robot 1", "Robot 1", frozenset())
    users.change(context, "robot", subject="/CN=Robot 1", roles=["pilot"], rights="pk")
    found = users.log_in(context, login, ())
    assert (found.name, found.roles, found.rights) == ("robot", {Role.PILOT}, {"k", "p"})
    assert users.admit(context, Identity("robot", frozenset({Role.USER}))).rights == {"k", "p"}
    assert users.admit(context, Identity("robot", frozenset({Role.USER}))).roles == {Role.USER}
    changed = users.change(context, "robot", banned=True)
    assert (changed.subject, changed.roles, changed.rights, changed.status) == (
        *("/CN=Robot 1", ["pilot"], "kp"),
        accounts.BANNED,
    )
    with pytest.raises(BadCredential, match="banned"):
        users.log_in(context, login, ())
    users.change(context, "robot", banned=False)
    assert users.log_in(context, login, ()).name == "robot"


def test_a_user_that_makes_no_sense_is_not_made(dispatcher: Dispatcher) -> None:
    context = dispatcher.context
    users.change(context, "a", subject="/CN=a")
    with pytest.raises(Conflict, match="is the user"):
        users.change(context, "b", subject="/CN=a")
    for name, wishes in (("", {}), ("b", {"roles": ["king"]}), ("b", {"rights": "x"}), ("b", {"subject": "x" * 513})):
        with pytest.raises(BadField):
            users.change(context, name, **wishes)  # type: ignore[arg-type]
    assert [user.name for user in users.show(context)] == ["a"]
    assert ANYBODY.rights == frozenset()
