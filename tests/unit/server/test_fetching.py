"""What is fetched: from a server that is well, slow, broken or gone, and from files."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.logic.fetching import Answer, Unreachable, fetch
from tests.cric import Cric, Page, running_cric
from tests.x509 import make_x509

# s; every answer here is there at once, unless it is meant to be slow.
PATIENCE = 20


@pytest.fixture
def cric() -> Iterator[Cric]:
    with running_cric() as started:
        yield started


def got(address: str, validator: str = "", patience: float = PATIENCE) -> Answer:
    answer = fetch(address, validator, patience=patience)
    assert answer is not None
    return answer


@pytest.mark.parametrize("page", [Page("new", etag='"1"'), Page("new", modified="Fri, 20 Nov 2026 10:00:00 GMT")])
def test_what_is_not_new_is_not_answered_again(cric: Cric, page: Page) -> None:
    cric.pages["/q"] = page
    first = got(f"{cric.url}/q")
    assert first.content == b"new"
    assert fetch(f"{cric.url}/q", first.validator, patience=PATIENCE) is None
    cric.pages["/q"] = Page("newer", etag='"2"')
    assert got(f"{cric.url}/q", first.validator).content == b"newer"
    assert [status for _, status in cric.asked] == [200, 304, 200]


def test_a_server_without_such_headers_is_asked_for_everything(cric: Cric) -> None:
    cric.pages["/q"] = Page("old and new")
    first = got(f"{cric.url}/q")
    assert first.validator == ""
    assert got(f"{cric.url}/q", first.validator) == first


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (Page("oops", status=500), "127.0.0.1 answered 500 Internal Server Error"),
        (Page("oops", status=404), "127.0.0.1 answered 404 Not Found"),
        (Page("x" * 5000, cut=1), "no whole answer from 127.0.0.1: "),
        (Page("x" * 5000, cut=5000), "no whole answer from 127.0.0.1: "),
    ],
)
def test_an_answer_that_is_none_is_one_line(cric: Cric, page: Page, complaint: str) -> None:
    cric.pages["/q"] = page
    with pytest.raises(Unreachable) as caught:
        fetch(f"{cric.url}/q?token=secret", "", patience=PATIENCE)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("pause", [0.05, 20])
def test_an_answer_that_comes_byte_by_byte_is_given_up_in_time(
    cric: Cric, monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    monkeypatch.setattr("tests.cric.DRIP", pause)
    cric.pages["/q"] = Page("x" * 100_000, slow=True)
    begun = time.monotonic()
    with pytest.raises(Unreachable, match=r"did not come within 0\.5 s"):
        fetch(f"{cric.url}/q", "", patience=0.5)
    assert time.monotonic() - begun < 15


def test_an_answer_that_is_too_large_is_not_kept(cric: Cric) -> None:
    cric.pages["/q"] = Page("x" * 200_000)
    with pytest.raises(Unreachable, match="larger than 100000 bytes"):
        fetch(f"{cric.url}/q", "", patience=PATIENCE, limit=100_000)


def test_a_server_that_is_not_there_and_one_that_says_nothing_are_one_line(port_of_nobody: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unreachable, match=r"the answer from 127\.0\.0\.1 did not come within 0\.3 s"):
            fetch(f"http://127.0.0.1:{port}/q", "", patience=0.3)
    with pytest.raises(Unreachable, match=r"no whole answer from 127\.0\.0\.1: .*refused"):
        fetch(f"http://127.0.0.1:{port_of_nobody}/q", "", patience=PATIENCE)


def test_a_server_is_believed_when_it_can_prove_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x509 = make_x509(tmp_path / "x509")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running_cric((x509.host_cert, x509.host_key)) as cric:
        cric.pages["/q"] = Page("queues")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1 cannot prove who it is .*REQUESTS_CA_BUNDLE"):
            fetch(f"{cric.url}/q", "", patience=PATIENCE)
        assert cric.asked == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(x509.ca_file))
        assert got(f"{cric.url}/q").content == b"queues"


def test_a_file_is_read_when_it_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "my queues.json"
    path.write_text("1")
    first = got(str(path))
    assert first.content == b"1"
    assert fetch(str(path), first.validator, patience=PATIENCE) is None
    path.write_text("22")
    assert got(path.as_uri(), first.validator).content == b"22"


@pytest.mark.parametrize(
    ("address", "complaint"),
    [("/nowhere/q.json", "/nowhere/q.json cannot be read: No such file"), ("ftp://x/y", "begins with http://")],
)
def test_an_address_that_cannot_be_used_is_one_line(address: str, complaint: str) -> None:
    with pytest.raises(Unreachable, match=complaint):
        fetch(address, "", patience=PATIENCE)
