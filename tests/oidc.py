"""A small OIDC provider on loopback for tests: discovery, real keys that rotate, ID tokens, and the device flow."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

VO, AUDIENCE, CLIENT_ID = "testvo", "https://panda.test", "test-client"
# An idle connection ends after this time (s).
_IDLE_LIMIT = 30.0

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def make_key(algorithm: str) -> Key:
    """A new private key for an algorithm."""
    if algorithm.startswith("ES"):
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_jwk(key: Key, kid: str) -> dict[str, object]:
    """The public half of a key as providers publish it."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        found = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        found = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        found = OKPAlgorithm.to_jwk(public, as_dict=True)
    return {**found, "kid": kid, "use": "sig"}


@dataclass
class Issuer:
    """A provider.

    asked: the paths of all requests; status: what it answers to each of them, 200 when it is well.
    flows: while it is not set no request is answered.
    """

    url: str = ""
    keys: dict[str, tuple[str, Key]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    status: int = 200
    jwks_uri: str = ""
    pending: int = 0
    flows: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.flows.set()

    def add_key(self, kid: str, algorithm: str = "RS256") -> None:
        """Publish another key."""
        self.keys[kid] = (algorithm, make_key(algorithm))

    def token(self, kid: str = "one", **claims: object) -> str:
        """An ID token. claims: instead of the usual ones; None leaves one out."""
        now = int(time.time())
        usual = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "0815",
            "preferred_username": "alice",
            "name": "Alice Adams",
            "groups": ["test/users"],
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
        }
        wanted = {key: value for key, value in {**usual, **claims}.items() if value is not None}
        algorithm, key = self.keys[kid]
        return jwt.encode(wanted, key, algorithm=algorithm, headers={"kid": kid})

    def configuration(self, folder: Path, policies: object = None, names: tuple[str, ...] = (VO,)) -> dict[str, str]:
        """Write the files of a server that trusts this provider; returns its settings."""
        auth = folder / "auth"
        auth.mkdir(parents=True)
        for name in names:
            client = {
                "audience": AUDIENCE,
                "client_id": CLIENT_ID,
                "client_secret": "known-to-all",
                "oidc_config_url": f"{self.url}/.well-known/openid-configuration",
                "vo": name.partition(".")[0],
            }
            (auth / f"{name}_auth_config.json").write_text(json.dumps(client))
        (folder / "auth_policies.json").write_text(json.dumps(POLICIES if policies is None else policies))
        return {"auth_config": str(auth), "auth_policies": str(folder / "auth_policies.json")}


POLICIES: dict[str, list[list[object]]] = {
    VO: [
        ["test/users", {"group": "users", "role": "user"}],
        ["test/pilots", {"group": "pilots", "role": "pilot", "queue": "TEST_QUEUE", "label": "managed"}],
        ["test/production", {"group": "production", "role": "production"}],
        ["test/operators", {"group": "operators", "role": "operator"}],
        ["sub:robot-1", {"group": "robots", "role": "pilot"}],
    ]
}


class _Handler(BaseHTTPRequestHandler):
    timeout = _IDLE_LIMIT
    server: _Server

    def do_GET(self) -> None:
        issuer = self.server.issuer
        issuer.asked.append(self.path)
        issuer.flows.wait(_IDLE_LIMIT)
        if self.path == "/.well-known/openid-configuration":
            described = {
                "issuer": issuer.url,
                "jwks_uri": issuer.jwks_uri or f"{issuer.url}/jwk",
                "token_endpoint": f"{issuer.url}/token",
                "device_authorization_endpoint": f"{issuer.url}/devicecode",
            }
            self._answer(issuer.status, described)
        elif self.path == "/jwk":
            keys = [public_jwk(key, kid) for kid, (_, key) in issuer.keys.items()]
            self._answer(issuer.status, {"keys": keys})
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", f"{issuer.url}/jwk")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._answer(404, {"error": "not_found"})

    def do_POST(self) -> None:
        """The device flow (RFC 8628): a code, then "pending" as often as wanted, then the token."""
        issuer = self.server.issuer
        issuer.asked.append(self.path)
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        if form.get("client_id") != [CLIENT_ID]:
            self._answer(401, {"error": "invalid_client"})
        elif self.path == "/devicecode":
            uri = f"{issuer.url}/device?user_code=ABCD"
            self._answer(200, {"device_code": "dc", "verification_uri_complete": uri, "expires_in": 60, "interval": 1})
        elif issuer.pending:
            issuer.pending -= 1
            self._answer(400, {"error": "authorization_pending"})
        else:
            self._answer(200, {"id_token": issuer.token(), "refresh_token": "again", "token_type": "Bearer"})

    def _answer(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    issuer: Issuer


@contextmanager
def running_issuer(certificate: tuple[Path, Path] | None = None) -> Iterator[Issuer]:
    """A provider with one RSA key, "one". certificate: it and its key, for https."""
    server = _Server(("127.0.0.1", 0), _Handler)
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    server.issuer = Issuer(f"{scheme}://127.0.0.1:{server.server_address[1]}")
    server.issuer.add_key("one")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
