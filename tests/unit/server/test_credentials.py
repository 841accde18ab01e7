"""Tokens that renew themselves, and the proxies and tokens that an operator puts there for pilots."""

from __future__ import annotations

import base64
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient

from server.logic import tokens, users
from server.logic.context import ANYBODY
from server.logic.errors import BadCredential
from server.routes import state
from server.settings import Settings
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.test_routes import bearer, client_of

PILOT, OTHER, USER = bearer("pilot-token-1"), bearer("pilot-token-2"), bearer("user-token-1")
TOKENS = {
    "pilot-token-1": {"name": "site-a", "roles": ["pilot"]},
    "pilot-token-2": {"name": "site-b", "roles": ["pilot"]},
    "user-token-1": {"name": "alice", "roles": ["user"]},
}
DN, ROLE = "/DC=test/CN=Robot & Co", "atlas:/atlas/Role=production"
RENEW = "/api/v1/creds/renew_token"


@pytest.fixture
def guarded(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[FlaskClient]:
    """A server with tokens."""
    yield from with_tokens(tmp_path, empty_database)


def with_tokens(
    folder: Path, empty: EmptyDatabase, known: object = TOKENS, **settings: object
) -> Iterator[FlaskClient]:
    (folder / "tokens.json").write_text(json.dumps(known))
    yield from client_of(folder, empty, tokens=str(folder / "tokens.json"), **settings)


def renewed(client: FlaskClient, shown: dict[str, str]) -> str:
    answer = client.post(RENEW, json={}, headers=shown).json
    assert answer["success"], answer  # type: ignore[index]
    return str(answer["data"]["token"])  # type: ignore[index]


def may_call(client: FlaskClient, token: str) -> bool:
    return client.get("/api/v1/queue/list", headers=bearer(token)).status_code == 200


# ---- renew_token


def test_a_pilots_token_is_exchanged_for_one_that_says_how_long_it_is_good_for_and_does_the_same(
    guarded: FlaskClient, tmp_path: Path
) -> None:
    token = renewed(guarded, PILOT)
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert (claims["iss"], claims["sub"]) == ("pilotkit", "site-a")
    assert claims["exp"] - claims["iat"] == Settings().token_lifetime
    assert "pilot-token-1" not in json.dumps(claims)
    assert may_call(guarded, token)
    assert may_call(guarded, renewed(guarded, bearer(token)))
    denied = guarded.get("/api/v1/job/list", headers=bearer(token)).json
    assert denied["success"] is False  # type: ignore[index]
    assert stat.S_IMODE((tmp_path / "token.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_token_that_was_changed_anywhere_is_not_known(guarded: FlaskClient, part: int) -> None:
    parts = renewed(guarded, PILOT).split(".")
    parts[part] = ("A" if parts[part][0] != "A" else "B") + parts[part][1:]
    answer = guarded.get("/api/v1/queue/list", headers=bearer(".".join(parts)))
    assert answer.status_code == 403 and "not known" in answer.text


@pytest.mark.parametrize("token", ["a.b.c", "..", "e30.e30.", "\xff.\xff.\xff", "a" * 10000])
def test_what_only_looks_like_a_token_is_not_known(guarded: FlaskClient, token: str) -> None:
    assert not may_call(guarded, token)
    renewed(guarded, PILOT)
    assert not may_call(guarded, token)


def test_a_token_ends(tmp_path: Path, empty_database: EmptyDatabase) -> None:
    for client in with_tokens(tmp_path, empty_database, token_lifetime=0):
        token = renewed(client, PILOT)
        answer = client.get("/api/v1/queue/list", headers=bearer(token))
        assert answer.status_code == 403 and "ended" in answer.text and token not in answer.text
        assert client.post(RENEW, json={}, headers=bearer(token)).status_code == 403


def test_a_token_of_another_server_is_not_known(tmp_path: Path, empty_database: EmptyDatabase) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    for one in with_tokens(tmp_path / "one", empty_database):
        token = renewed(one, PILOT)
    for two in with_tokens(tmp_path / "two", empty_database):
        renewed(two, PILOT)
        assert not may_call(two, token)


def test_renewed_tokens_die_with_the_one_in_the_tokens_file(tmp_path: Path, empty_database: EmptyDatabase) -> None:
    for client in with_tokens(tmp_path, empty_database):
        token = renewed(client, PILOT)
    rest = {key: entry for key, entry in TOKENS.items() if key != "pilot-token-1"}
    for client in with_tokens(tmp_path, empty_database, rest):
        answer = client.get("/api/v1/queue/list", headers=bearer(token))
        assert answer.status_code == 403 and "no longer known here" in answer.text


def test_an_open_server_has_no_tokens_to_renew(tmp_path: Path, empty_database: EmptyDatabase) -> None:
    for client in client_of(tmp_path, empty_database):
        answer = client.post(RENEW, json={}).json
        assert answer["success"] is False and "none to renew" in answer["message"]  # type: ignore[index]
        assert not (tmp_path / "token.key").exists()


def test_only_one_key_is_ever_made(tmp_path: Path) -> None:
    path = tmp_path / "token.key"
    keys = {tokens.make_key(path) for _ in range(3)}
    assert keys == {path.read_bytes()} and len(path.read_bytes()) == 32
    assert [entry.name for entry in tmp_path.iterdir()] == ["token.key"]


def test_a_token_is_read_only_with_its_key_and_before_its_end() -> None:
    token = tokens.sign({"iss": "pilotkit", "par": "x", "exp": time.time() + 100}, b"k" * 32)
    assert tokens.read(token, b"k" * 32, time.time()).parent == "x"
    for key, now in ((b"l" * 32, time.time()), (b"", time.time()), (b"k" * 32, time.time() + 101)):
        with pytest.raises(BadCredential):
            tokens.read(token, key, now)


# ---- what the operator has put there


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The operator's folder: a proxy and a token for site-a, another token with a key."""
    made = tmp_path / "credentials"
    made.mkdir()
    (made / "robot.pem").write_text("the proxy\n")
    (made / "storage.token").write_text("the-token")
    (made / "empty").write_text("")
    (tmp_path / "outside").write_text("no business of anybody")
    index = {
        "proxies": [
            {"role": ROLE, "dn": DN, "file": "robot.pem", "for": ["site-a"]},
            {"role": "gone", "dn": DN, "file": "gone.pem", "for": ["site-a"]},
            {"role": "empty", "dn": DN, "file": "empty", "for": ["site-a"]},
            {"role": "outside", "dn": DN, "file": "../outside", "for": ["site-a"]},
            {"role": "nobody", "dn": DN, "file": "robot.pem"},
        ],
        "tokens": [
            {"client_name": "storage", "file": "storage.token", "for": ["site-a"]},
            {"client_name": "locked", "file": "storage.token", "for": ["site-a"], "key": "open sesame"},
        ],
        "keys": [
            {
                "public_key_name": "store.pub",
                "private_key_name": name,
                "public_file": "robot.pem",
                "private_file": file,
                "for": ["site-a"],
            }
            for name, file in (("store.key", "storage.token"), ("gone.key", "gone"), ("out.key", "../outside"))
        ],
    }
    (made / "credentials.json").write_text(json.dumps(index))
    return made


CASES = [
    ("get_proxy", "getProxy", {"role": ROLE, "dn": DN}, 0, "the proxy\n"),
    ("get_proxy", "getProxy", {"role": ROLE, "dn": "/CN=other"}, 70, ""),
    ("get_proxy", "getProxy", {"role": "atlas", "dn": DN}, 70, ""),
    ("get_proxy", "getProxy", {"role": "nobody", "dn": DN}, 70, ""),
    ("get_proxy", "getProxy", {"role": "gone", "dn": DN}, 90, ""),
    ("get_proxy", "getProxy", {"role": "empty", "dn": DN}, 90, ""),
    ("get_proxy", "getProxy", {"role": "outside", "dn": DN}, 90, ""),
    ("get_access_token", "get_access_token", {"client_name": "storage"}, 0, "the-token\n"),
    ("get_access_token", "get_access_token", {"client_name": "storage", "token_key": "x"}, 0, "the-token\n"),
    ("get_access_token", "get_access_token", {"client_name": "other"}, 70, ""),
    ("get_access_token", "get_access_token", {"client_name": "locked"}, 80, ""),
    ("get_access_token", "get_access_token", {"client_name": "locked", "token_key": "x"}, 50, ""),
    ("get_access_token", "get_access_token", {"client_name": "locked", "token_key": "open sesame"}, 0, "the-token\n"),
    ("get_token_key", "get_token_key", {"client_name": "locked"}, 0, "open sesame"),
    ("get_token_key", "get_token_key", {"client_name": "storage"}, 80, ""),
]


@pytest.mark.parametrize(("v1", "legacy", "asked", "code", "wanted"), CASES)
def test_both_apis_hand_out_what_is_there_for_the_caller_and_say_why_not_otherwise(
    guarded: FlaskClient, folder: Path, v1: str, legacy: str, asked: dict[str, str], code: int, wanted: str
) -> None:
    key = "token_key" if v1 == "get_token_key" else "user_proxy"
    answer = guarded.get(f"/api/v1/creds/{v1}?{urlencode(asked)}", headers=PILOT).json
    assert (answer["success"], answer["data"]["StatusCode"]) == (code == 0, code), answer  # type: ignore[index]
    old = guarded.post(f"/server/panda/{legacy}", data=asked, headers=PILOT)
    assert old.content_type == "application/json" and old.json["StatusCode"] == code
    if code == 0:
        old_key = "tokenKey" if v1 == "get_token_key" else "userProxy"
        assert answer["data"][key] == old.json[old_key] == wanted  # type: ignore[index]
    else:
        assert answer["message"] == old.json["errorDialog"] != ""  # type: ignore[index]
        assert "sesame" not in old.text and "no business" not in old.text


@pytest.mark.parametrize(("name", "code"), [("store.key", 0), ("gone.key", 90), ("out.key", 90), ("other.key", 70)])
def test_both_apis_hand_out_the_two_keys_of_an_object_store(
    guarded: FlaskClient, folder: Path, name: str, code: int
) -> None:
    asked = {"public_key_name": "store.pub", "private_key_name": name}
    answer = guarded.get(f"/api/v1/creds/get_key_pair?{urlencode(asked)}", headers=PILOT).json
    old_asked = {"publicKeyName": "store.pub", "privateKeyName": name}
    old = guarded.post("/server/panda/getKeyPair", data=old_asked, headers=PILOT).json
    assert answer["data"]["StatusCode"] == old["StatusCode"] == code, answer  # type: ignore[index]
    if code == 0:
        assert (old["publicKey"], old["privateKey"]) == ("the proxy\n", "the-token\n")  # type: ignore[index]
        data = answer["data"]  # type: ignore[index]
        assert (data["public_key"], data["private_key"]) == ("the proxy\n", "the-token\n")
    for shown in (OTHER, USER):
        headers = {**shown, "Accept": "application/json"}
        refused = guarded.post("/server/panda/getKeyPair", data=old_asked, headers=headers)
        assert refused.json["StatusCode"] in (70, 60)  # type: ignore[index]


@pytest.mark.parametrize("shown", [OTHER, USER])
def test_nobody_else_gets_them_and_nobody_is_told_that_they_are_there(
    guarded: FlaskClient, folder: Path, shown: dict[str, str]
) -> None:
    for _, legacy, asked, _, _ in CASES:
        headers = {**shown, "Accept": "application/json"}
        assert guarded.post(f"/server/panda/{legacy}", data=asked, headers=headers).json["StatusCode"] in (70, 60)


def test_a_user_with_a_right_gets_all_of_its_kind_and_no_other(guarded: FlaskClient, folder: Path) -> None:
    context = state.of(guarded.application).context
    methods = {
        "getProxy": ("p", {"role": ROLE, "dn": DN}),
        "get_access_token": ("p", {"client_name": "storage"}),
        "get_token_key": ("t", {"client_name": "locked"}),
        "getKeyPair": ("k", {"publicKeyName": "store.pub", "privateKeyName": "store.key"}),
    }
    for number, rights in enumerate(("", "k", "p", "t", "kpt")):
        users.change(context, f"site-{number}", rights=rights)
        made = tokens.create(context, ANYBODY, f"site-{number}", ["pilot"], "*", "", 3600)[0]
        for method, (letter, asked) in methods.items():
            code = guarded.post(f"/server/panda/{method}", data=asked, headers=bearer(made)).json["StatusCode"]
            assert code == (0 if letter in rights else 70), (rights, method)


def test_without_a_folder_there_is_nothing_and_a_broken_list_is_the_operators_fault(
    guarded: FlaskClient, tmp_path: Path
) -> None:
    url = f"/api/v1/creds/get_proxy?{urlencode({'role': ROLE, 'dn': DN})}"
    assert guarded.get(url, headers=PILOT).json["data"]["StatusCode"] == 70  # type: ignore[index]
    (tmp_path / "credentials").mkdir()
    for content in ("{", "[]", '{"proxies": 7}'):
        (tmp_path / "credentials" / "credentials.json").write_text(content)
        code = guarded.get(url, headers=PILOT).json["data"]["StatusCode"]  # type: ignore[index]
        assert code == (70 if content.startswith('{"') else 90)
