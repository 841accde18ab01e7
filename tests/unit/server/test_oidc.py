"""ID tokens, from a real provider on loopback with real keys."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from server.logic import oidc, users
from server.logic.authconfig import read_auth_config
from server.logic.errors import BadCredential
from server.logic.oidc import Providers
from server.routes import state
from server.settings import ConfigurationError, Settings, is_safe_url
from tests.oidc import AUDIENCE, POLICIES, VO, Issuer, make_key, running_issuer
from tests.pilots import wait_until
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE
from tests.unit.server.test_routes import client_of
from tests.x509 import make_x509


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as made:
        yield made


@dataclass
class Guarded:
    """A server that takes the issuer's tokens."""

    client: FlaskClient
    issuer: Issuer

    def show(self, token: str, origin: str = VO) -> TestResponse:
        """Who the server says we are."""
        headers = {"Authorization": f"Bearer {token}", **({"Origin": origin} if origin else {})}
        return self.client.get("/api/v1/system/get_attributes", headers=headers)

    def denied(self, token: str, origin: str = VO) -> str:
        answer = self.show(token, origin)
        assert answer.status_code == 403, answer.text
        message = answer.json["message"]
        assert token not in message and "\n" not in message
        return str(message)

    def known(self, token: str, origin: str = VO) -> tuple[str, list[str]]:
        answer = self.show(token, origin)
        assert answer.status_code == 200, answer.text
        return answer.json["data"]["name"], answer.json["data"]["roles"]


@pytest.fixture
def guarded(tmp_path: Path, empty_database: EmptyDatabase, issuer: Issuer) -> Iterator[Guarded]:
    for client in client_of(tmp_path, empty_database, **issuer.configuration(tmp_path)):
        yield Guarded(client, issuer)


def test_a_token_of_the_vos_provider_says_who_somebody_is_and_its_groups_what_they_may(guarded: Guarded) -> None:
    assert guarded.known(guarded.issuer.token()) == ("alice", ["user"])
    for origin in ("", "testvo", "testvo.user", "testvo:user"):
        assert guarded.known(guarded.issuer.token(), origin)[0] == "alice"
    token = guarded.issuer.token(sub="17", preferred_username="prod", groups=["test/users", "test/production", "x"])
    assert guarded.known(token) == ("prod", ["harvester", "pilot", "user"])
    token = guarded.issuer.token(
        sub="18", preferred_username="boss", groups=None, **{"wlcg.groups": ["test/operators"]}
    )
    assert guarded.known(token) == ("boss", ["operator"])
    assert guarded.issuer.asked == ["/.well-known/openid-configuration", "/jwk"]


@pytest.mark.parametrize("algorithm", ["RS512", "PS256", "ES256", "EdDSA"])
def test_keys_of_every_kind_are_good(guarded: Guarded, algorithm: str) -> None:
    guarded.issuer.add_key("other", algorithm)
    assert guarded.known(guarded.issuer.token("other"))[0] == "alice"


def with_header(token: str, **changes: object) -> str:
    head, rest = token.split(".", 1)
    header = {**json.loads(base64.urlsafe_b64decode(head + "==")), **changes}
    return base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode() + "." + rest


def test_a_token_that_is_not_good_is_refused_with_the_reason(guarded: Guarded) -> None:
    now = int(time.time())
    make = guarded.issuer.token
    for token, says in (
        (make(exp=now - 61), "has ended; log in again"),
        (make(nbf=now + 3600), "not good yet"),
        (make(aud="https://elsewhere.test"), f"audience is not {AUDIENCE}"),
        (make(aud=None), "aud"),
        (make(exp=None), "exp"),
        (make(sub=None), "sub"),
        (make(iss="https://elsewhere.test"), "not from the provider of testvo"),
        (make()[:-10] + "AAAAAAAAAA", "changed, or signed by somebody else"),
        (with_header(make(), alg="none"), "signed by 'none'"),
        (with_header(make(), alg="HS256"), "signed by 'HS256'"),
        (with_header(make(), alg="ES256"), "cannot be used"),
        (with_header(make(), alg="RS384"), "changed, or signed by somebody else"),
        (with_header(make(), kid="another"), "a key that the provider of testvo does not have"),
        ("x." * 2000 + "x", "not known"),
        ("a" * 9000, "more than 8190 characters"),
    ):
        assert says in guarded.denied(token), says
    near = make(exp=now - 30, nbf=now + 30)
    assert guarded.known(near)[0] == "alice", "clocks differ a little"


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(guarded: Guarded) -> None:
    """The oldest trick: the verifier takes the provider's RSA key for the secret of HS256."""
    claims = jwt.decode(guarded.issuer.token(), options={"verify_signature": False})
    for secret in ("known-to-all-and-quite-long-too-yes", "x" * 32):
        forged = jwt.encode(claims, secret, algorithm="HS256", headers={"kid": "one"})
        assert "signed by 'HS256'" in guarded.denied(forged)
    unsigned = jwt.encode(claims, None, algorithm="none", headers={"kid": "one"})
    assert "signed by 'none'" in guarded.denied(unsigned)


