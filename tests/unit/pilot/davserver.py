"""A real storage server: GET, HEAD, PUT and DELETE on a directory, with Digest headers, and faults on demand."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import threading
import zlib
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Callable
from urllib.parse import unquote, urlsplit

# A handler thread whose client never comes back ends after this time (s).
_IDLE_LIMIT = 20.0


class Handler(BaseHTTPRequestHandler):
    """One connection. `server.fault`, when it is set, may answer in its own way and then returns True."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_LIMIT
    disable_nagle_algorithm = True
    server: DavServer

    @property
    def file(self) -> Path:
        return Path(f"{self.server.root}/{unquote(urlsplit(self.path).path)}")

    def setup(self) -> None:
        self.server.connections.append(self.request)
        super().setup()

    def parse_request(self) -> bool:
        understood = super().parse_request()
        if understood:
            self.server.asked.append(self.command)
        return understood

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        given = {"Content-Length": str(len(body)), **{name.replace("_", "-"): text for name, text in headers.items()}}
        for name, text in given.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.server.fault is not None and self.server.fault(self):
            return
        if not self.file.is_file():
            self.send(404, b"" if self.command == "HEAD" else b"no such file here")
            return
        contents = self.file.read_bytes()
        digests = {
            "adler32": f"adler32={zlib.adler32(contents):08x}",
            "md5": f"md5={base64.b64encode(hashlib.md5(contents).digest()).decode()}",
        }
        wanted = digests.get(self.headers.get("Want-Digest", ""), "") if self.server.digests else ""
        headers = {"Content_Length": str(len(contents)), **({"Digest": wanted} if wanted else {})}
        self.send(200, b"" if self.command == "HEAD" else contents, **headers)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        if self.server.fault is not None and self.server.fault(self):
            return
        contents = self.rfile.read(int(self.headers["Content-Length"]))
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_bytes(self.server.spoil(contents))
        self.send(201)

    def do_DELETE(self) -> None:
        if self.server.fault is not None and self.server.fault(self):
            return
        with suppress(OSError):
            self.file.unlink()
        self.send(204)

    def hang(self) -> None:
        """Say nothing more until the test is over."""
        self.close_connection = True
        self.server.over.wait(_IDLE_LIMIT)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


class DavServer(ThreadingHTTPServer):
    """root: the directory. certificate: file with certificate and key, for https."""

    daemon_threads = False
    # As many may come at once while this process has other things to do.
    request_queue_size = 128

    def __init__(self, root: Path, certificate: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.fault: Callable[[Handler], bool] | None = None
        self.spoil: Callable[[bytes], bytes] = bytes
        self.digests = True
        self.asked: list[str] = []
        self.connections: list[socket.socket] = []
        self.over = threading.Event()
        self._secure: ssl.SSLContext | None = None
        if certificate:
            self._secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._secure.load_cert_chain(certificate)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, name="davserver")
        self._thread.start()

    @property
    def url(self) -> str:
        """scheme://host:port"""
        return f"http{'s' if self._secure else ''}://127.0.0.1:{self.server_address[1]}"

    def get_request(self) -> tuple[socket.socket, object]:
        """As the base has it, under TLS when there is a certificate."""
        made, address = super().get_request()
        if self._secure is None:
            return made, address
        try:
            return self._secure.wrap_socket(made, server_side=True), address
        except OSError:
            made.close()
            raise

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
