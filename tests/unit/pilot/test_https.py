"""The HTTP client: what it sends, what it takes for an answer, when it tries again, and to whom it shows its token."""

from __future__ import annotations

import gzip
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.util.https import (
    Credentials,
    HttpClient,
    RequestFailed,
    RetryPolicy,
    is_loopback,
    wait_before_retry,
    with_retries,
)
from tests.unit.pilot.webserver import Answer, Handler, WebServer


def failure(temporary: bool = True, retry_after: float | None = None) -> RequestFailed:
    return RequestFailed("no luck", temporary=temporary, retry_after=retry_after)


@contextmanager
def client_of(url: str, timeout: float = 5.0, credentials: Credentials = Credentials()) -> Iterator[HttpClient]:  # noqa: B008
    client = HttpClient(credentials, 2.0, timeout, "pilotkit/test", url)
    try:
        yield client
    finally:
        client.close()


# ---- waiting and trying again


@pytest.mark.parametrize(
    ("failures", "hint", "draw", "wanted"),
    [
        (1, None, 0.5, 1.0),
        (2, None, 0.5, 2.0),
        (3, None, 0.5, 4.0),
        (4, None, 0.5, 8.0),
        (5, None, 0.5, 10.0),
        (10_000, None, 0.5, 10.0),
        (1, None, 0.0, 0.75),
        (1, None, 0.999999, 1.25),
        (5, None, 0.0, 7.5),
        (1, 0.0, 0.5, 1.0),
        (1, 0.1, 0.5, 1.0),
        (1, 30.0, 0.5, 30.0),
        (9, 30.0, 0.5, 30.0),
        (1, 1e9, 0.5, 600.0),
    ],
)
def test_the_wait_doubles_up_to_a_limit_and_the_servers_hint_is_a_lower_bound(
    failures: int, hint: float | None, draw: float, wanted: float
) -> None:
    policy = RetryPolicy(attempts=4, delay=1.0, delay_max=10.0)
    assert wait_before_retry(failures, policy, hint, draw) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("outcomes", "attempts", "calls", "gets"),
    [
        (["ok"], 4, 1, "ok"),
        (["temporary", "ok"], 4, 2, "ok"),
        (["temporary", "temporary", "temporary", "ok"], 4, 4, "ok"),
        (["temporary"] * 9, 4, 4, "failure"),
        (["final", "ok"], 4, 1, "failure"),
        (["temporary", "final", "ok"], 4, 2, "failure"),
        (["temporary", "ok"], 1, 1, "failure"),
    ],
)
def test_only_temporary_failures_are_tried_again_and_not_for_ever(
    outcomes: list[str], attempts: int, calls: int, gets: str
) -> None:
    left = list(outcomes)

    def call() -> str:
        outcome = left.pop(0)
        if outcome == "ok":
            return "ok"
        raise failure(temporary=outcome == "temporary")

    policy = RetryPolicy(attempts, delay=0.0001, delay_max=0.001)
    if gets == "ok":
        assert with_retries(call, policy, threading.Event()) == "ok"
    else:
        with pytest.raises(RequestFailed, match="no luck"):
            with_retries(call, policy, threading.Event())
    assert len(outcomes) - len(left) == calls


def test_nothing_is_tried_again_once_the_pilot_stops() -> None:
    stop = threading.Event()
    stop.set()
    calls = []

    def call() -> None:
        calls.append(1)
        raise failure(retry_after=500.0)

    with pytest.raises(RequestFailed):
        with_retries(call, RetryPolicy(100, 60.0, 60.0), stop)
    assert len(calls) == 1


