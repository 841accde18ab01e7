"""An information service on loopback: it answers as CRIC does, and as badly as tests want."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

# s between two bytes of an answer that comes slowly.
DRIP = 0.05


@dataclass
class Page:
    """What a path answers.

    Attributes:
        content: text, or what becomes JSON.
        etag, modified: headers with which only something new is asked for; empty: none.
        status: HTTP status.
        cut: bytes that are missing at the end of the body.
        slow: the body comes byte by byte.
    """

    content: object
    etag: str = ""
    modified: str = ""
    status: int = 200
    cut: int = 0
    slow: bool = False

    def body(self) -> bytes:
        text = self.content if isinstance(self.content, str) else json.dumps(self.content)
        return text.encode()


@dataclass
class Cric:
    """A running service.

    Attributes:
        url: http://127.0.0.1:PORT.
        pages: by path; others are 404.
        asked: (path, status given) of every request.
    """

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    cric: Cric


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        cric = self.server.cric
        path = urlsplit(self.path).path
        page = cric.pages.get(path, Page("no such page", status=404))
        same = (page.etag and self.headers["If-None-Match"] == page.etag) or (
            page.modified and self.headers["If-Modified-Since"] == page.modified
        )
        status = 304 if same else page.status
        cric.asked.append((path, status))
        body = b"" if same else page.body()
        self.send_response(status)
        if page.etag:
            self.send_header("ETag", page.etag)
        if page.modified:
            self.send_header("Last-Modified", page.modified)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not page.slow:
            self.wfile.write(body[: len(body) - page.cut])
            return
        try:
            for place in range(len(body)):
                self.wfile.write(body[place : place + 1])
                if cric.over.wait(DRIP):
                    return
        except OSError:
            pass  # the client has had enough

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def running_cric(certificate: tuple[Path, Path] | None = None) -> Iterator[Cric]:
    """A service for the time of a block. certificate: it and its key, for https."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.cric = Cric(f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.cric
        finally:
            server.cric.over.set()
            server.shutdown()
            thread.join()