def test_a_key_of_somebody_else_under_a_known_name_is_refused(guarded: Guarded) -> None:
    claims = jwt.decode(guarded.issuer.token(), options={"verify_signature": False})
    forged = jwt.encode(claims, make_key("RS256"), algorithm="RS256", headers={"kid": "one"})
    assert "signed by somebody else" in guarded.denied(forged)


def test_keys_that_are_rotated_are_fetched_again_but_not_for_every_bad_token(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.known(guarded.issuer.token())
    monkeypatch.setattr(oidc, "PAUSE", 0)
    guarded.issuer.add_key("two")
    del guarded.issuer.keys["one"]
    assert guarded.known(guarded.issuer.token("two"))[0] == "alice"
    monkeypatch.setattr(oidc, "PAUSE", 30)
    asked = len(guarded.issuer.asked)
    for number in range(20):
        guarded.denied(with_header(guarded.issuer.token("two"), kid=f"unknown-{number}"))
    assert len(guarded.issuer.asked) == asked


def test_keys_are_kept_for_an_hour_and_longer_when_the_provider_is_away(tmp_path: Path, issuer: Issuer) -> None:
    providers = Providers(read_auth_config(Settings(**issuer.configuration(tmp_path))))  # type: ignore[arg-type]
    for now, status, asked in ((0.0, 200, 2), (3599.0, 200, 2), (3601.0, 200, 4), (9000.0, 500, 5), (9020.0, 500, 5)):
        issuer.status = status
        assert providers.identify(issuer.token(), VO, now).name == "alice"
        assert len(issuer.asked) == asked, now


def test_a_provider_that_hangs_keeps_one_request_waiting_and_no_other(issuer: Issuer, tmp_path: Path) -> None:
    providers = Providers(read_auth_config(Settings(**issuer.configuration(tmp_path))))  # type: ignore[arg-type]
    assert providers.identify(issuer.token(), VO, 0.0).name == "alice"
    asked = len(issuer.asked)
    issuer.flows.clear()
    with ThreadPoolExecutor(3) as pool:
        one = pool.submit(providers.identify, issuer.token(), VO, 4000.0)
        try:
            wait_until(lambda: len(issuer.asked) > asked, "one asks for new keys, since the old ones are too old")
            other = pool.submit(providers.identify, issuer.token(), VO, 4000.0)
            assert other.result(timeout=5).name == "alice"
            issuer.add_key("two")
            newer = pool.submit(providers.identify, issuer.token("two"), VO, 4000.0)
            assert not one.done() and not newer.done(), "who has a new key waits for it, too"
        finally:
            issuer.flows.set()
        assert one.result().name == newer.result().name == "alice"


def test_a_token_without_any_name_is_refused(guarded: Guarded) -> None:
    assert "empty" in guarded.denied(guarded.issuer.token(sub="", preferred_username="", name=""))


def test_a_provider_that_is_away_is_no_refusal_but_a_reason_to_come_again(guarded: Guarded) -> None:
    guarded.issuer.status = 503
    answer = guarded.show(guarded.issuer.token())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "provider" in answer.json["message"]


def test_a_provider_is_asked_over_tls_that_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x509 = make_x509(tmp_path / "x509")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for authorities, good in (("", False), (str(x509.ca_file), True)):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", authorities)
        with running_issuer((x509.host_cert, x509.host_key)) as secure:
            settings = secure.configuration(tmp_path / f"with-{good}")
            providers = Providers(read_auth_config(Settings(**settings)))  # type: ignore[arg-type]
            if good:
                assert providers.identify(secure.token(), VO, time.time()).name == "alice"
            else:
                with pytest.raises(oidc.ProviderAway):
                    providers.identify(secure.token(), VO, time.time())
                assert secure.asked == []


def test_keys_at_an_address_that_others_could_forge_are_not_fetched(guarded: Guarded) -> None:
    guarded.issuer.jwks_uri = f"http://{socket.gethostname()}.example.org/jwk"
    assert guarded.show(guarded.issuer.token()).status_code == 503


def test_keys_are_not_looked_for_where_an_address_redirects_to(guarded: Guarded) -> None:
    guarded.issuer.jwks_uri = f"{guarded.issuer.url}/moved"
    assert guarded.show(guarded.issuer.token()).status_code == 503
    assert "/jwk" not in guarded.issuer.asked


def packed(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("issuer_is", ["pilotkit", "elsewhere"])
@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ('{"alg": "RS256", "kid": "one"}', "[" * 3000),
        ("[" * 3000, "{}"),
        ('{"alg": "RS256", "kid": 5}', '{"iss": ISSUER}'),
        ('{"alg": ["RS256"], "kid": "one"}', '{"iss": ISSUER}'),
        ('{"alg": "RS256", "kid": "one", "crit": ["exp"]}', '{"iss": ISSUER}'),
        ('{"alg": "RS256", "kid": "one", "b64": false}', '{"iss": ISSUER}'),
        ("[]", '{"iss": ISSUER}'),
        ("null", '{"iss": ISSUER}'),
        ('{"alg": null}', '{"iss": ISSUER, "exp": 1e400}'),
        ('{"alg": "HS256"}', '{"iss": ISSUER, "exp": NaN, "par": 5}'),
        ('{"alg": "RS256", "kid": "one"}', '{"iss": ["pilotkit"]}'),
        ('{"alg": "RS256", "kid": "one"}', f'{{"iss": ISSUER, "exp": {"9" * 4400}}}'),
    ],
)
def test_tokens_that_are_nonsense_inside_are_refused_as_such(
    guarded: Guarded, header: str, claims: str, issuer_is: str
) -> None:
    guarded.denied(f"{packed(header)}.{packed(claims.replace('ISSUER', json.dumps(issuer_is)))}.{packed('x')}")


