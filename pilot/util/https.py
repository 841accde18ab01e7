"""The pilot's one HTTP client: a kept-alive session, limits on every request, errors that say whether to try again."""

from __future__ import annotations

import gzip
import ipaddress
import json
import math
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, TypeVar, Union
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import NewConnectionError

from pilot.common.exception import CommunicationFailure
from pilot.util.lazynames import lazily

if TYPE_CHECKING:
    from pilot.util.requesting import *  # noqa: F403
else:
    __getattr__ = lazily(__name__, "pilot.util.requesting")

Json = Union[None, bool, int, float, str, list["Json"], dict[str, "Json"]]
T = TypeVar("T")

# Answers of these codes come from a server that may be better in a moment; any other code is its considered opinion.
TEMPORARY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
# Codes with which a request is turned away for who sends it, or where to, and not for what is in it.
AT_THE_DOOR = frozenset({401, 403, 404, 407})
# Largest answer that is read (bytes): descriptions of all the storages of a large experiment are a few megabytes.
ANSWER_LIMIT = 64 * 1024 * 1024
_CHUNK = 65536
# Longest Retry-After that is believed (s): a server must not be able to put the pilot to sleep for good.
RETRY_AFTER_LIMIT = 600.0


class RequestFailed(CommunicationFailure):
    """A request was not answered, or not with success.

    temporary: another try may help. sent: the server may have seen the request. status: HTTP code or 0.
    retry_after: the server's own hint in seconds, or None. status_code: the answer's own StatusCode, or None.
    """

    def __init__(
        self,
        text: str,
        *,
        temporary: bool,
        sent: bool = True,
        status: int = 0,
        retry_after: float | None = None,
        status_code: float | None = None,
    ) -> None:
        super().__init__(text)
        self.temporary = temporary
        self.sent = sent
        self.status = status
        self.retry_after = retry_after
        self.status_code = status_code

    @property
    def is_verdict(self) -> bool:
        """Whether the server has judged the request itself.

        If not, the same request may be taken another time, or from a pilot with better credentials.
        """
        judged = self.status == 0 or (400 <= self.status < 500 and self.status not in AT_THE_DOOR)
        return not self.temporary and self.sent and judged


@dataclass(frozen=True)
class Credentials:
    """What the pilot shows to its dispatcher, and how it checks the dispatcher.

    token and origin: bearer token and its `vo.role`; certificate: file with the client certificate and key;
    ca: file or directory of CA certificates, empty for the system's; token_file: where the token was found.
    """

    token: str = ""
    origin: str = ""
    certificate: str = ""
    ca: str = ""
    token_file: str = ""


