"""Client certificates through the web servers of docs/deploy: who is verified is handed on, and nobody can forge it."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests import pilots
from tests.components import logs
from tests.integration.server.clients import PATIENCE
from tests.servers import RunningServer, running_server
from tests.site import QUEUE, Site, add_site
from tests.webservers import running_apache, running_nginx, running_passthrough
from tests.x509 import USER_NAME, X509, make_x509

ROBOT, BOSS = "/DC=test/DC=site/CN=Robot: pilots", "/DC=test/DC=site/CN=Boss"
OPERATOR = "token-of-the-operator"

#: folder, authority, the server's port -> the web server's port
WebServer = Callable[[Path, X509, int], AbstractContextManager[int]]


@dataclass
class Front:
    """A web server in front of a server that knows a robot of pilots and an operator by their certificates."""

    url: str
    grid: X509
    folder: Path
    site: Site

    def ask(self, path: str, credential: object = None, body: object = None, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with requests.Session() as session:
            session.trust_env = False  # REQUESTS_CA_BUNDLE would win
            return session.request(
                "GET" if body is None else "POST", f"{self.url}/{path}", json=body, headers=named, timeout=PATIENCE,
                cert=credential, verify=str(self.grid.ca_file),  # type: ignore[arg-type]
            )  # fmt: skip

    def whoami(self, credential: object = None, **headers: str) -> tuple[int, object]:
        answer = self.ask("api/v1/system/get_attributes", credential, **headers)
        if "json" not in answer.headers["Content-Type"]:  # the web server's own
            return answer.status_code, answer.text
        data = answer.json()["data"]
        return answer.status_code, (data["name"], data["roles"]) if data else answer.json()["message"]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> X509:
    made = make_x509(tmp_path_factory.mktemp("grid") / "x509")
    made.certificate("robot", ROBOT)
    made.certificate("boss", BOSS)
    return made


def known_in(grid: X509, name: str) -> tuple[str, str]:
    return str(grid.folder / f"{name}.pem"), str(grid.folder / f"{name}.key")


@pytest.fixture(scope="module")
def behind(grid: X509, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Site]]:
    """The server that both web servers speak to, with its site."""
    folder = tmp_path_factory.mktemp("behind")
    (folder / "tokens.json").write_text(json.dumps({OPERATOR: {"name": "root", "roles": ["operator"]}}))
    settings = {"PILOTKIT_TOKENS": str(folder / "tokens.json"), "PILOTKIT_TRUSTED_PROXIES": "127.0.0.1"}
    with running_server(folder / "data", environment=settings) as server:
        site = add_site(server.url, folder, OPERATOR)
        site.call("user/set", {"name": "robot", "subject": ROBOT, "roles": ["pilot"]})
        site.call("user/set", {"name": "boss", "subject": BOSS, "roles": ["operator"]})
        yield server, site


@pytest.fixture(scope="module", params=[running_nginx, running_apache], ids=["nginx", "apache"])
def front(
    request: pytest.FixtureRequest,
    grid: X509,
    behind: tuple[RunningServer, Site],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Front]:
    start: WebServer = request.param
    folder = tmp_path_factory.mktemp("front")
    server, site = behind
    with start(folder, grid, server.port) as port:
        yield Front(f"https://localhost:{port}", grid, folder, site)


def test_a_certificate_that_was_verified_says_who_calls(front: Front) -> None:
    assert front.whoami(known_in(front.grid, "robot")) == (200, ("robot", ["pilot"]))
    assert front.whoami(known_in(front.grid, "boss")) == (200, ("boss", ["operator"]))
    status, message = front.whoami(known_in(front.grid, "user"))
    assert status == 200 and "is for" in str(message), "a name that nobody has given a role"
    assert front.whoami(Authorization=f"Bearer {OPERATOR}") == (200, ("root", ["operator"])), "a token is enough"


@pytest.mark.parametrize(
    "headers",
    [
        {"SSL_Client_S_DN": BOSS, "SSL_Client_Verify": "SUCCESS"},
        {"ssl_client_s_dn": "CN=Boss,DC=site,DC=test", "ssl_client_verify": "SUCCESS"},
        {"SSL_CLIENT_S_DN": BOSS, "SSL_CLIENT_VERIFY": "SUCCESS", "GRST_CRED_AURI_0": "fqan:/atlas/Role=pilot"},
        {"X_Forwarded_For": "127.0.0.1", "SSL_Client_S_DN": BOSS, "SSL_Client_Verify": "SUCCESS"},
    ],
)  # fmt: skip
def test_whoever_writes_the_headers_himself_is_nobody(front: Front, headers: dict[str, str]) -> None:
    assert front.whoami(**headers)[0] == 403
    robot = known_in(front.grid, "robot")
    assert front.whoami(robot, **headers) == (200, ("robot", ["pilot"])), "or who the certificate says"


def test_headers_with_underscores_and_two_of_a_name_change_nothing(front: Front) -> None:
    robot = known_in(front.grid, "robot")
    context = ssl.create_default_context(cafile=str(front.grid.ca_file))
    context.load_cert_chain(*robot)
    forged = f"SSL_Client_S_DN: {BOSS}\r\nSSL_CLIENT_VERIFY: SUCCESS\r\nSSL-Client-S-DN: {BOSS}\r\n" * 2
    said = raw(front.url, context, f"GET /api/v1/system/get_attributes HTTP/1.0\r\nHost: x\r\n{forged}\r\n")
    assert b"boss" not in said and (b'"name": "robot"' in said or b" 400 " in said.splitlines()[0])


def raw(url: str, context: ssl.SSLContext, request: str) -> bytes:
    """What comes back for a request that no client of ours would write."""
    port = int(url.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        secured.sendall(request.encode())
        answer = b""
        while piece := secured.recv(65536):
            answer += piece
    return answer


def test_a_certificate_that_is_not_good_is_that_of_nobody(front: Front, tmp_path: Path) -> None:
    stranger = make_x509(tmp_path / "other")
    expired = front.grid.certificate("expired", BOSS, hours=-1)
    for credential in ((str(stranger.user_cert), str(stranger.user_key)), (str(expired[0]), str(expired[1]))):
        try:
            status = front.whoami(credential)[0]
        except (requests.exceptions.SSLError, requests.exceptions.ConnectionError):
            continue  # turned away by TLS already
        assert status in (400, 403), credential


def test_a_pilot_with_a_robots_certificate_gets_a_job_and_brings_it_to_its_end(front: Front, tmp_path: Path) -> None:
    (job,) = front.site.submit({"command": "echo done > kept.txt", "outputs": ["kept.txt"]})
    robot = tmp_path / "robot.pem"
    robot.touch(mode=0o600)
    robot.write_text("".join(Path(one).read_text() for one in known_in(front.grid, "robot")))
    environment = {"X509_USER_PROXY": str(robot), "X509_CERT_DIR": str(front.grid.ca_dir)}
    pilot = pilots.run(front.url, QUEUE, tmp_path / "pilot", "-v", "1", env=environment)
    done = front.site.wait_for(job)
    assert done["jobStatus"] == "finished", f"{pilot.log()}\n{logs(front.folder)}"
    assert "robot" in json.dumps(done), "the job does not say whose pilot it was"


def test_numbers_and_health_are_not_for_the_world(front: Front) -> None:
    token = f"Bearer {OPERATOR}"
    for path in ("metrics", "readyz", "/metrics", "x/../metrics", "metrics?a"):
        assert front.ask(path, Authorization=token).status_code in (403, 404), path
    assert front.ask("healthz").status_code == 200


def test_a_proxy_is_refused_where_openssl_knows_none(front: Front) -> None:
    """OpenSSL 3 has no switch for them that a web server could be told of: for proxies there is the other way."""
    try:
        status = front.whoami(str(front.grid.proxy(voms=False)))[0]
    except (requests.exceptions.SSLError, requests.exceptions.ConnectionError):
        return
    assert status in (400, 403)


def test_connections_that_nginx_passes_on_keep_their_voms_attributes(grid: X509, tmp_path: Path) -> None:
    settings = {
        "PILOTKIT_CERT": str(grid.host_cert),
        "PILOTKIT_KEY": str(grid.host_key),
        "PILOTKIT_CA": str(grid.ca_dir),
        "PILOTKIT_VOMS_DIR": str(grid.voms_dir),
    }
    folder = tmp_path / "nginx"
    folder.mkdir()
    with (
        running_server(tmp_path / "data", environment=settings) as server,
        running_passthrough(folder, grid, server.port) as port,
    ):
        front = Front(f"https://localhost:{port}", grid, folder, Site(server.url, tmp_path))
        assert front.whoami(str(grid.proxy())) == (200, ("Test User", ["harvester", "pilot", "user"]))
        assert front.whoami(SSL_Client_Verify="SUCCESS", SSL_Client_S_DN=USER_NAME)[0] == 403
