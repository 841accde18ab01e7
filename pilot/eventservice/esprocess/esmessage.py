"""Messages between a payload of the event service and whoever feeds it, and the socket that they travel on.

A message is a line of UTF-8 text. The payload says `Ready for events` and is answered with a JSON list of one event
range, or with `No more events`. It says `PATH,RANGE_ID,CPU:SECONDS,WALL:SECONDS` of a range that is done (several paths
may stand before the range), and `ERR_WORD RANGE_ID: text` of one that is not; ERR_…FATAL… means that no other attempt
would go better.

The socket is a Unix domain socket in the job's directory, because every node and every language has it, any of the
payload's processes can connect to it, and it works across the border of a container that sees the directory.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import selectors
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable, TypedDict

from pilot.common.exception import ESRecoverable, MessageFailure, PilotException
from pilot.util.https import Json
from pilot.util.parallel import Left, leave_when

READY, NO_MORE = "Ready for events", "No more events"
# What a range's report says of it.
FINISHED, FAILED, FATAL = "finished", "failed", "fatal"
# Name of the socket in the job's directory, and the variable in which a payload finds its path.
SOCKET, CHANNEL_VARIABLE = "pilot_events.sock", "PILOT_EVENTRANGECHANNEL"

# Longest path of a Unix socket that Linux takes (bytes, with its end).
_PATH_LIMIT = 108
# Longest message (bytes): some paths and a sentence. What is longer is no message, and its sender is not listened to.
_MESSAGE_LIMIT = 65536
# A payload that does not read its answer for so long (s) is not listened to any more.
_SEND_LIMIT = 10.0
# More connections than processes of a large node are a mistake in the payload. Each is a descriptor, of which the pilot
# needs its half: without any it could neither write nor talk to anybody, and those of guards must be below 1024, which
# is all that select(2) knows.
_CONNECTIONS = 512
# So many complaints about a payload's messages are logged: what it says must not fill the pilot's log.
_COMPLAINTS = 100
# Time between two questions for ranges while their source does not answer (s), outside of the pilot.
RETRY_DELAY = 10.0

_RANGE_ID = r"[A-Za-z0-9_.-]{1,128}"
_ERROR = re.compile(rf"(ERR_\w*)\s+({_RANGE_ID})\s*:\s*(.*)", re.ASCII | re.DOTALL)
_FIGURE = re.compile(r"(CPU|WALL)\s*:\s*([0-9]{1,12}(?:\.[0-9]{0,9})?)\Z", re.ASCII)


class OutMessage(TypedDict):
    """What a payload says of one range: id, status (finished, failed or fatal), output (paths), cpu and wall (s).

    message: its own words about a failure.
    """

    id: str
    status: str
    output: list[str]
    cpu: float
    wall: float
    message: str


def parse_out_message(text: str) -> OutMessage:
    """What a message of a payload means. Raises MessageFailure when it is none."""
    error = _ERROR.match(text)
    if error is not None:
        word, range_id, said = error.groups()
        status = FATAL if "FATAL" in word else FAILED
        return OutMessage(id=range_id, status=status, output=[], cpu=0.0, wall=0.0, message=f"{word}: {said.strip()}")
    parts = [part.strip() for part in text.split(",")]
    figures = {"CPU": 0.0, "WALL": 0.0}
    while parts and (figure := _FIGURE.match(parts[-1])):
        figures[figure.group(1)] = float(figure.group(2))
        parts.pop()
    if len(parts) < 2 or not all(parts) or not re.fullmatch(_RANGE_ID, parts[-1]):
        raise MessageFailure(f"the payload's message is none that is known: {text[:200]!r}")
    *paths, range_id = parts
    return OutMessage(id=range_id, status=FINISHED, output=paths, cpu=figures["CPU"], wall=figures["WALL"], message="")


class MessageServer:
    """Serves a payload's messages in a thread of its own, from `start` to `close`.

    directory: where the socket is made. get_ranges: gives the next ranges, at most as many as it is told; take: gets
    what the payload says (see ESHook for both). retry_delay: seconds between two questions while the source is silent.
    """

    def __init__(
        self,
        directory: Path,
        get_ranges: Callable[[int], list[dict[str, Json]]],
        take: Callable[[OutMessage], None],
        log: logging.Logger,
        retry_delay: float = RETRY_DELAY,
    ) -> None:
        self._path = directory / SOCKET
        self._get_ranges = get_ranges
        self._take = take
        self._log = log
        self._retry_delay = retry_delay
        self._closing = threading.Event()
        self._most = min(_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._selector = selectors.DefaultSelector()
        self._buffers: dict[socket.socket, bytes] = {}
        self._waiting: list[socket.socket] = []
        self._next_try = 0.0
        self._complaints = 0
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="events", daemon=True)

    def start(self) -> str:
        """Make the socket and serve it. Returns its path for the payload, which may be relative to the directory.

        Raises OSError.
        """
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(FileNotFoundError):
                self._path.unlink()
            # The directory's own path may be longer than what a socket's may be.
            self._listening.bind(f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.close(folder)
        self._listening.listen(128)
        self._listening.setblocking(False)
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._thread.start()
        return str(self._path) if len(os.fsencode(self._path)) < _PATH_LIMIT else SOCKET

    def close(self) -> None:
        """After the payload's end: take what it has said last, and end. May be called again."""
        if self._wake_write < 0:
            return
        self._closing.set()
        os.write(self._wake_write, b"x")
        if self._thread.ident is not None:
            self._thread.join()
        for connection in list(self._buffers):
            self._drop(connection)
        self._selector.close()
        self._listening.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._wake_write = -1
        with suppress(OSError):
            self._path.unlink()

    def _serve(self) -> None:
        """Body of the thread. When it is to end, everything that was sent is there to be read: its senders are gone."""
        while True:
            closing = self._closing.is_set()
            ready = self._selector.select(0.0 if closing else self._pause())
            for key, _ in ready:
                if key.fileobj is self._listening:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._read(key.fileobj)
                else:
                    os.read(self._wake_read, 1)
            if closing:
                if not ready:
                    return
            elif self._waiting and time.monotonic() >= self._next_try:
                self._hand_out()

    def _pause(self) -> float | None:
        return max(0.0, self._next_try - time.monotonic()) if self._waiting else None

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except OSError:  # it has gone again
            return
        if len(self._buffers) >= self._most:
            self._complain(f"more than {self._most} connections; one is turned away")
            connection.close()
            return
        connection.settimeout(_SEND_LIMIT)
        self._buffers[connection] = b""
        self._selector.register(connection, selectors.EVENT_READ)

    def _drop(self, connection: socket.socket) -> None:
        if self._buffers.pop(connection, None) is not None:
            self._selector.unregister(connection)
            self._waiting = [other for other in self._waiting if other is not connection]
            connection.close()

    def _read(self, connection: socket.socket) -> None:
        try:
            block = connection.recv(_MESSAGE_LIMIT)
        except OSError:
            block = b""
        *lines, rest = (self._buffers[connection] + block).split(b"\n")
        if not block:
            # Words without an end may have lost a part of it.
            if rest.strip():
                self._complain(f"a message of the payload breaks off: {rest[:200]!r}")
            self._drop(connection)
        elif len(rest) > _MESSAGE_LIMIT:
            self._complain(f"a message of more than {_MESSAGE_LIMIT} bytes; it is cut off")
            self._drop(connection)
        else:
            self._buffers[connection] = rest
        for line in lines:
            self._handle(connection, line.decode("utf-8", "replace").strip())

    def _handle(self, connection: socket.socket, text: str) -> None:
        if text.startswith(READY):
            if connection in self._buffers and not self._closing.is_set():
                self._waiting.append(connection)
            return
        if not text:
            return
        try:
            self._take(parse_out_message(text))
        except PilotException as exc:
            self._complain(exc.diag)

    def _complain(self, text: str) -> None:
        """Say what is wrong with what the payload says, as long as it is not always wrong."""
        self._complaints += 1
        if self._complaints <= _COMPLAINTS:
            last = "; more of this is not told" if self._complaints == _COMPLAINTS else ""
            self._log.warning("event service: %s%s", text, last)

    def _hand_out(self) -> None:
        """Answer those who wait for ranges, as long as there are any or it is known that there are no more."""
        while self._waiting:
            connection = self._waiting.pop(0)
            try:
                ranges = leave_when(self._closing, lambda: self._get_ranges(1), "event ranges")
            except Left:
                return
            except ESRecoverable as exc:
                self._log.warning("event service: %s; asking again in %.0f s", exc.diag, self._retry_delay)
                self._waiting.insert(0, connection)
                self._next_try = time.monotonic() + self._retry_delay
                return
            except PilotException as exc:
                self._log.error("event service: no more event ranges: %s", exc.diag)
                ranges = []
            self._answer(connection, json.dumps(ranges) if ranges else NO_MORE)

    def _answer(self, connection: socket.socket, text: str) -> None:
        if connection not in self._buffers:
            return
        try:
            connection.sendall(text.encode() + b"\n")
        except OSError:
            self._drop(connection)