@dataclass(frozen=True)
class Reply:
    """A successful answer: HTTP code, body, and headers by lower-case name."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Json:
        """The body as JSON. Raises RequestFailed when it is none."""
        try:
            return parse_json(self.body)
        except ValueError as exc:
            shown = self.body[:80].decode("utf-8", "replace")
            raise RequestFailed(f"the server's answer is not JSON: {shown!r}", temporary=True) from exc


def parse_json(text: bytes | str) -> Json:
    """JSON from outside. Raises ValueError, also for a nesting that is deeper than Python can follow."""
    try:
        parsed: Json = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return parsed


@dataclass(frozen=True)
class RetryPolicy:
    """attempts: tries in all; delay: first wait, doubled up to delay_max; patience: give up after it (all s)."""

    attempts: int
    delay: float
    delay_max: float
    patience: float = float("inf")


def wait_before_retry(failures: int, policy: RetryPolicy, hint: float | None, draw: float) -> float:
    """Seconds to wait after the given number of failures (1 or more).

    The wait doubles with each failure; `draw` in [0, 1) spreads it over 75 to 125 % so that pilots that failed
    together do not come back together. A hint of the server is a lower bound.
    """
    wait = min(policy.delay * 2.0 ** min(failures - 1, 30), policy.delay_max) * (0.75 + 0.5 * draw)
    return max(wait, min(hint, RETRY_AFTER_LIMIT)) if hint else wait


def with_retries(call: Callable[[], T], policy: RetryPolicy, stop: threading.Event) -> T:
    """Return what `call` returns, repeating it after temporary failures.

    Raises the last RequestFailed when it is not temporary, when attempts or patience are used up, or when `stop` is
    set.
    """
    deadline = time.monotonic() + policy.patience
    failures = 0
    while True:
        try:
            return call()
        except RequestFailed as exc:
            failures += 1
            wait = wait_before_retry(failures, policy, exc.retry_after, random.random())
            if (
                not exc.temporary
                or failures >= policy.attempts
                or time.monotonic() + wait > deadline
                or stop.wait(wait)
            ):
                raise


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine by its very name."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class HttpClient:
    """Requests with a connect and a total time limit. Safe to use from several threads.

    The environment is not consulted for each request (requests would do so): proxies are read once for the server.
    """

    def __init__(
        self, credentials: Credentials, connect_timeout: float, timeout: float, user_agent: str, server: str
    ) -> None:
        self._credentials = credentials
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._server = urlsplit(server)
        self._session = requests.Session()
        self._session.proxies.update({} if is_loopback(server) else requests.utils.get_environ_proxies(server))
        self._session.trust_env = False
        self._session.headers.update({"User-Agent": user_agent})
        self._session.verify = credentials.ca or True
        if credentials.certificate:
            self._session.cert = credentials.certificate

    def close(self) -> None:
        """Close the kept-alive connections."""
        self._session.close()

    def use(self, token: str) -> None:
        """Show this token from the next request on, and the certificate that is in its file now.

        A kept-alive connection was opened with the certificate of its time: idle ones are closed.
        """
        self._credentials = replace(self._credentials, token=token)
        if self._credentials.certificate:
            self._session.close()

    def get(
        self,
        url: str,
        *,
        accept: str = "*/*",
        limit: int = ANSWER_LIMIT,
        redirects: bool = True,
        timeout: float | None = None,
    ) -> Reply:
        """GET. redirects: whether another address that the server names may be followed.

        timeout: seconds in all, when this request may not take as long as others. Raises RequestFailed.
        """
        return self._request("GET", url, None, {"Accept": accept}, limit, redirects, timeout)

    def post_json(
        self,
        url: str,
        body: Mapping[str, Json] | Sequence[Json],
        *,
        packed: bool = False,
        headers: Mapping[str, str],
        timeout: float | None = None,
    ) -> Reply:
        """POST a JSON body; packed: gzip it without saying so, as legacy servers demand (wire.md, section 2).

        timeout: as for `get`. A redirect is an error: following it would silently turn the POST into a GET. Raises
        RequestFailed.
        """
        data = json.dumps(body).encode()
        if packed:
            data = gzip.compress(data, compresslevel=1)
        own = {"Content-Type": "application/json", "Accept": "application/json"}
        return self._request("POST", url, data, {**own, **headers}, ANSWER_LIMIT, False, timeout)

    def post_form(self, url: str, form: str, *, accept: str) -> Reply:
        """POST an encoded form; redirects as for `post_json`. Raises RequestFailed."""
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": accept}
        return self._request("POST", url, form.encode(), headers, ANSWER_LIMIT, False, None)

    def _request(
        self,
        method: str,
        url: str,
        data: bytes | None,
        headers: dict[str, str],
        limit: int,
        redirects: bool,
        timeout: float | None,
    ) -> Reply:
        total = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + total
        if self._is_server(url):
            headers = {**headers, **self._authorisation()}
        connect = min(self._connect_timeout, total)
        try:
            with self._session.request(
                method,
                url,
                data=data,
                headers=headers,
                timeout=(connect, total),
                stream=True,
                allow_redirects=redirects,
            ) as response:
                body = _read(response, deadline, limit)
                status, got = response.status_code, {k.lower(): v for k, v in response.headers.items()}
        except requests.exceptions.RequestException as exc:
            raise _failure(method, url, exc, total) from exc
        except _TooSlow:
            raise RequestFailed(f"{method} {url}: no complete answer within {total:g} s", temporary=True) from None
        if status < 200 or status >= 300:
            raise RequestFailed(
                f"{method} {url}: HTTP {status}: {_first_line(body)}",
                temporary=status in TEMPORARY_STATUS,
                status=status,
                retry_after=_retry_after(got),
            )
        return Reply(status, body, got)

    def _is_server(self, url: str) -> bool:
        """Whether a URL is our dispatcher's: only it may see the token."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        return (parts.scheme, parts.netloc) == (self._server.scheme, self._server.netloc)

    def _authorisation(self) -> dict[str, str]:
        if not self._credentials.token:
            return {}
        origin = {"Origin": self._credentials.origin} if self._credentials.origin else {}
        return {"Authorization": f"Bearer {self._credentials.token}", **origin}