@pytest.mark.parametrize("origin", ["\xff\xfe", "." * 500, ":", "testvo.", ".testvo", "https://evil.example", "a b"])
def test_origins_that_are_none_are_refused(guarded: Guarded, origin: str) -> None:
    answer = guarded.show(guarded.issuer.token(), origin)
    assert answer.status_code == (200 if origin == "testvo." else 403)


def test_only_the_role_that_is_asked_for_is_given(guarded: Guarded) -> None:
    both = guarded.issuer.token(groups=["test/users", "test/operators"])
    assert guarded.known(both, "testvo.user") == ("alice", ["user"])
    assert guarded.known(both, "testvo:operator") == ("alice", ["operator"])
    assert guarded.known(both) == ("alice", ["operator", "user"])
    assert "no role 'pilot' in testvo" in guarded.denied(both, "testvo.pilot")
    assert "must name your VO (one of testvo), not 'othervo'" in guarded.denied(both, "othervo")


def test_who_is_in_no_group_is_known_and_may_do_nothing(guarded: Guarded) -> None:
    answer = guarded.show(guarded.issuer.token(groups=["strangers"]))
    assert (answer.status_code, answer.json["success"]) == (200, False)
    assert "is for" in answer.json["message"]


def test_pilots_are_bound_to_queue_and_label_by_the_policy(guarded: Guarded) -> None:
    token = guarded.issuer.token(sub="p", preferred_username="pilot", groups=["test/pilots"])
    headers = {"Authorization": f"Bearer {token}", "Origin": "testvo.pilot"}
    answer = guarded.client.post("/server/panda/getJob", json={"siteName": "OTHER"}, headers=headers)
    assert answer.json["StatusCode"] == 60 and f"queue {QUEUE}" in answer.json["errorDialog"]
    robot = guarded.issuer.token(sub="robot-1", preferred_username="robot", groups=None)
    assert guarded.known(robot, "testvo.pilot") == ("robot", ["pilot"])


