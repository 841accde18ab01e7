"""A real HTTP server on 127.0.0.1 that answers as a test tells it to and remembers what it was asked."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable
from urllib.parse import urlsplit

from pilot.util.https import Json

# A handler thread whose client never comes back ends after this time (s), should a test forget to close the client.
_IDLE_LIMIT = 10.0


@dataclass(frozen=True)
class Asked:
    """One request as it arrived. Headers have lower-case names. peer: the common name in the client's certificate."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    peer: str = ""

    def json(self) -> dict[str, Json]:
        """The body as a JSON object, unpacked when it is gzip (which legacy clients do not say)."""
        body = gzip.decompress(self.body) if self.body.startswith(b"\x1f\x8b") else self.body
        parsed = json.loads(body)
        assert isinstance(parsed, dict)
        return parsed


@dataclass(frozen=True)
class Answer:
    """One answer. A body that is no bytes goes out as JSON; `act` replaces the whole answer."""

    body: bytes | Json = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    act: Callable[[Handler], None] | None = None


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_LIMIT
    disable_nagle_algorithm = True
    server: WebServer

    def setup(self) -> None:
        self.server.connections.append(self.request)
        super().setup()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.note(Asked(self.command, self.path, headers, body, self._peer()))
        if answer.act is not None:
            self.close_connection = True
            answer.act(self)
            return
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _peer(self) -> str:
        shown = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        names = dict(pair for part in (shown or {}).get("subject", ()) for pair in part)
        return str(names.get("commonName", ""))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr: a test looks at what was asked instead."""


def server_context(certificate: str, client_ca: str = "") -> ssl.SSLContext:
    """TLS for a server. client_ca: file with the CA whose certificates clients may show, and need not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


class WebServer(ThreadingHTTPServer):
    """`route` says what a path answers, the last answer for ever; `asked` is all that came, in order."""

    daemon_threads = False
    # As many may come at once while this process has other things to do.
    request_queue_size = 128

    def __init__(self, certificate: str = "", client_ca: str = "") -> None:
        """certificate: file with certificate and key, for https. client_ca: of certificates that clients may show."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[Asked] = []
        self.connections: list[socket.socket] = []
        self.over = threading.Event()
        self._secure = server_context(certificate, client_ca) if certificate else None
        self._routes: dict[str, list[Answer]] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, name="webserver")
        self._thread.start()

    @property
    def url(self) -> str:
        """scheme://host:port"""
        return f"http{'s' if self._secure else ''}://127.0.0.1:{self.server_address[1]}"

    def get_request(self) -> tuple[socket.socket, object]:
        """As the base has it, under TLS when there is a certificate; the handshake is made when the handler reads."""
        made, address = super().get_request()
        if self._secure is not None:
            made = self._secure.wrap_socket(made, server_side=True, do_handshake_on_connect=False)
        return made, address

    def route(self, path: str, *answers: Answer) -> None:
        """Answer a path with one answer after the other, and then with the last one again and again."""
        with self._lock:
            self._routes[path] = list(answers)

    def note(self, asked: Asked) -> Answer:
        """Remember a request and return its answer; 404 for a path without a route."""
        with self._lock:
            self.asked.append(asked)
            answers = self._routes.get(urlsplit(asked.path).path)
            if not answers:
                return Answer(b"no such page", 404)
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def paths(self) -> list[str]:
        """The paths asked for, in order."""
        return [asked.path for asked in self.asked]

    def to(self, path: str) -> list[Asked]:
        """The requests for one path."""
        return [asked for asked in self.asked if urlsplit(asked.path).path == path]

    def close(self) -> None:
        """Stop, close every connection, and wait for the handlers."""
        self.over.set()
        self.shutdown()
        self._thread.join()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle is what some tests are about."""
