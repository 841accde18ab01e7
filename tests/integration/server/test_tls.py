"""TLS by the server itself: who comes with a certificate, a proxy, a token, or nothing."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests import pilots
from tests.servers import RunningServer, running_server, start_server
from tests.site import QUEUE, add_site
from tests.x509 import INDEPENDENT, LIMITED, X509, make_x509

#: s anything may take here; far more than it needs.
PATIENCE = 30


@dataclass
class Secure:
    """A server that speaks TLS, and the authority behind its clients and itself."""

    server: RunningServer
    grid: X509

    def call(self, path: str, credential: object = None, token: str = "", body: object = None) -> requests.Response:
        headers = {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        return requests.request(
            "GET" if body is None else "POST",
            f"{self.server.url}/{path}",
            cert=credential,  # type: ignore[arg-type]
            verify=str(self.grid.ca_file),
            headers=headers,
            json=body,
            timeout=PATIENCE,
        )

    def whoami(self, credential: object = None, token: str = "") -> tuple[int, object]:
        answer = self.call("api/v1/system/get_attributes", credential, token)
        data = answer.json()["data"]
        return answer.status_code, (data["name"], data["roles"]) if data else answer.json()["message"]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("secure")
    grid = make_x509(folder / "x509")
    (folder / "tokens.json").write_text(json.dumps({"operator-token": {"name": "root", "roles": ["operator"]}}))
    environment = {
        "PILOTKIT_CERT": str(grid.host_cert),
        "PILOTKIT_KEY": str(grid.host_key),
        "PILOTKIT_CA": str(grid.ca_dir),
        "PILOTKIT_VOMS_DIR": str(grid.voms_dir),
        "PILOTKIT_TOKENS": str(folder / "tokens.json"),
    }
    with running_server(folder / "data", environment=environment) as server:
        yield Secure(server, grid)


def test_certificates_proxies_and_tokens_are_told_apart(secure: Secure) -> None:
    assert secure.server.url.startswith("https://127.0.0.1:")
    grid, user = secure.grid, (str(secure.grid.user_cert), str(secure.grid.user_key))
    for proxy in (str(grid.proxy()), str(grid.proxy(name="renewed.pem"))):
        assert secure.whoami(proxy) == (200, ("Test User", ["harvester", "pilot", "user"]))
    assert secure.whoami(user)[0] == 200 and "is for" in str(secure.whoami(user)[1]), "known, and without a role"
    assert secure.whoami(None, "operator-token") == (200, ("root", ["operator"]))
    assert secure.whoami(user, "operator-token") == (200, ("root", ["operator"])), "the token is what is looked at"
    assert secure.whoami(user, "wrong-token")[0] == 403
    status, message = secure.whoami()
    assert (status, "A token is needed" in str(message)) == (403, True)
    independent = str(grid.proxy(voms=False, language=INDEPENDENT))
    assert secure.whoami(independent)[0] == 403


def test_an_operator_gives_a_certificate_its_name_and_roles_and_bans_it(secure: Secure) -> None:
    certificate, key = secure.grid.certificate("robot", "/DC=test/DC=site/CN=Robot")
    given = {"name": "robot", "subject": "/DC=test/DC=site/CN=Robot", "roles": ["operator"]}
    assert secure.call("api/v1/user/set", token="operator-token", body=given).json()["success"]
    assert secure.whoami((str(certificate), str(key))) == (200, ("robot", ["operator"]))
    limited = secure.whoami(str(secure.grid.proxy(voms=False, language=LIMITED)))
    assert limited[0] == 403 and "limited proxy" in str(limited[1])


def test_clients_that_cannot_prove_who_they_are_get_no_connection(secure: Secure, tmp_path: Path) -> None:
    other = make_x509(tmp_path / "other")
    expired = secure.grid.certificate("expired", "/DC=test/DC=site/CN=Expired", hours=-1)
    for credential in (
        (str(other.user_cert), str(other.user_key)),
        (str(expired[0]), str(expired[1])),
        str(secure.grid.proxy(voms=False, expired=True)),
    ):
        with pytest.raises((requests.exceptions.SSLError, requests.exceptions.ConnectionError)):
            secure.whoami(credential)
    assert secure.whoami(None, "operator-token")[0] == 200


def test_headers_of_a_proxy_server_count_for_nothing_without_one(secure: Secure) -> None:
    headers = {"SSL-Client-Verify": "SUCCESS", "SSL-Client-S-DN": "/DC=test/DC=site/CN=Robot"}
    url = f"{secure.server.url}/api/v1/system/get_attributes"
    answer = requests.get(url, headers=headers, verify=str(secure.grid.ca_file), timeout=PATIENCE)
    assert answer.status_code == 403


def test_a_server_whose_certificate_a_client_does_not_know_is_told_nothing(secure: Secure, tmp_path: Path) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{secure.server.url}/api/v1/system/is_alive", timeout=PATIENCE)


def test_a_session_that_is_taken_up_again_shows_the_same_user(secure: Secure) -> None:
    """With its session a client would bring its certificate, and not the chain that says what it is."""
    context = ssl.create_default_context(cafile=str(secure.grid.ca_file))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(secure.grid.proxy())
    session: ssl.SSLSession | None = None
    for _ in range(3):
        with (
            socket.create_connection(("127.0.0.1", secure.server.port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as secured,
        ):
            secured.sendall(b"GET /api/v1/system/get_attributes HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b""
            while piece := secured.recv(65536):
                answer += piece
            session = secured.session
        assert b'"name": "Test User"' in answer


def test_a_pilot_with_a_proxy_gets_a_job_and_brings_it_to_its_end(
    secure: Secure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secure.grid.ca_file))  # for the operator's calls
    site = add_site(secure.server.url, tmp_path, "operator-token")
    (jobid,) = site.submit({"command": "echo done > kept.txt", "outputs": ["kept.txt"]})
    environment = {"X509_USER_PROXY": str(secure.grid.proxy()), "X509_CERT_DIR": str(secure.grid.ca_dir)}
    pilot = pilots.run(secure.server.url, QUEUE, tmp_path / "pilot", "-v", "1", env=environment)
    job = site.wait_for(jobid, "finished", "failed")
    assert job["jobStatus"] == "finished", pilot.log()
    assert len(site.stored(jobid)) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"PILOTKIT_KEY": ""}, "needs both"),
        ({"PILOTKIT_CERT": "", "PILOTKIT_KEY": ""}, "is for TLS"),
        ({"PILOTKIT_CERT": "/nowhere.pem"}, "cannot be set up"),
        ({"PILOTKIT_KEY": "user"}, "cannot be set up"),
        ({"PILOTKIT_CA": "/nowhere"}, "cannot be"),
    ],
)
def test_files_that_do_not_go_together_are_refused_in_a_sentence(
    secure: Secure, tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    known = {name: value for name, value in secure.server.environment.items() if name != "PILOTKIT_TOKENS"}
    chosen = {**known, **changes}
    if chosen["PILOTKIT_KEY"] == "user":
        chosen["PILOTKIT_KEY"] = str(secure.grid.user_key)
    with pytest.raises(RuntimeError, match=f"refused: .*{says}"):
        start_server(tmp_path, environment=chosen)