def test_a_name_is_the_first_ones_and_users_are_banned(guarded: Guarded) -> None:
    guarded.known(guarded.issuer.token())
    thief = guarded.issuer.token(sub="4711")
    assert "somebody else's" in guarded.denied(thief)
    context = state.of(guarded.client.application).context
    users.change(context, "bob", subject=f"{guarded.issuer.url} 4711")
    assert guarded.known(thief)[0] == "bob"
    users.change(context, "alice", banned=True)
    assert "banned" in guarded.denied(guarded.issuer.token(iat=1))


def test_id_tokens_are_not_renewed_here(guarded: Guarded) -> None:
    token = guarded.issuer.token(groups=["test/production"])
    headers = {"Authorization": f"Bearer {token}"}
    answer = guarded.client.post("/api/v1/creds/renew_token", json={}, headers=headers).json
    assert answer["success"] is False and "none to renew" in answer["message"]


def test_several_vos_and_roles_may_have_clients_of_their_own(tmp_path: Path, issuer: Issuer) -> None:
    settings = issuer.configuration(tmp_path, names=(VO, "testvo.pilot", "other"))
    providers = Providers(read_auth_config(Settings(**settings)))  # type: ignore[arg-type]
    assert providers._client("testvo.pilot")[0].name == "testvo.pilot"
    assert providers._client("testvo.user")[0].name == VO
    with pytest.raises(BadCredential, match="must name your VO"):
        providers.identify(issuer.token(), "", time.time())


# ---- the files


def test_clients_find_what_they_need_to_log_in(guarded: Guarded) -> None:
    page = guarded.client.get("/auth/testvo_auth_config.json")
    assert (page.status_code, page.mimetype) == (200, "application/json")
    assert page.json.keys() == {"audience", "client_id", "client_secret", "oidc_config_url", "vo"}
    for name in (
        "other_auth_config.json",
        "auth_policies.json",
        "..%2fauth_policies.json",
        "testvo",
        "_auth_config.json",
    ):
        assert guarded.client.get(f"/auth/{name}").status_code == 404, name


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("auth/testvo_auth_config.json", "{", "is not JSON"),
        ("auth/testvo_auth_config.json", "[]", "must be a JSON object"),
        ("auth/testvo_auth_config.json", '{"audience": "x", "client_id": "y"}', "needs the texts audience"),
        (
            "auth/testvo_auth_config.json",
            '{"audience": "x", "client_id": "y", "oidc_config_url": "http://iam.example.org/x"}',
            "must begin with https://",
        ),
        ("auth_policies.json", '{"testvo": {}}', "must have a list"),
        ("auth_policies.json", '{"testvo": [["x"]]}', "is not \\[string"),
        ("auth_policies.json", '{"testvo": [["x", {"role": "king"}]]}', "role must be one of user, pilot"),
    ],
)
def test_files_that_cannot_be_used_are_named_at_the_start(
    tmp_path: Path, issuer: Issuer, file: str, content: str, says: str
) -> None:
    settings = issuer.configuration(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(ConfigurationError, match=says) as caught:
        read_auth_config(Settings(**settings))  # type: ignore[arg-type]
    assert file.rpartition("/")[2] in str(caught.value)


def test_a_folder_without_files_and_files_without_policies_are_refused(tmp_path: Path, issuer: Issuer) -> None:
    with pytest.raises(ConfigurationError, match="There is no <vo>_auth_config"):
        read_auth_config(Settings(auth_config=str(tmp_path)))
    settings = issuer.configuration(tmp_path, POLICIES)
    with pytest.raises(ConfigurationError, match="PILOTKIT_AUTH_POLICIES must name"):
        read_auth_config(Settings(auth_config=settings["auth_config"]))


def test_only_https_and_this_machine_are_safe_from_forgery() -> None:
    safe = ("https://x.org/a", "http://127.0.0.1:80/", "http://localhost/x", "http://[::1]/")
    unsafe = ("http://x.org/", "ftp://127.0.0.1/", "file:///etc/passwd", "x", "", "https://", "http://[")
    assert [url for url in (*safe, *unsafe) if is_safe_url(url)] == [*safe]
