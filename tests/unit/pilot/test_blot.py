"""Secrets are blotted out of every text, and nothing else is."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from pilot.api.attempts import Attempt
from pilot.api.choice import Place, trace
from pilot.api.traces import Traces
from pilot.control.job import secrets_of
from pilot.copytool.errors import Kind, TransferError, raw_words, tool_error
from pilot.info.filespec import FileSpec
from pilot.util.blot import BLOT, Secrets, is_signed, location_of, secrets_in, without_secrets
from pilot.util.recorder import Recorder
from tests.unit.pilot.builders import LOG, SETTINGS

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


# ---- secrets that are known by their value

TOKEN = "eyJhbGciOi.c4na7y+tok/en-_Q=="


def percent_in_lower_case(text: str) -> str:
    return re.sub("%..", lambda found: found.group().lower(), quote(text, safe=""))


@pytest.mark.parametrize(
    "encode",
    [
        str,
        quote,
        quote_plus,
        percent_in_lower_case,
        json.dumps,
        repr,
        *(lambda text, n=n: base64.b64encode(("u" * n + text).encode()).decode() for n in range(4)),
        *(lambda text, n=n: base64.urlsafe_b64encode((text + "u" * n).encode()).decode() for n in range(4)),
    ],
)
def test_a_known_secret_is_blotted_out_however_it_is_encoded(encode: Callable[[str], str]) -> None:
    secrets = Secrets([TOKEN])
    shown = encode(TOKEN)
    core = shown.strip("'\"").rstrip("=")[4:-4]
    said = secrets.blot(f"the tool says: {shown} (401)")
    assert core not in said and BLOT in said
    assert said.startswith("the tool says: ") and said.endswith(" (401)")
    data = f"the tool says: {shown} (401)".encode()
    masked = secrets.mask(data)
    assert len(masked) == len(data) and core.encode() not in masked
    assert masked.startswith(b"the tool says: ") and masked.endswith(b" (401)")


@pytest.mark.parametrize(
    "text",
    [
        "hunter22x", "xhunter22", "the hunter22s", "concatenate", "true", "a test", "2026-11-21", "7 of 12",
        "eyJhbGciOi.c4na7", "",
    ],
)  # fmt: skip
def test_words_that_contain_a_short_secret_and_values_that_are_no_secret_stay(text: str) -> None:
    secrets = Secrets(["hunter22", "cat", "true", "test", "2026", "7", TOKEN, "", "   "])
    assert secrets.blot(text) == text and secrets.mask(text.encode()) == text.encode()


@pytest.mark.parametrize(
    "text", ["{}", "pw={}&x=1", "pw%3D{}", '"{}"', "line\\n{}", "me:{}@host", "\\u0026{}", "{}.", "x ({}, y)"]
)
def test_a_short_secret_is_blotted_out_where_it_is_a_word(text: str) -> None:
    secrets = Secrets(["hunter22"])
    assert secrets.blot(text.format("hunter22")) == text.format(BLOT)
    assert secrets.mask(text.format("hunter22").encode()) == text.format("********").encode()


def test_of_a_proxy_the_key_is_secret_and_the_certificate_is_not() -> None:
    key, certificate = ("\n".join(letter * 64 for letter in letters) for letters in ("abc", "xyz"))
    secrets = Secrets()
    secrets.learn(
        f"-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n"
        f"-----BEGIN RSA PRIVATE KEY-----\n{key}\n-----END RSA PRIVATE KEY-----\n".encode()
    )
    assert secrets.blot(certificate) == certificate
    assert "bbbb" not in secrets.blot(f"half of it: {key[60:150]}")


def test_keys_of_object_stores_are_found_in_their_files() -> None:
    assert secrets_in(
        b"[default]\naws_access_key_id = AKIA4711\nAWS_SECRET_ACCESS_KEY=s3cret/key\nregion = here\n"
    ) == [
        "AKIA4711",
        "s3cret/key",
    ]
    google = {
        "type": "service_account",
        "private_key": "-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n",
    }
    assert secrets_in(json.dumps(google).encode()) == ["QUJD"]
    assert secrets_in(b"a.token\n") == ["a.token"] and secrets_in(b"two words") == []


def test_secrets_are_found_anywhere_in_what_becomes_json() -> None:
    secrets = Secrets([TOKEN])
    body = {"a": TOKEN, "n": 5, "deep": [{"b": f"x {TOKEN}"}, None, True]}
    assert secrets.blot_all(body) == {"a": BLOT, "n": 5, "deep": [{"b": f"x {BLOT}"}, None, True]}


def test_a_secret_of_several_lines_is_known_line_by_line() -> None:
    secrets = Secrets(["-----BEGIN A KEY-----\nc4na7y-first-line\n  c4na7y-other-line\nx: 1\n-----END A KEY-----\n"])
    shown = "> -----BEGIN A KEY-----\n> c4na7y-first-line\n> c4na7y-other-line\n> x: 1\n"
    assert secrets.blot(shown) == f"> -----BEGIN A KEY-----\n> {BLOT}\n> {BLOT}\n> x: 1\n"
    assert b"c4na7y" not in secrets.mask(shown.encode())


def test_the_fields_of_a_definition_that_are_secret_are_known() -> None:
    definition = {
        "jobName": "plain",
        "secrets": json.dumps({"MY": "c4na7y-1", "SER": json.dumps({"a_key": "c4na7y-2"})}),
        "pilotSecrets": {"token": ["c4na7y-3"]},
        "jobPars": "-i https://h/f?X-Amz-Signature=c4na7y-4&x=1 -p https://me:c4na7y-5@h/",
        "PandaID": 7,
    }
    found = set(secrets_of(definition))  # type: ignore[arg-type]  # JSON
    assert {f"c4na7y-{n}" for n in range(1, 6)} <= found
    assert not {"plain", "MY", "a_key", "7"} & found


def test_the_flight_recorder_holds_no_secret_that_is_known_by_value(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "flight.rec", Secrets([TOKEN]).blot)
    recorder.decision("command", text=f"{'x' * 990} {TOKEN}")
    recorder.close()
    assert TOKEN[:8].encode() not in (tmp_path / "flight.rec").read_bytes()


def test_no_trace_of_a_transfer_holds_a_secret_nor_the_half_of_one() -> None:
    traces = Traces({}, replace(SETTINGS.rucio, traces=True), "", "", LOG, Secrets([TOKEN]))
    text = f"{'x' * 480} {TOKEN}"
    attempt = Attempt("f", "in", 1, "xrdcp", "A", "h", "root", 0, 1.0, "denied", 1099, text)
    traces.note(FileSpec("f", surl="root://h//f"), attempt)
    assert TOKEN[:8] not in json.dumps(traces.waiting)
