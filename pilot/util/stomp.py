"""A small STOMP 1.2 client (https://stomp.github.io/stomp-specification-1.2.html) on a socket, with or without TLS.

One connection, used by one thread; `wake` alone may be called by others. All that can go wrong is a StompError: then
the connection is of no use any more, and its owner makes another one after a pause.
"""

from __future__ import annotations

import itertools
import os
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

# Largest head and body of a frame that is read (bytes): messages are orders of a few hundred bytes.
_HEAD_LIMIT = 65536
_BODY_LIMIT = 4 * 1024 * 1024
_CHUNK = 65536
# A broker is given up when nothing has come for so many of its heart-beats: one may be late on a busy machine.
_MISSED = 2.5
# A broker that does not answer holds nobody up who wants to leave (s).
_FAREWELL = 2.0
# How headers are written (specification, "Value Encoding"); those of CONNECT and CONNECTED are not.
_ESCAPES = {"\\": "\\\\", "\r": "\\r", "\n": "\\n", ":": "\\c"}
_UNESCAPES = {"\\": "\\", "r": "\r", "n": "\n", "c": ":"}
_PLAIN = ("CONNECT", "CONNECTED")


class StompError(Exception):
    """The broker is not there, has closed the connection, or has answered with an error."""


@dataclass(frozen=True)
class Frame:
    """One frame."""

    command: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def encode(self) -> bytes:
        """The frame as it travels, with content-length."""
        escape = self.command not in _PLAIN
        headers = {**self.headers, "content-length": str(len(self.body))} if self.body else self.headers
        lines = [self.command, *(f"{_escaped(k, escape)}:{_escaped(v, escape)}" for k, v in headers.items())]
        return "\n".join(lines).encode() + b"\n\n" + self.body + b"\0"


def _escaped(text: str, escape: bool) -> str:
    if escape:
        return "".join(_ESCAPES.get(sign, sign) for sign in text)
    if any(sign in text for sign in "\r\n\0"):
        raise StompError("a name or password for the broker has a line end in it")
    return text


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    signs = iter(text)
    try:
        return "".join(_UNESCAPES[next(signs, "")] if sign == "\\" else sign for sign in signs)
    except KeyError:
        raise StompError("the broker has sent a header that cannot be read") from None


class Parser:
    """Frames out of bytes as they arrive. Raises StompError for what is none, and for what is too large."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with these bytes. Line ends between frames, which are heart-beats, are none."""
        self._buffer += data
        frames: list[Frame] = []
        while True:
            frame = self._next()
            if frame is None:
                return frames
            frames.append(frame)

    def _next(self) -> Frame | None:
        buffer = self._buffer
        begin = next((index for index, sign in enumerate(buffer) if sign not in b"\r\n"), len(buffer))
        del buffer[:begin]
        end, gap = _end_of_head(buffer)
        if end < 0:
            if len(buffer) > _HEAD_LIMIT:
                raise StompError("what answers is no STOMP broker: a frame has no end of its headers")
            return None
        command, headers = _read_head(bytes(buffer[:end]))
        start = end + gap
        length = headers.get("content-length")
        if length is None:
            stop = buffer.find(b"\0", start)
            if stop < 0 and len(buffer) - start > _BODY_LIMIT:
                raise StompError(f"the broker has sent a frame of more than {_BODY_LIMIT} bytes")
        else:
            # Python refuses to read a number of thousands of digits.
            is_number = length.isascii() and length.isdigit() and len(length) <= len(str(_BODY_LIMIT))
            if not is_number or int(length) > _BODY_LIMIT:
                raise StompError(f"the broker has sent a frame of {length[:20]} bytes, more than {_BODY_LIMIT}")
            stop = start + int(length)
        if stop < 0 or len(buffer) <= stop:
            return None
        if buffer[stop] != 0:
            raise StompError("the broker has sent a frame whose end is not where its length says")
        body = bytes(buffer[start:stop])
        del buffer[: stop + 1]
        return Frame(command, headers, body)


