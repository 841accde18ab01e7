"""Secrets in URLs are blotted out of every text, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.api.choice import Place, trace
from pilot.copytool.errors import Kind, TransferError, raw_words, tool_error
from pilot.util.blot import is_signed, location_of, without_secrets
from pilot.util.recorder import Recorder

SIGNED = [
    "https://h/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=60&X-Amz-Signature={}",
    "https://h/b/k?X-Amz-Security-Token={}&X-Amz-Expires=60",
    "https://h/b/k?X-Goog-Signature={}",
    "https://h/b/k?AWSAccessKeyId=id&Signature={}&Expires=17",
    "https://h/b/k?sv=2021&sig={}",
    "root://h:1094//f?authz={}",
    "https://h/f?access_token={}",
    "https://h/f?a=1&amp;token={}",
    '{{"url": "https://h/f?a=1\\u0026token={}"}}',
    "https://proxy/?url=https%3A%2F%2Fh%2Fk%3Fa%3D1%26X-Amz-Signature%3D{}",
    "GET /b/k?x-amz-signature={} HTTP/1.1",
    "url: /b/k?X-Amz-Signature={} (Caused by NewConnectionError('x'))",
]


@pytest.mark.parametrize("text", SIGNED)
@pytest.mark.parametrize("canary", ["c4na7y", "c4na7y%2Bc4na7y%3D", "abc-_~c4na7y"])
def test_what_signs_a_url_is_blotted_out(text: str, canary: str) -> None:
    assert "c4na7y" not in without_secrets(text.format(canary))
    assert "***" in without_secrets(text.format(canary)) and is_signed(text.format(canary))


def test_the_password_in_a_url_is_blotted_out_and_the_user_stays() -> None:
    assert without_secrets("https://me:c4na7y@host/f") == "https://me:***@host/f"


@pytest.mark.parametrize(
    "text",
    [
        "root://me@host:1094//data/f",
        "https://host/token=5/signature=x",
        "command --token=5 --password=x sig=3",
        "https://host/f?X-Amz-Expires=60&versionId=7",
        "https://host/f?design=x&tokens=3",
        "12:30 https://h:1/x and mail to a@b",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text and location_of(text) == text and not is_signed(text)


def test_what_follows_a_secret_stays() -> None:
    text = "https://h/k?Signature=c4na7y&Expires=17: the server answers 403"
    assert without_secrets(text) == "https://h/k?Signature=***&Expires=17: the server answers 403"
    assert location_of("https://h/k?Signature=c4na7y&Expires=17") == "https://h/k"


def test_errors_choices_and_raw_words_hold_no_secret_even_where_they_are_cut() -> None:
    url = f"https://h/b/k?X-Amz-Signature={'c4na7y' * 20}"
    assert "c4na7y" not in TransferError(f"{url}: no", Kind.DENIED, read=True).diag
    assert "c4na7y" not in raw_words(f"Could not get {url}")
    assert "c4na7y" not in raw_words(f"{url} is not there, and {'much ' * 20}is to be said about it")
    assert "c4na7y" not in tool_error("f", f"denied: {url}", "exit code 1", read=True).diag
    assert "c4na7y" not in trace("f", [Place("A", url, "objectstore", "given")])


def test_no_secret_reaches_the_flight_recorder(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "flight.rec")
    recorder.decision("place", url=f"{'x' * 970} https://h/k?X-Amz-Signature=c4na7y")
    recorder.close()
    assert b"c4na7" not in (tmp_path / "flight.rec").read_bytes()