def test_patience_ends_a_wait_before_it_begins() -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise failure(retry_after=500.0)

    began = time.monotonic()
    with pytest.raises(RequestFailed):
        with_retries(call, RetryPolicy(100, 0.001, 0.001, patience=1.0), threading.Event())
    assert len(calls) == 1 and time.monotonic() - began < 60


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_a_temporary_failure(web: WebServer, http: HttpClient, status: int) -> None:
    web.route("/x", Answer(b"come back later", status, {"Retry-After": "7"}))
    with pytest.raises(RequestFailed) as raised:
        http.get(f"{web.url}/x")
    error = raised.value
    assert (error.temporary, error.sent, error.status, error.retry_after) == (True, True, status, 7.0)
    assert error.code == ErrorCodes.COMMUNICATIONFAILURE
    assert error.diag == f"GET {web.url}/x: HTTP {status}: come back later"


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 410, 413])
def test_any_other_refusal_is_a_servers_considered_opinion(web: WebServer, http: HttpClient, status: int) -> None:
    web.route("/x", Answer(b"", status))
    with pytest.raises(RequestFailed, match=f"HTTP {status}: no text") as raised:
        http.post_json(f"{web.url}/x", {}, headers={})
    assert (raised.value.temporary, raised.value.status) == (False, status)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [("0", 0.0), ("1.5", 1.5), ("-3", 0.0), ("soon", None), ("nan", None), ("inf", None),
     ("Wed, 21 Oct 2026 07:28:00 GMT", None)],
)  # fmt: skip
def test_retry_after_is_read_in_seconds_or_not_at_all(
    web: WebServer, http: HttpClient, header: str, wanted: float | None
) -> None:
    web.route("/x", Answer(b"", 503, {"Retry-After": header}))
    with pytest.raises(RequestFailed) as raised:
        http.get(f"{web.url}/x")
    assert raised.value.retry_after == wanted


# ---- what is sent


def test_json_is_posted_as_json(web: WebServer, http: HttpClient) -> None:
    web.route("/x", Answer({"ok": True}))
    reply = http.post_json(f"{web.url}/x", {"jobId": "1", "café": "☕"}, headers={"X-Mine": "yes"})
    asked = web.asked[0]
    assert (reply.status, reply.json()) == (200, {"ok": True})
    assert asked.json() == {"jobId": "1", "café": "☕"} and not asked.body.startswith(b"\x1f\x8b")
    wanted = {"content-type": "application/json", "accept": "application/json", "x-mine": "yes"}
    assert wanted.items() <= asked.headers.items()
    assert asked.headers["user-agent"] == "pilotkit/test"


def test_a_packed_body_is_gzip_that_does_not_say_so_as_legacy_servers_demand(web: WebServer, http: HttpClient) -> None:
    web.route("/x", Answer({}))
    http.post_json(f"{web.url}/x", {"state": "running"}, packed=True, headers={})
    asked = web.asked[0]
    assert gzip.decompress(asked.body) == b'{"state": "running"}'
    assert "content-encoding" not in asked.headers
    assert asked.headers["content-type"] == "application/json"


def test_requests_share_one_connection(web: WebServer, http: HttpClient) -> None:
    web.route("/x", Answer({}))
    for _ in range(5):
        http.post_json(f"{web.url}/x", {}, headers={})
        http.get(f"{web.url}/x")
    assert len(web.connections) == 1


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again(web: WebServer, http: HttpClient) -> None:
    web.route("/x", Answer({}, headers={"Connection": "close"}))
    for _ in range(3):
        assert http.get(f"{web.url}/x").status == 200
    assert len(web.connections) == 3


def test_only_the_own_server_sees_the_token(web: WebServer, http: HttpClient) -> None:
    other = WebServer()
    try:
        for server in (web, other):
            server.route("/x", Answer({}))
            http.get(f"{server.url}/x")
            http.post_json(f"{server.url}/x", {}, headers={})
    finally:
        other.close()
    assert [asked.headers.get("authorization") for asked in web.asked] == ["Bearer sesame"] * 2
    assert [asked.headers.get("origin") for asked in web.asked] == ["vo.pilot"] * 2
    assert all("authorization" not in asked.headers and "origin" not in asked.headers for asked in other.asked)