def _end_of_head(buffer: bytearray) -> tuple[int, int]:
    """Where the headers end, and the length of the empty line behind them; -1 when it has not come yet."""
    ends = [(buffer.find(sign, 0, _HEAD_LIMIT), len(sign)) for sign in (b"\n\n", b"\n\r\n")]
    return min((end for end in ends if end[0] >= 0), default=(-1, 0))


def _read_head(head: bytes) -> tuple[str, dict[str, str]]:
    try:
        command, *lines = [line.rstrip("\r") for line in head.decode().split("\n")]
    except UnicodeDecodeError:
        raise StompError("what answers is no STOMP broker: its headers are no text") from None
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise StompError("what answers is no STOMP broker: a header has no colon")
        if command not in _PLAIN:
            name, value = _unescaped(name), _unescaped(value)
        headers.setdefault(name, value)  # the first of several counts
    return command, headers


@dataclass(frozen=True)
class Broker:
    """Where a broker is and how to log in. tls: with ca (file or directory; empty: the system's) and perhaps a
    certificate (file with its key, or key in a file of its own). heartbeat: seconds, 0 for none.
    """

    host: str
    port: int
    tls: bool = False
    ca: str = ""
    certificate: str = ""
    key: str = ""
    vhost: str = "/"
    login: str = ""
    passcode: str = field(default="", repr=False)
    heartbeat: float = 0.0
    timeout: float = 10.0

    def __str__(self) -> str:
        return f"stomp{'+ssl' if self.tls else ''}://{self.host}:{self.port}"


