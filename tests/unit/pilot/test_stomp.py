"""The STOMP client: frames however they arrive, a broker that is none, heart-beats, and what it will not take."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Callable

import pytest
from hypothesis import given, strategies

from pilot.util.stomp import Broker, Connection, Frame, Parser, StompError

SOON = 30.0
CONNECTED = b"CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0"
TEXT = strategies.text(strategies.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=8)


@given(
    strategies.dictionaries(TEXT.filter(bool), TEXT, max_size=4),
    strategies.binary(max_size=30),
    strategies.integers(1, 7),
)
def test_a_frame_arrives_as_it_was_sent_in_pieces_of_any_size(headers: dict[str, str], body: bytes, size: int) -> None:
    headers.pop("content-length", None)
    sent = b"\n\r\n" + Frame("MESSAGE", headers, body).encode() + b"\n" + Frame("RECEIPT", {"receipt-id": "1"}).encode()
    parser = Parser()
    found = [frame for at in range(0, len(sent), size) for frame in parser.feed(sent[at : at + size])]
    assert [frame.command for frame in found] == ["MESSAGE", "RECEIPT"]
    length = {"content-length": str(len(body))} if body else {}
    assert (found[0].headers, found[0].body) == ({**headers, **length}, body)


def test_lines_may_end_as_on_windows_and_the_first_of_two_headers_counts() -> None:
    (frame,) = Parser().feed(b"MESSAGE\r\na:1\r\na:2\r\n\r\nbody\0")
    assert (frame.headers, frame.body) == ({"a": "1"}, b"body")


@pytest.mark.parametrize(
    "data",
    [
        b"MESSAGE\ncontent-length:-1\n\n\0",
        b"MESSAGE\ncontent-length:99999999999\n\n\0",
        b"MESSAGE\ncontent-length:" + b"9" * 5000 + b"\n\n\0",
        b"MESSAGE\ncontent-length:x\n\n\0",
        b"MESSAGE\ncontent-length:1\n\nabc\0",
        b"MESSAGE\na:\\t\n\n\0",
        b"MESSAGE\na:\\\n\n\0",
        b"\xff\xfe:\n\n\0",
        b"x" * 70000,
        b"MESSAGE\n\n" + b"x" * 5_000_000,
    ],
)
def test_what_is_no_frame_is_refused_before_it_fills_the_memory(data: bytes) -> None:
    with pytest.raises(StompError):
        Parser().feed(data)


@given(strategies.binary(max_size=80))
def test_no_bytes_make_anything_but_frames_or_the_one_error(data: bytes) -> None:
    with suppress(StompError):
        Parser().feed(b"MESSAGE\n" + data)


Script = Callable[[socket.socket], None]


class Peer:
    """A broker of one connection that does what a test says."""

    def __init__(self, script: Script) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._script = script
        self.heard = bytearray()
        self.thread = threading.Thread(target=self._serve, name="peer")
        self.thread.start()

    def broker(self, **changes: object) -> Broker:
        port = self._server.getsockname()[1]
        return Broker("127.0.0.1", port, **{"timeout": SOON, **changes})  # type: ignore[arg-type]

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection:
            connection.settimeout(SOON)
            self._script(connection)

    def hear(self, connection: socket.socket, end: bytes = b"\0") -> None:
        """Read until something has come."""
        while end not in self.heard:
            self.heard += connection.recv(4096) or end

    def close(self) -> None:
        self.thread.join(SOON)
        self._server.close()


@pytest.fixture
def peer() -> Iterator[Callable[[Script], Peer]]:
    peers: list[Peer] = []

    def made(script: Script) -> Peer:
        peers.append(Peer(script))
        return peers[-1]

    yield made
    for one in peers:
        one.close()


Peers = Callable[[Script], Peer]


def test_heart_beats_go_both_ways_and_a_silent_broker_is_given_up(peer: Peers) -> None:
    over = threading.Event()

    def script(connection: socket.socket) -> None:
        made.hear(connection)
        connection.sendall(CONNECTED.replace(b"0,0", b"50,50"))
        made.hear(connection, b"\0\n\n")
        over.wait(SOON)

    made = peer(script)
    connection = Connection(made.broker(heartbeat=0.05))
    try:
        with pytest.raises(StompError, match="silent"):
            connection.receive(SOON)
    finally:
        over.set()
        connection.close()


def test_a_receipt_is_waited_for_and_what_comes_before_it_is_kept(peer: Peers) -> None:
    def script(connection: socket.socket) -> None:
        made.hear(connection)
        connection.sendall(CONNECTED)
        made.hear(connection, b"receipt:r1")
        connection.sendall(b"MESSAGE\nn:1\n\n\0\nMESSAGE\nn:2\n\n\0RECEIPT\nreceipt-id:r1\n\n\0MESSAGE\nn:3\n\n\0")

    made = peer(script)
    connection = Connection(made.broker())
    connection.send_with_receipt("SEND", {"destination": "/queue/a:b\n"}, b"x")
    numbers = [connection.receive(SOON) for _ in range(3)]
    assert [frame.headers["n"] for frame in numbers if frame is not None] == ["1", "2", "3"]
    assert b"destination:/queue/a\\cb\\n\n" in made.heard
    connection.close()


def test_a_frame_that_is_not_confirmed_is_an_error_in_time(peer: Peers) -> None:
    over = threading.Event()

    def script(connection: socket.socket) -> None:
        made.hear(connection)
        connection.sendall(CONNECTED)
        over.wait(SOON)

    made = peer(script)
    connection = Connection(made.broker())
    connection._timeout = 0.1  # only now: the login may take longer
    with pytest.raises(StompError, match="not confirmed"):
        connection.send_with_receipt("SEND", {}, b"x")
    over.set()
    connection.close()


def test_another_thread_wakes_the_one_that_waits(peer: Peers) -> None:
    over = threading.Event()

    def script(connection: socket.socket) -> None:
        made.hear(connection)
        connection.sendall(CONNECTED)
        over.wait(SOON)

    made = peer(script)
    connection = Connection(made.broker())
    waker = threading.Timer(0.05, connection.wake)
    waker.start()
    begun = time.monotonic()
    assert connection.receive(SOON) is None and time.monotonic() - begun < SOON / 2
    waker.join()
    over.set()
    connection.close()
    connection.wake()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 400 Bad\r\n\r\n\0", "no STOMP broker"),
        (b"ERROR\nmessage:not you\x07\n\n\0", "says: not you"),
        (b"ERROR\n\nlong story\0", "says: long story"),
        (b"RECEIPT\n\n\0", "no STOMP broker's way"),
        (b"CONNECTED\nversion:1.1\n\n\0", "does not speak STOMP 1.2"),
        (b"CONNECTED\nversion:1.2\nheart-beat:x\n\n\0", "heart-beat"),
    ],
)
def test_a_login_that_fails_says_why_and_leaves_no_password(peer: Peers, answer: bytes, words: str) -> None:
    def script(connection: socket.socket) -> None:
        made.hear(connection)
        connection.sendall(answer)

    made = peer(script)
    broker = made.broker(login="me", passcode="canary:x")
    with pytest.raises(StompError, match=words) as raised:
        Connection(broker)
    assert "canary" not in str(raised.value) and "canary" not in repr(broker)
    assert b"passcode:canary:x\n" in made.heard, "CONNECT is not escaped (specification)"


def test_a_broker_that_is_not_there_is_an_error(port_of_nobody: int) -> None:
    with pytest.raises(StompError, match=f"stomp://127.0.0.1:{port_of_nobody} does not answer: "):
        Connection(Broker("127.0.0.1", port_of_nobody))


def test_a_line_end_in_a_password_adds_no_header(peer: Peers) -> None:
    made = peer(lambda connection: None)
    with pytest.raises(StompError, match="line end"):
        Connection(made.broker(login="me", passcode="x\nhost:other"))