@pytest.mark.parametrize("lookalike", ["http://127.0.0.1:{port}@localhost:{port}/x", "http://localhost:{port}/x"])
def test_a_name_that_only_resembles_the_own_server_sees_no_token(
    web: WebServer, http: HttpClient, lookalike: str
) -> None:
    web.route("/x", Answer({}))
    http.get(lookalike.format(port=web.server_address[1]))
    assert web.asked[0].headers.get("authorization", "").startswith("Bearer") is False


def test_a_token_does_not_follow_a_redirection_to_another_server(web: WebServer, http: HttpClient) -> None:
    other = WebServer()
    try:
        other.route("/y", Answer(b"here"))
        web.route("/x", Answer(b"", 302, {"Location": f"http://localhost:{other.server_address[1]}/y"}))
        assert http.get(f"{web.url}/x").body == b"here"
    finally:
        other.close()
    assert "authorization" in web.asked[0].headers
    assert "authorization" not in other.asked[0].headers


def test_a_client_without_a_token_shows_none(web: WebServer) -> None:
    web.route("/x", Answer({}))
    with client_of(web.url) as client:
        client.get(f"{web.url}/x")
    assert "authorization" not in web.asked[0].headers and "origin" not in web.asked[0].headers


def test_a_redirected_post_is_an_error_since_it_would_become_a_get(web: WebServer, http: HttpClient) -> None:
    web.route("/x", Answer(b"", 302, {"Location": "/y"}))
    web.route("/y", Answer({}))
    with pytest.raises(RequestFailed, match="HTTP 302") as raised:
        http.post_json(f"{web.url}/x", {"a": 1}, headers={})
    assert not raised.value.temporary
    assert web.paths() == ["/x"]


def test_an_endless_redirection_ends(web: WebServer, http: HttpClient) -> None:
    web.route("/x", Answer(b"", 302, {"Location": "/x"}))
    with pytest.raises(RequestFailed) as raised:
        http.get(f"{web.url}/x")
    assert not raised.value.temporary


def test_proxies_of_the_environment_are_not_used_for_loopback(
    web: WebServer, monkeypatch: pytest.MonkeyPatch, port_of_nobody: int
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port_of_nobody}")
    monkeypatch.delenv("no_proxy", raising=False)
    web.route("/x", Answer({}))
    with client_of(web.url) as client:
        assert client.get(f"{web.url}/x").status == 200


def test_the_environments_proxy_is_used_for_a_server_elsewhere(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", web.url)
    monkeypatch.delenv("no_proxy", raising=False)
    web.route("/x", Answer(b"through the proxy"))
    with client_of("http://dispatcher.invalid:25080") as client:
        assert client.get("http://dispatcher.invalid:25080/x").body == b"through the proxy"
    assert web.paths() == ["http://dispatcher.invalid:25080/x"]


# ---- what comes back


def test_nobody_there_is_a_temporary_failure_of_which_the_server_knows_nothing(port_of_nobody: int) -> None:
    url = f"http://127.0.0.1:{port_of_nobody}"
    with client_of(url) as client, pytest.raises(RequestFailed, match=f"GET {url}/x: connection refused") as raised:
        client.get(f"{url}/x")
    assert (raised.value.temporary, raised.value.sent, raised.value.status) == (True, False, 0)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "255.255.255.255"], ids=["no such name", "no way to it"])
def test_a_server_that_cannot_be_found_is_a_temporary_failure_of_which_it_knows_nothing(host: str) -> None:
    url = f"http://{host}:25080"
    with client_of(url) as client, pytest.raises(RequestFailed) as raised:
        client.get(f"{url}/x")
    assert (raised.value.temporary, raised.value.sent) == (True, False)


