"""TLS is verified by whatever of the pilot speaks it, and credentials are shown to nobody but who was asked."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Callable

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool import https
from pilot.copytool.pool import Pool
from pilot.copytool.showing import certificate_of, is_private, stamp
from pilot.info.filespec import FileSpec
from pilot.util.https import Credentials, HttpClient, RequestFailed
from tests.unit.pilot import builders
from tests.unit.pilot.webserver import Answer, WebServer
from tests.x509 import X509, make_x509

CONTENTS = b"what lies in storage"
PATH = "/data/f.root"


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> X509:
    """A CA that nobody here trusts."""
    return make_x509(tmp_path_factory.mktemp("stranger"))


def both(folder: Path, cert: Path, key: Path) -> str:
    """One file with certificate and key."""
    path = folder / f"both-{cert.stem}.pem"
    path.write_text(cert.read_text() + key.read_text())
    return str(path)


def host_certificate(x509: X509, folder: Path, fault: str = "") -> str:
    """Certificate and key of a server on 127.0.0.1, with a fault or without."""
    hosts = ("127.0.0.2", "elsewhere.example") if fault == "wrong host" else ("127.0.0.1",)
    name = f"host-{time.monotonic_ns()}"
    cert, key = x509.certificate(
        name, "/DC=test/DC=site/CN=127.0.0.1", hosts=hosts, hours=-1 if fault == "expired" else 24
    )
    return both(folder, cert, key)


class Servers:
    """Servers of one test; each has the file, and says OK."""

    def __init__(self) -> None:
        self.made: list[WebServer] = []

    def start(self, certificate: str = "", client_ca: str = "") -> WebServer:
        server = WebServer(certificate, client_ca)
        server.route(PATH, Answer(CONTENTS))
        self.made.append(server)
        return server


@pytest.fixture
def servers() -> Iterator[Servers]:
    made = Servers()
    yield made
    for server in made.made:
        server.close()


def ask_dispatcher(url: str, ca: str, folder: Path) -> None:
    client = HttpClient(Credentials(token="sesame", ca=ca), 5, 10, "pilotkit/test", url)
    try:
        assert client.get(f"{url}{PATH}").body == CONTENTS
    finally:
        client.close()


def download(url: str, ca: str, folder: Path, environ: Mapping[str, str] | None = None) -> None:
    spec = FileSpec("f.root", surl=f"{url}{PATH}", checksum={"adler32": f"{zlib.adler32(CONTENTS):08x}"})
    https.copy_in([spec], builders.transfer(folder, ca=ca, environ={} if environ is None else environ))
    assert (folder / "f.root").read_bytes() == CONTENTS


@pytest.mark.parametrize("fault", ["", "wrong host", "wrong CA", "expired"])
@pytest.mark.parametrize("client", [ask_dispatcher, download])
def test_a_server_that_cannot_prove_who_it_is_is_told_nothing(
    servers: Servers, x509: X509, stranger: X509, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    client: Callable[[str, str, Path], None], fault: str,
) -> None:  # fmt: skip
    # Nothing in the environment may switch verification off, or bring other authorities in.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(stranger.ca_file))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(stranger.ca_file))
    monkeypatch.setenv("PYTHONHTTPSVERIFY", "0")
    issuer = stranger if fault == "wrong CA" else x509
    server = servers.start(host_certificate(issuer, tmp_path, fault))
    if not fault:
        client(server.url, str(x509.ca_dir), tmp_path)
        return
    with pytest.raises(PilotException) as raised:
        client(server.url, str(x509.ca_dir), tmp_path)
    assert server.asked == []
    assert "certificate" in raised.value.diag
    if isinstance(raised.value, RequestFailed):
        assert not raised.value.temporary
    else:
        assert raised.value.code == ErrorCodes.STAGEINAUTHENTICATIONFAILURE
    assert not (tmp_path / "f.root").exists()


# ---- what storage is shown


def test_the_token_goes_to_storage_under_tls_and_is_read_again_for_every_file(
    servers: Servers, x509: X509, tmp_path: Path
) -> None:
    server = servers.start(host_certificate(x509, tmp_path))
    environ = {"BEARER_TOKEN_FILE": str(tmp_path / "bt")}
    with closing(Pool()) as pool:
        for name in ("first", "second"):
            (tmp_path / "bt").write_text(name)
            spec = FileSpec("f.root", surl=f"{server.url}{PATH}", checksum={"adler32": f"{zlib.adler32(CONTENTS):08x}"})
            https.copy_in([spec], builders.transfer(tmp_path, ca=str(x509.ca_dir), environ=environ, pool=pool))
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer first", "Bearer second"]


def test_a_renewed_proxy_opens_connections_of_its_own(x509: X509, tmp_path: Path) -> None:
    proxy = tmp_path / "proxy"
    proxy.write_text("old")
    os.utime(proxy, (1, 1))
    before = stamp({"X509_USER_PROXY": str(proxy)})
    proxy.write_text("new")
    assert before != stamp({"X509_USER_PROXY": str(proxy)}) and stamp({}) == stamp({"X509_USER_PROXY": "/gone"}) == 0


def test_the_client_certificate_is_shown_to_the_server_that_was_asked(
    servers: Servers, x509: X509, tmp_path: Path
) -> None:
    server = servers.start(host_certificate(x509, tmp_path), str(x509.ca_file))
    user = both(tmp_path, x509.user_cert, x509.user_key)
    pair = {"X509_USER_CERT": str(x509.user_cert), "X509_USER_KEY": str(x509.user_key)}
    for environ in ({"X509_USER_PROXY": user}, pair, {}):
        download(server.url, str(x509.ca_dir), tmp_path, environ)
    assert [asked.peer for asked in server.asked] == ["Test User", "Test User", ""]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_server_that_another_redirects_to_is_shown_neither_token_nor_certificate(
    servers: Servers, x509: X509, tmp_path: Path, status: int
) -> None:
    certificate = host_certificate(x509, tmp_path)
    door, other = (servers.start(certificate, str(x509.ca_file)) for _ in range(2))
    door.route(PATH, Answer(status=status, headers={"Location": f"{other.url}{PATH}"}))
    environ = {"BEARER_TOKEN": "sesame", "X509_USER_PROXY": both(tmp_path, x509.user_cert, x509.user_key)}
    download(door.url, str(x509.ca_dir), tmp_path, environ)
    assert [(asked.headers.get("authorization"), asked.peer) for asked in door.asked] == [
        ("Bearer sesame", "Test User")
    ]
    assert [(asked.headers.get("authorization"), asked.peer) for asked in other.asked] == [(None, "")]


def test_a_redirect_to_the_same_server_keeps_the_token(servers: Servers, x509: X509, tmp_path: Path) -> None:
    server = servers.start(host_certificate(x509, tmp_path))
    server.route("/again", Answer(CONTENTS))
    server.route(PATH, Answer(status=307, headers={"Location": f"{server.url}/again"}))
    download(server.url, str(x509.ca_dir), tmp_path, {"BEARER_TOKEN": "sesame"})
    assert [asked.headers.get("authorization") for asked in server.asked] == ["Bearer sesame"] * 2


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://se.example/f", True),
        ("http://127.0.0.1:1094/f", True),
        ("http://localhost/f", True),
        ("http://[::1]/f", True),
        ("http://se.example/f", False),
        ("http://127.0.0.1.example/f", False),
        ("http://10.0.0.1/f", False),
    ],
)
def test_a_token_is_for_tls_and_loopback_only(url: str, wanted: bool) -> None:
    assert is_private(url) is wanted


def test_a_token_stays_here_when_everybody_could_read_it(servers: Servers, tmp_path: Path) -> None:
    server = servers.start()
    download(server.url, "", tmp_path, {"BEARER_TOKEN": "sesame"})
    assert server.asked[0].headers["authorization"] == "Bearer sesame"
    session = https.ShowingSession(True, {"BEARER_TOKEN": "sesame"})
    try:
        # A name that is not loopback's own, for the same machine: the proxy of requests leads there.
        session.proxies = {"http": server.url}
        session.get("http://se.example/data/f.root", timeout=10).close()
    finally:
        session.close()
    assert server.asked[1].path.startswith("http://se.example") and "authorization" not in server.asked[1].headers


@pytest.mark.parametrize(("token", "wanted"), [("a b", None), ("x\r\nEvil: 1", None), ("good", "Bearer good")])
def test_what_is_no_token_is_not_sent(servers: Servers, tmp_path: Path, token: str, wanted: str | None) -> None:
    server = servers.start()
    (tmp_path / "bt").write_text(token)
    download(server.url, "", tmp_path, {"BEARER_TOKEN_FILE": str(tmp_path / "bt")})
    assert server.asked[0].headers.get("authorization") == wanted and "evil" not in server.asked[0].headers


def test_a_certificate_that_is_not_there_is_not_shown(tmp_path: Path) -> None:
    assert certificate_of({"X509_USER_PROXY": str(tmp_path / "gone")}) is None
    assert certificate_of({"X509_USER_CERT": __file__}) is None
    assert certificate_of({}) is None


def test_the_dispatcher_sees_a_renewed_certificate_with_the_very_next_request(
    servers: Servers, x509: X509, tmp_path: Path
) -> None:
    server = servers.start(host_certificate(x509, tmp_path), str(x509.ca_file))
    other = x509.certificate("renewed", "/DC=test/DC=site/CN=Renewed User")
    path = Path(both(tmp_path, x509.user_cert, x509.user_key))
    client = HttpClient(Credentials(certificate=str(path), ca=str(x509.ca_dir)), 5, 10, "pilotkit/test", server.url)
    try:
        client.get(f"{server.url}{PATH}")
        Path(both(tmp_path, *other)).replace(path)
        client.get(f"{server.url}{PATH}")
        client.use("")
        client.get(f"{server.url}{PATH}")
    finally:
        client.close()
    # The kept-alive connection is that of the old one until it is closed.
    assert [asked.peer for asked in server.asked] == ["Test User", "Test User", "Renewed User"]
