"""A load of HTTP requests on a server of this machine: one thread, raw sockets, what an answer needs and no more.

A client is a socket with one request under way at a time; the next one is sent when the answer is there.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: s an answer may take; longer means that the server is not there any more.
_PATIENCE = 30.0
#: s at the beginning that do not count: connections are made, caches and threads of the server too.
_WARMING = 1.0
_READ = 65536
_END_OF_HEADERS = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass(frozen=True)
class Measured:
    """What a load came to.

    Attributes:
        rate: answers a second.
        latencies: s from sending (with a new connection: from connecting) to the whole answer, sorted.
        own: CPU of the load itself, as a share of a core.
        answers: how many there were in all, with those that do not count.
    """

    rate: float
    latencies: list[float]
    own: float
    answers: int

    def percentile(self, share: float) -> float:
        """The latency in s that this share of the requests did not exceed."""
        return self.latencies[min(int(len(self.latencies) * share), len(self.latencies) - 1)]


@dataclass
class _Client:
    connection: socket.socket | None = None
    begun: float = 0.0
    received: bytearray = field(default_factory=bytearray)
    length: int = -1  # of the whole answer, in bytes; -1 while its headers are not complete


class Load:
    """Clients that ask the same server."""

    def __init__(self, port: int, clients: int, *, kept_alive: bool) -> None:
        """kept_alive: each client keeps its connection; else each request has a new one, as existing pilots do."""
        self._address = ("127.0.0.1", port)
        self._clients = [_Client() for _ in range(clients)]
        self._kept_alive = kept_alive
        self._selector = selectors.DefaultSelector()

    def run(self, seconds: float, request: Callable[[], bytes], check: Callable[[bytes], None]) -> Measured:
        """Ask for some seconds.

        Args:
            request: gives the next request, with its headers; those must say `Connection: close` for a load that keeps
                no connections alive.
            check: is given the body of each answer and raises if it is not what it must be.
        """
        latencies: list[float] = []
        try:
            for client in self._clients:
                self._send(client, request())
            start = time.perf_counter() + _WARMING
            end = start + seconds
            own, answers = 0.0, 0
            while (now := time.perf_counter()) < end:
                if now < start:
                    own = time.thread_time()
                for client, body in self._answered():
                    if (took := time.perf_counter()) >= start:
                        latencies.append(took - client.begun)
                    check(body)
                    answers += 1
                    self._send(client, request())
            own = time.thread_time() - own
        finally:
            self._close()
        assert latencies, "no answer in time"
        return Measured(len(latencies) / seconds, sorted(latencies), own / seconds, answers)

    def _answered(self) -> list[tuple[_Client, bytes]]:
        """The clients whose answer is complete, with its body."""
        ready = self._selector.select(_PATIENCE)
        assert ready, f"no answer within {_PATIENCE:.0f} s"
        found = []
        for key, _ in ready:
            client: _Client = key.data
            body = self._receive(client)
            if body is not None:
                found.append((client, body))
        return found

    def _receive(self, client: _Client) -> bytes | None:
        assert client.connection is not None
        data = client.connection.recv(_READ)
        assert data, f"the server closed a connection in the middle: {bytes(client.received[:200])!r}"
        client.received += data
        if client.length < 0:
            head = client.received.find(_END_OF_HEADERS)
            if head < 0:
                return None
            headers = bytes(client.received[:head])
            assert headers.startswith(b"HTTP/1.1 200"), headers
            begin = headers.lower().index(_LENGTH) + len(_LENGTH)
            client.length = head + len(_END_OF_HEADERS) + int(headers[begin:].split(b"\r\n", 1)[0])
        if len(client.received) < client.length:
            return None
        body = bytes(client.received[client.received.index(_END_OF_HEADERS) + len(_END_OF_HEADERS) :])
        if not self._kept_alive:
            self._selector.unregister(client.connection)
            client.connection.close()
            client.connection = None
        return body

    def _send(self, client: _Client, request: bytes) -> None:
        client.received.clear()
        client.length = -1
        client.begun = time.perf_counter()
        if client.connection is None:
            client.connection = socket.create_connection(self._address, _PATIENCE)
            client.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(client.connection, selectors.EVENT_READ, client)
        client.connection.sendall(request)

    def _close(self) -> None:
        for client in self._clients:
            if client.connection is not None:
                client.connection.close()
        self._selector.close()