@pytest.mark.parametrize("url", ["gopher://127.0.0.1/x", "http://", "http://[::1", "127.0.0.1/x", ""])
def test_what_is_no_address_is_no_temporary_failure(http: HttpClient, url: str) -> None:
    with pytest.raises(RequestFailed) as raised:
        http.get(url)
    assert not raised.value.temporary


def hang_up(handler: Handler) -> None:
    """Close the connection without a word."""


def hang_up_in_the_middle(handler: Handler) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"StatusCode": 0, ')


def speak_nonsense(handler: Handler) -> None:
    handler.wfile.write(b"220 smtp.example ESMTP\r\n\r\n")


def bad_chunks(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n")


def bad_gzip(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello")


@pytest.mark.parametrize("act", [hang_up, hang_up_in_the_middle, speak_nonsense, bad_chunks, bad_gzip])
def test_an_answer_that_breaks_off_is_a_temporary_failure_that_the_server_may_have_acted_on(
    web: WebServer, http: HttpClient, act: object
) -> None:
    web.route("/x", Answer(act=act))  # type: ignore[arg-type]
    with pytest.raises(RequestFailed) as raised:
        http.post_json(f"{web.url}/x", {}, headers={})
    assert (raised.value.temporary, raised.value.sent, raised.value.status) == (True, True, 0)
    assert len(web.asked) == 1


def packed(status: str, encoding: str, body: bytes) -> Callable[[Handler], None]:
    head = f"HTTP/1.1 {status}\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    return lambda handler: handler.wfile.write(head.encode() + body) and None


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"hello")),
        ("gzip", gzip.compress(b"hel") + gzip.compress(b"lo")),
        ("deflate", zlib.compress(b"hello")),
        ("deflate", zlib.compress(b"hello")[2:-4]),
    ],
    ids=["gzip", "two members", "deflate", "raw deflate"],
)
def test_packed_answers_are_unpacked(web: WebServer, http: HttpClient, encoding: str, body: bytes) -> None:
    web.route("/x", Answer(act=packed("200 OK", encoding, body)))
    assert http.get(f"{web.url}/x").body == b"hello"


@pytest.mark.parametrize("status", ["200 OK", "204 No Content"])
def test_nothing_can_be_packed(web: WebServer, http: HttpClient, status: str) -> None:
    web.route("/x", Answer(act=packed(status, "gzip", b"")))
    assert http.get(f"{web.url}/x").body == b""


def test_a_refusal_of_which_nothing_is_packed_is_one(web: WebServer, http: HttpClient) -> None:
    web.route("/x", Answer(act=packed("404 Not Found", "gzip", b"")))
    with pytest.raises(RequestFailed) as raised:
        http.get(f"{web.url}/x")
    assert (raised.value.temporary, raised.value.status) == (False, 404)


