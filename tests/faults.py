"""A network between pilot and dispatcher that can misbehave: a proxy that forwards, refuses, drops and records."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """One request that passed: verb, path, the body as JSON (or empty), and headers by lower-case name."""

    method: str
    path: str
    body: dict[str, object]
    headers: dict[str, str]
    packed: bool

    @property
    def state(self) -> str:
        """The state of a job update, on either API."""
        return str(self.body.get("state") or self.body.get("job_status") or "")

    @property
    def call(self) -> str:
        """The last part of the path: the method."""
        return urlsplit(self.path).path.rpartition("/")[2]


# What happens to a request: None: it passes; a number: it is answered with this code and never arrives; "drop": it
# arrives, but its answer is lost.
Rule = Callable[[Request], object]


@dataclass
class Network:
    """url: what the pilot is told. backend: where requests go; may be changed. rule: see Rule. change: may rewrite the
    body of an answer on its way. hide: headers, by lower-case name, that are taken off answers."""

    backend: str
    rule: Rule = lambda request: None
    change: Callable[[int, bytes, Request], bytes] = lambda status, body, request: body
    hide: frozenset[str] = frozenset()
    url: str = ""
    requests: list[Request] = field(default_factory=list)

    def calls(self, name: str) -> list[Request]:
        """The requests for one method."""
        return [request for request in self.requests if request.call == name]


@contextmanager
def network(backend: str, rule: Rule = lambda request: None) -> Iterator[Network]:
    """Start the proxy on a free port of loopback, and end it with all its threads."""
    net = Network(backend, rule)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # A test that ends must not wait for a kept-alive connection.
        timeout = 5

        def do_GET(self) -> None:
            self._pass()

        def do_POST(self) -> None:
            self._pass()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _pass(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = _request(self.command, self.path, data, {k.lower(): v for k, v in self.headers.items()})
            net.requests.append(request)
            fate = net.rule(request)
            self.close_connection = True
            if isinstance(fate, int):
                self._answer(fate, {}, b"refused by the test")
                return
            parts = urlsplit(net.backend)
            backend = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
            try:
                backend.request(self.command, self.path, data, dict(self.headers.items()))
                answer = backend.getresponse()
                body = answer.read()
            except OSError:
                # The server is gone: so is the connection.
                self.connection.close()
                return
            finally:
                backend.close()
            if fate != "drop":
                self._answer(answer.status, dict(answer.getheaders()), net.change(answer.status, body, request))

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in net.hide and name.lower() not in (
                    "content-length",
                    "connection",
                    "transfer-encoding",
                    "date",
                    "server",
                    "keep-alive",
                ):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = False
        block_on_close = True

    server = Server(("127.0.0.1", 0), Handler)
    net.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield net
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _request(method: str, path: str, data: bytes, headers: dict[str, str]) -> Request:
    packed = data[:2] == b"\x1f\x8b"
    try:
        body = json.loads(gzip.decompress(data) if packed else data)
    except (OSError, ValueError):
        body = {}
    return Request(method, path, body if isinstance(body, dict) else {}, headers, packed)