class Connection:
    """A connection to a broker, logged in."""

    def __init__(self, broker: Broker) -> None:
        """Raises StompError."""
        self._where = str(broker)
        self._parser = Parser()
        self._frames: deque[Frame] = deque()
        self._numbers = itertools.count(1)
        self._timeout = broker.timeout
        self._send_every = self._expect_every = 0.0
        self._sent = self._heard = time.monotonic()
        self._socket = _connect(broker)
        # No pipe: a socket that was closed by one thread is known as closed to another.
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_write.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        try:
            self._log_in(broker)
        except StompError:
            self.close()
            raise

    def send(self, command: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send a frame. Raises StompError."""
        self._write(Frame(command, headers, body).encode())

    def send_with_receipt(self, command: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send a frame and wait until the broker has dealt with it. Raises StompError, also when it has refused it."""
        receipt = f"r{next(self._numbers)}"
        self.send(command, {**headers, "receipt": receipt}, body)
        deadline = time.monotonic() + self._timeout
        kept: list[Frame] = []
        while True:
            frame = self.receive(deadline - time.monotonic())
            if frame is None and time.monotonic() >= deadline:
                raise StompError(f"{self._where} has not confirmed a frame within {self._timeout:g} s")
            if frame is not None and (frame.command, frame.headers.get("receipt-id")) == ("RECEIPT", receipt):
                self._frames.extendleft(reversed(kept))
                return
            if frame is not None:
                kept.append(frame)

    def receive(self, timeout: float) -> Frame | None:
        """The next frame, or None after `timeout` seconds or a call of `wake`; heart-beats are sent meanwhile.

        Raises StompError, also for an ERROR of the broker, which closes the connection.
        """
        deadline = time.monotonic() + timeout
        woken = False
        while not self._frames:
            wait = deadline - time.monotonic()
            if woken or (wait <= 0 and not self._is_readable(0.0)):
                return None
            woken = self._wait(max(wait, 0.0))
        frame = self._frames.popleft()
        if frame.command == "ERROR":
            text = frame.headers.get("message") or frame.body[:200].decode("utf-8", "replace")
            raise StompError(f"{self._where} says: {_shown(text)}")
        return frame

    def wake(self) -> None:
        """Let a `receive` that waits in another thread return."""
        with suppress(OSError):
            self._wake_write.send(b"x")

    def close(self, *, farewell: bool = False) -> None:
        """Close the connection. farewell: let the broker confirm first that it has dealt with all frames."""
        if farewell:
            self._timeout = min(self._timeout, _FAREWELL)
            with suppress(StompError):
                self.send_with_receipt("DISCONNECT", {})
        self._selector.close()
        for one in (self._socket, self._wake_read, self._wake_write):
            one.close()

    def _log_in(self, broker: Broker) -> None:
        beat = round(broker.heartbeat * 1000)
        headers = {"accept-version": "1.2", "host": broker.vhost, "heart-beat": f"{beat},{beat}"}
        if broker.login:
            headers.update({"login": broker.login, "passcode": broker.passcode})
        self._write(Frame("CONNECT", headers).encode())
        frame = self.receive(self._timeout)
        if frame is None:
            raise StompError(f"{self._where} does not answer within {self._timeout:g} s")
        if frame.command != "CONNECTED":
            raise StompError(f"{self._where} answers with {_shown(frame.command)}, which is no STOMP broker's way")
        if frame.headers.get("version") != "1.2":
            raise StompError(f"{self._where} does not speak STOMP 1.2")
        sends, wants = _beats(frame.headers.get("heart-beat", "0,0"))
        if beat:
            self._expect_every = max(sends, broker.heartbeat) if sends else 0.0
            self._send_every = max(wants, broker.heartbeat) if wants else 0.0

    def _is_readable(self, timeout: float) -> bool:
        return bool(self._pending() or self._selector.select(timeout))

    def _pending(self) -> int:
        """Bytes that TLS has already read from the socket."""
        return self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0

    def _wait(self, timeout: float) -> bool:
        """Wait for bytes, a call of `wake` or the next heart-beat; whether it was `wake`."""
        now = time.monotonic()
        due = [now + timeout]
        if self._send_every:
            due.append(self._sent + self._send_every)
        if self._expect_every:
            due.append(self._heard + self._expect_every * _MISSED)
        ready = [] if self._pending() else self._selector.select(max(0.0, min(due) - now))
        woken = any(key.fileobj is self._wake_read for key, _ in ready)
        if woken:
            self._wake_read.recv(_CHUNK)
        if self._pending() or any(key.fileobj is self._socket for key, _ in ready):
            self._read()
        now = time.monotonic()
        if self._expect_every and now - self._heard >= self._expect_every * _MISSED:
            raise StompError(f"{self._where} has been silent for {now - self._heard:.0f} s")
        if self._send_every and now - self._sent >= self._send_every:
            self._write(b"\n")
        return woken

    def _read(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except (ssl.SSLWantReadError, InterruptedError):
            return
        except OSError as exc:
            raise StompError(f"{self._where}: the connection broke: {exc.strerror or exc}") from exc
        if not data:
            raise StompError(f"{self._where} has closed the connection")
        self._heard = time.monotonic()
        self._frames.extend(self._parser.feed(data))

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as exc:
            raise StompError(f"{self._where}: the connection broke: {exc.strerror or exc}") from exc
        self._sent = time.monotonic()


def _connect(broker: Broker) -> socket.socket:
    try:
        made = socket.create_connection((broker.host, broker.port), timeout=broker.timeout)
    except OSError as exc:
        raise StompError(f"{broker} does not answer: {exc.strerror or exc}") from exc
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return _tls(broker).wrap_socket(made, server_hostname=broker.host) if broker.tls else made
    except (OSError, ValueError) as exc:
        made.close()
        raise StompError(f"{broker}: no secure connection: {exc}") from exc


def _tls(broker: Broker) -> ssl.SSLContext:
    """Verified always. Raises OSError when a file cannot be read."""
    folder = os.path.isdir(broker.ca)
    context = ssl.create_default_context(
        cafile=broker.ca if broker.ca and not folder else None, capath=broker.ca if folder else None
    )
    if broker.certificate:
        context.load_cert_chain(broker.certificate, broker.key or None)
    return context


def _beats(text: str) -> tuple[float, float]:
    """What a broker offers and wants (s): how often it sends, and how often it wants to hear something."""
    try:
        sends, wants = (max(int(part), 0) / 1000 for part in text.split(","))
    except ValueError:
        raise StompError("the broker's heart-beat header cannot be read") from None
    return sends, wants


def _shown(text: str) -> str:
    """A broker's text for a log: one line, not too long."""
    return "".join(sign if sign.isprintable() else " " for sign in text[:200]).strip()
