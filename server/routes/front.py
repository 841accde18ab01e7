"""What every request passes before Flask sees it: an id, the rate limits, and a stop-watch.

It is WSGI, not Flask's hooks, because it must see all of a request's time and every answer, and cost next to nothing.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from server.counters import IN_PROGRESS, REFUSED, REQUESTS, SECONDS, Counters
from server.logs import FIELDS, REQUEST_ID, Spacing
from server.settings import Settings
from server.turns import Turns

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)

#: Ids of requests that are taken from the caller; another one is replaced, since it goes into logs and headers.
_GOOD_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}\Z")
#: What is asked too often to be limited: whoever watches over us must not be turned away.
_UNLIMITED = frozenset({"/healthz", "/readyz", "/metrics"})
#: Callers whose buckets are kept in memory; beyond that the one that was silent for longest starts anew.
_MOST_CALLERS = 10_000

#: Bytes of a body that is read before it is the request's turn.
_SMALL = 65536

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class TokenBuckets:
    """A rate limit for each caller: a bucket that fills with time, and from which every request takes one.

    Threads may share it. Each web worker has its own.
    """

    def __init__(self, rate: int, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        """All buckets are full.

        Args:
            rate: requests a second; 0 for no limit.
            burst: s; for so long a caller may save up what it did not use.
        """
        self._rate = rate
        self._size = float(max(1, rate * max(1, burst)))
        self._clock = clock
        self._lock = threading.Lock()
        self._levels: dict[int | str, tuple[float, float]] = {}

    def wait(self, caller: int | str) -> float:
        """How long a caller has to wait, in s; 0 means that the request is admitted and counted."""
        if not self._rate:
            return 0.0
        now = self._clock()
        with self._lock:
            level, before = self._levels.pop(caller, (self._size, now))
            level = min(self._size, level + (now - before) * self._rate)
            wait = 0.0 if level >= 1 else (1 - level) / self._rate
            self._levels[caller] = (level if wait else level - 1, now)  # at the end again: the first is the idlest
            if len(self._levels) > _MOST_CALLERS:
                del self._levels[next(iter(self._levels))]
        return wait


class Front:
    """The application with what belongs to all requests around it."""

    def __init__(
        self,
        application: WSGIApplication,
        settings: Settings,
        counters: Counters,
        paths: dict[str, tuple[str, str]],
        turns: Turns | None = None,
    ) -> None:
        """Wrap an application.

        Args:
            paths: path -> (API, method) of everything that is counted by its name.
            turns: None: requests do not wait for each other.
        """
        self._application = application
        self._counters = counters
        self._paths = paths
        self._turns = turns
        self._by_token = TokenBuckets(settings.token_rate, settings.rate_burst)
        self._by_address = TokenBuckets(settings.address_rate, settings.rate_burst)
        self._limited = bool(settings.token_rate or settings.address_rate)
        self._slow = settings.slow_request / 1000 if settings.slow_request else float("inf")
        self._access_log = bool(settings.access_log)
        self._spacing = Spacing()
        self._prefix = uuid.uuid4().hex[:12]
        self._numbers = itertools.count(1)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        began = time.perf_counter()
        request_id = environ.get("HTTP_X_REQUEST_ID", "")
        if not _GOOD_ID.match(request_id):
            request_id = f"{self._prefix}-{next(self._numbers):x}"
        REQUEST_ID.set(request_id)
        status = "500"

        def start(
            line: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None
        ) -> Callable[[bytes], object]:
            nonlocal status
            status = line[:3]
            headers.append(("X-Request-Id", request_id))
            return start_response(line, headers, exc_info)

        self._counters.add(IN_PROGRESS)
        try:
            wait = self._wait(environ) if self._limited else 0.0
            if wait:
                return self._refuse(environ, start, wait)
            if self._turns is None:
                return self._application(environ, start)
            _read_ahead(environ)
            with self._turns.turn():
                return self._application(environ, start)
        finally:
            self._counters.add(IN_PROGRESS, by=-1.0)
            self._note(environ, status, time.perf_counter() - began)
            REQUEST_ID.set("")

    def _wait(self, environ: WSGIEnvironment) -> float:
        """How long the caller has to wait, in s; 0 if the request is admitted."""
        if environ["PATH_INFO"] in _UNLIMITED:
            return 0.0
        wait = self._by_address.wait(environ.get("REMOTE_ADDR", ""))
        token = environ.get("HTTP_AUTHORIZATION", "")
        # By its hash: a token is kept nowhere.
        return wait or (self._by_token.wait(hash(token)) if token else 0.0)

    def _refuse(self, environ: WSGIEnvironment, start: StartResponse, wait: float) -> Iterable[bytes]:
        self._counters.add(REFUSED, "rate")
        seconds = int(wait) + 1
        text = f"too many requests from here; try again in {seconds} s"
        if environ["PATH_INFO"].startswith("/api/"):
            content = {"success": False, "message": text, "data": None, "request_id": REQUEST_ID.get()}
            kind, body = "application/json", json.dumps(content)
        else:
            kind, body = "text/plain; charset=utf-8", f"ERROR : {text}\n"
        start("429 Too Many Requests", [("Content-Type", kind), ("Retry-After", str(seconds))])
        return [body.encode()]

    def _note(self, environ: WSGIEnvironment, status: str, seconds: float) -> None:
        """Count a request, and log it if it was slow or all are logged."""
        path = environ["PATH_INFO"]
        api, method = self._paths.get(path) or _other(path)
        self._counters.add(REQUESTS, api, method, status)
        self._counters.observe(SECONDS, api, method, value=seconds)
        if self._access_log:
            self._log(logging.INFO, "%s %s %s %.0f ms", environ, status, seconds)
        elif seconds > self._slow and (number := self._spacing.allows()):
            more = f" (one of {number} slow requests)" if number > 1 else ""
            self._log(logging.WARNING, f"slow: %s %s %s %.0f ms{more}", environ, status, seconds)

    def _log(self, level: int, text: str, environ: WSGIEnvironment, status: str, seconds: float) -> None:
        """The path alone: a query may have anything in it."""
        verb, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        fields = {
            "method": verb,
            "path": path,
            "status": int(status),
            "milliseconds": round(seconds * 1000, 1),
            "address": environ.get("REMOTE_ADDR", ""),
        }
        logger.log(level, text, verb, ascii(path)[1:-1], status, seconds * 1000, extra={FIELDS: fields})


def _read_ahead(asked: WSGIEnvironment) -> None:
    """Have a small body in memory: nobody else has to wait for a client that sends slowly."""
    length = asked.get("CONTENT_LENGTH", "")
    if length.isascii() and length.isdigit() and len(length) <= len(str(_SMALL)) and 0 < int(length) <= _SMALL:
        asked["wsgi.input"] = io.BytesIO(asked["wsgi.input"].read(int(length)))


def _other(path: str) -> tuple[str, str]:
    """The names of what has many paths, or none."""
    for folder in ("cache", "trf"):
        if path.startswith(f"/{folder}/"):
            return "files", folder
    return "none", "none"