def _first_line(body: bytes) -> str:
    """What a refusal says, without the page around it."""
    lines = body[:2000].decode("utf-8", "replace").strip().splitlines()
    return lines[0][:200] if lines else "no text"


class _TooSlow(Exception):
    """The body did not arrive before the deadline."""


def _read(response: requests.Response, deadline: float, limit: int) -> bytes:
    """The body, read piece by piece so that a server that drips bytes meets the deadline and the limit."""
    pieces: list[bytes] = []
    size = 0
    try:
        for piece in _pieces(response.raw):
            size += len(piece)
            pieces.append(piece)
            if size > limit:
                raise requests.exceptions.ContentDecodingError(f"answer larger than {limit} bytes")
            if time.monotonic() > deadline:
                raise _TooSlow
        return b"".join(pieces)
    except (requests.exceptions.RequestException, _TooSlow):
        raise
    # urllib3 has a family of errors of its own that is not that of requests, and not the same in versions 1 and 2.
    except Exception as exc:
        # A silence that was too long for the socket has also outlasted the deadline.
        if time.monotonic() >= deadline:
            raise _TooSlow from exc
        raise requests.exceptions.ConnectionError(f"answer broke off: {exc}") from exc


def _pieces(raw: Any) -> Iterator[bytes]:
    """A body in pieces, each as soon as some of it is there. raw: urllib3's answer."""
    if hasattr(raw, "read1"):
        yield from iter(lambda: raw.read1(_CHUNK, decode_content=True), b"")
        return
    # urllib3 before 2.2, as on RHEL 9, waits for a whole piece however slowly it comes, and takes what breaks off for
    # all there is. What is private here is so in releases that do not change any more.
    below = raw._original_response  # http.client's
    raw._init_decoder()
    while piece := below.read1(_CHUNK):
        yield raw._decode(piece, True, False)
    if below.length:
        raise EOFError("its end is missing")
    yield raw._decode(b"", True, True)
    raw.release_conn()


def _failure(method: str, url: str, exc: requests.exceptions.RequestException, total: float) -> RequestFailed:
    where = f"{method} {url}"
    if isinstance(exc, requests.exceptions.SSLError):
        return RequestFailed(f"{where}: the server's certificate was not accepted: {exc}", temporary=False, sent=False)
    if isinstance(exc, requests.exceptions.ConnectTimeout):
        return RequestFailed(f"{where}: no connection within the time limit", temporary=True, sent=False)
    if isinstance(exc, requests.exceptions.Timeout):
        return RequestFailed(f"{where}: no answer within {total:g} s", temporary=True)
    if isinstance(exc, requests.exceptions.ConnectionError):
        text = str(exc)
        why = "connection refused" if "refused" in text.lower() else text
        return RequestFailed(f"{where}: {why}", temporary=True, sent=not _is_unconnected(exc))
    return RequestFailed(f"{where}: {exc}", temporary=False, sent=False)


def _is_unconnected(exc: Exception) -> bool:
    """Whether there was no connection at all: the name is unknown, the way is, or nobody listens."""
    reason = getattr(exc.args[0] if exc.args else None, "reason", None)
    return isinstance(getattr(reason, "original_error", reason), NewConnectionError)  # a proxy's lies in another


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The Retry-After header in seconds; its date form is not used by any dispatcher and ignored."""
    try:
        seconds = float(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