def drip(handler: Handler) -> None:
    """One byte now and then, each of them in time for a time limit that only watches the silence."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    server = handler.server
    while not server.over.wait(0.02):
        try:
            handler.wfile.write(b"x")
        except OSError:
            return


def say_nothing(handler: Handler) -> None:
    handler.server.over.wait(20)


def fall_silent(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nx")
    say_nothing(handler)


@pytest.mark.parametrize("act", [drip, fall_silent, say_nothing])
def test_a_server_that_is_too_slow_meets_the_deadline(web: WebServer, act: object) -> None:
    web.route("/x", Answer(act=act))  # type: ignore[arg-type]
    began = time.monotonic()
    with client_of(web.url, timeout=0.3) as client, pytest.raises(RequestFailed, match=r"0\.3 s") as raised:
        client.get(f"{web.url}/x")
    assert (raised.value.temporary, raised.value.sent) == (True, True)
    assert time.monotonic() - began < 10


def test_a_redirect_is_followed_only_where_the_caller_allows_it(web: WebServer, http: HttpClient) -> None:
    web.route("/old", Answer(status=302, headers={"Location": f"{web.url}/new"}))
    web.route("/new", Answer(b"here"))
    assert http.get(f"{web.url}/old").body == b"here"
    with pytest.raises(RequestFailed, match="HTTP 302"):
        http.get(f"{web.url}/old", redirects=False)


def test_an_answer_over_the_limit_is_refused_before_it_fills_the_memory(web: WebServer, http: HttpClient) -> None:
    sent = []

    def flood(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
                sent.append(65536)
        except OSError:
            return

    web.route("/x", Answer(act=flood))
    with pytest.raises(RequestFailed, match="answer larger than 100000 bytes") as raised:
        http.get(f"{web.url}/x", limit=100_000)
    assert not raised.value.temporary
    web.over.set()


def test_an_answer_at_the_limit_is_taken(web: WebServer, http: HttpClient) -> None:
    web.route("/x", Answer(b"x" * 1000))
    assert len(http.get(f"{web.url}/x", limit=1000).body) == 1000
    with pytest.raises(RequestFailed):
        http.get(f"{web.url}/x", limit=999)


def test_a_packed_answer_is_unpacked(web: WebServer, http: HttpClient) -> None:
    web.route("/x", Answer(gzip.compress(b'{"a": 1}'), headers={"Content-Encoding": "gzip"}))
    assert http.get(f"{web.url}/x").json() == {"a": 1}


@pytest.mark.parametrize(
    "body", [b"", b"<html><body>Bad gateway</body></html>", b'{"StatusCode": 0, "Pan', b"\xff\xfe", b"[" * 100_000]
)
def test_a_body_that_is_no_json_is_a_temporary_failure_that_shows_its_beginning(
    web: WebServer, http: HttpClient, body: bytes
) -> None:
    web.route("/x", Answer(body))
    with pytest.raises(RequestFailed, match=r"the server's answer is not JSON: ") as raised:
        http.get(f"{web.url}/x").json()
    assert raised.value.temporary and raised.value.sent
    assert len(raised.value.diag) < 200


def test_header_names_are_lower_case_whatever_the_server_writes(web: WebServer, http: HttpClient) -> None:
    web.route("/x", Answer({}, headers={"X-PILOTKIT": "0.1.0"}))
    assert http.get(f"{web.url}/x").headers["x-pilotkit"] == "0.1.0"


def test_several_threads_may_use_one_client(web: WebServer, http: HttpClient) -> None:
    web.route("/x", Answer({"n": 1}))
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(http.get(f"{web.url}/x").json())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [{"n": 1}] * 8


# ---- loopback


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://localhost:25080", True),
        ("http://LOCALHOST", True),
        ("http://127.0.0.1:25080/x", True),
        ("http://127.8.9.1", True),
        ("http://[::1]:25080", True),
        ("https://localhost", True),
        ("http://127.evil.example:25080", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1@evil.example/", False),
        ("http://0.0.0.0", False),
        ("http://192.168.1.1", False),
        ("http://[2001:db8::1]", False),
        ("http://dispatcher.example", False),
        ("", False),
    ],
)
def test_only_this_machine_by_its_very_name_is_loopback(url: str, wanted: bool) -> None:
    assert is_loopback(url) is wanted


# ---- whose fault


@pytest.mark.parametrize(
    ("temporary", "sent", "status", "wanted"),
    [
        (False, True, 0, True),  # a StatusCode in a good answer
        (False, True, 400, True),
        (False, True, 413, True),
        (False, True, 401, False),
        (False, True, 403, False),
        (False, True, 404, False),
        (False, True, 302, False),
        (False, True, 501, False),
        (False, False, 0, False),  # the server's certificate was not accepted
        (True, True, 0, False),
        (True, True, 503, False),
    ],
)
def test_a_verdict_is_about_the_request_and_not_about_who_sends_it(
    temporary: bool, sent: bool, status: int, wanted: bool
) -> None:
    assert RequestFailed("x", temporary=temporary, sent=sent, status=status).is_verdict is wanted
