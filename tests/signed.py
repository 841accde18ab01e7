"""A gate in front of an S3 server that takes pre-signed URLs, and nothing else, as seriously as a real service does.

It lets a URL through for the one method that it was signed for, until it expires, and compares what is uploaded with
Content-MD5; moto (tests/s3.py) does none of this. What it refuses it refuses in S3's words, signature included.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from tests.s3 import S3

# A handler whose client never comes back ends after this time (s).
_IDLE_LIMIT = 30.0
_BLOCK = 65536
_ERROR = (
    "<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>{code}</Code><Message>{message}</Message>"
    "<SignatureProvided>{signature}</SignatureProvided><RequestId>1</RequestId></Error>"
)
_PASSED_ON = ("Content-Length", "Content-Type", "ETag", "Last-Modified")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_LIMIT
    server: Gate

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        data = self._body()
        if "Authorization" in self.headers:
            return self._refuse(400, "InvalidArgument", "Only one auth mechanism allowed")
        deadline = self.server.issued.get((self.command, self.path))
        if deadline is None:
            return self._refuse(403, "SignatureDoesNotMatch", "The request signature we calculated does not match")
        if time.time() > deadline:
            return self._refuse(403, "AccessDenied", "Request has expired")
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        if self.headers.get("Content-MD5", md5) != md5:
            return self._refuse(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")
        headers = {"If-None-Match": self.headers["If-None-Match"]} if "If-None-Match" in self.headers else {}
        with requests.Session() as session:
            session.trust_env = False
            url = f"{self.server.s3.url}{self.path}"
            with session.request(self.command, url, data=data, headers=headers, stream=True, timeout=30) as answer:
                self.send_response(answer.status_code)
                for name in _PASSED_ON:
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.end_headers()
                for block in answer.iter_content(_BLOCK):
                    self.wfile.write(block)

    def _body(self) -> bytes:
        left, pieces = int(self.headers.get("Content-Length", "0")), []
        while left and (piece := self.rfile.read(min(left, _BLOCK))):
            left -= len(piece)
            pieces.append(piece)
        if left:
            self.close_connection = True
            raise ConnectionError("the client left in the middle")
        return b"".join(pieces)

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = _ERROR.format(code=code, message=message, signature=self.path.rpartition("=")[2]).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


class Gate(ThreadingHTTPServer):
    """s3: the server behind it."""

    def __init__(self, s3: S3) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.s3 = s3
        self.issued: dict[tuple[str, str], float] = {}
        self.connections: list[socket.socket] = []
        self._handlers: list[threading.Thread] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, name="gate")
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def signed(self, method: str, name: str, seconds: int = 600, port: int = 0) -> str:
        """A URL for one method and one file; port: of a proxy in front of this gate."""
        path = self.s3.signed(method, name, seconds).partition(self.s3.url)[2]
        self.issued[(method, path)] = time.time() + seconds
        return f"http://127.0.0.1:{port or self.port}{path}"

    def settle(self) -> None:
        """Close every connection, and wait until all handlers have ended."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._handlers:
            thread.join()
        self.connections.clear()
        self._handlers.clear()

    def close(self) -> None:
        """Stop, close every connection, and wait for the handlers."""
        self.shutdown()
        self._thread.join()
        self.settle()
        self.server_close()

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """As the base has it, with the thread where `settle` finds it."""
        self.connections.append(request)
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address))
        self._handlers.append(thread)
        thread.start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle is what some tests are about."""


@contextmanager
def running_gate(s3: S3) -> Iterator[Gate]:
    """A gate for the time of a block. The server behind it must not check keys."""
    gate = Gate(s3)
    try:
        yield gate
    finally:
        gate.close()
