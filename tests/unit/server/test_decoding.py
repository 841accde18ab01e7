"""Bodies in every encoding seen on the wire, and bodies that are none."""

from __future__ import annotations

import gzip
import io
import json
import zlib

import pytest
from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.test import EnvironBuilder

from server.routes.decoding import BadArgument, Body, Malformed, check_arguments, parse_json, read_body
from server.routes.registry import EVERYBODY, Argument, Call, Kind, Method, optional, required

LIMIT = 100_000


def request(data: bytes, content_type: str | None = None, method: str = "POST", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(EnvironBuilder(method=method, data=data, content_type=content_type, headers=named).get_environ())


VALUES = {"jobId": "5", "state": "running", "diag": "a&b=c ü"}
FORM = b"jobId=5&state=running&diag=a%26b%3Dc+%C3%BC"
JSON = json.dumps(VALUES).encode()


@pytest.mark.parametrize(
    "made",
    [
        request(gzip.compress(JSON), "application/json"),  # what existing pilots send
        request(gzip.compress(JSON), "application/json", Content_Encoding="gzip"),
        request(JSON, "application/json"),
        request(JSON, "application/json; charset=utf-8"),
        request(JSON, "text/plain"),
        request(JSON),
        request(b"  \n" + JSON, "application/octet-stream"),
        request(gzip.compress(FORM), "application/x-www-form-urlencoded"),
        request(FORM, "application/x-www-form-urlencoded"),
        request(FORM),
        Request(EnvironBuilder(method="GET", query_string=FORM.decode()).get_environ()),
        Request(EnvironBuilder(method="POST", data=VALUES, content_type="multipart/form-data").get_environ()),
    ],
)
def test_every_encoding_gives_the_same_values(made: Request) -> None:
    assert read_body(made, LIMIT).values == VALUES


@pytest.mark.parametrize(
    "made",
    [
        request(b"{", "application/json"),
        request(b"[1, 2]", "application/json"),
        request(b'"text"', "application/json"),
        request(b"5", "application/json"),
        request(b"null", "application/json"),
        request(b'{"a": NaN}', "application/json"),
        request(b'{"a": -Infinity}', "application/json"),
        request(b'{"a": "\\ud800"}', "application/json"),
        request(b'{"a": "\xff"}', "application/json"),
        request(b'{"a": "\xed\xa0\x80"}', "application/json"),
        request('{"a": "\\ud800"}'.encode("utf-16"), "application/json"),
        request(b'{"a": [{"b": -1e999}]}', "application/json"),
        request(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "application/json"),
        request(b'{"a": ' + b"9" * 10_000 + b"}", "application/json"),
        request(gzip.compress(JSON)[:-5], "application/json"),
        request(gzip.compress(JSON)[:12] + b"garbage" * 5, "application/json"),
        request(b"\x1f\x8b", "application/json"),
        request(JSON, "application/json", Content_Encoding="gzip"),
        request(gzip.compress(b"not json"), "application/json"),
        request(b"&".join(b"a%d=1" % i for i in range(2000)), "application/x-www-form-urlencoded"),
    ],
)
def test_what_cannot_be_understood_is_refused(made: Request) -> None:
    with pytest.raises(Malformed):
        read_body(made, LIMIT)


def test_a_gzip_bomb_is_not_unpacked() -> None:
    with pytest.raises(RequestEntityTooLarge):
        read_body(request(gzip.compress(b"{" + b" " * 50_000_000 + b"}"), "application/json"), LIMIT)


def test_an_empty_body_is_a_call_without_arguments() -> None:
    assert read_body(request(b"", "application/json"), LIMIT).values == {}
    assert read_body(request(b""), LIMIT).values == {}
    assert read_body(request(zlib.compress(b"x"), "text/plain"), LIMIT).values != VALUES


def test_a_name_that_is_repeated_becomes_a_list() -> None:
    assert read_body(request(b"id=1&id=2&x=3"), LIMIT).values == {"id": ["1", "2"], "x": "3"}


def test_an_uploaded_file_is_there() -> None:
    data = {"file": (io.BytesIO(b"content"), "name.tar.gz"), "a": "b"}
    body = read_body(Request(EnvironBuilder(method="POST", data=data).get_environ()), LIMIT)
    assert body.values == {"a": "b"}
    with body.uploads["file"].content as content:
        assert (body.uploads["file"].name, content.read()) == ("name.tar.gz", b"content")


def handler(_call: Call) -> object:
    return None


def method(*arguments: Argument) -> Method:
    return Method("m/x", frozenset({"POST"}), EVERYBODY, {a.name: a for a in arguments}, handler, "")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Kind.TEXT, ["x", ""], [1, [], {}, True, "a\x00"]),
        (Kind.INTEGER, [1, 0, -5, 2.0], ["9010", 1.5, True, 10**30, [], "x"]),
        (Kind.NUMBER, [1, 1.5], ["1", True, 1e300, []]),
        (Kind.FLAG, [True, False], [1, "true", []]),
        (Kind.TEXTS, [["a"], []], ["a", [1], {}]),
        (Kind.INTEGERS, [[1], []], [1, ["1"], "1"]),
        (Kind.ITEMS, [[1, "a"]], ["a", {}]),
        (Kind.OBJECT, [{"a": 1}], ["a", [], 1]),
        (Kind.ANY, [1, "a", [], {}], []),
    ],
)
def test_json_values_must_have_their_type(kind: Kind, good: list[object], bad: list[object]) -> None:
    wanted = method(required("a", kind))
    for value in good:
        assert check_arguments(wanted, Body({"a": value}, is_json=True), strict=True) == {"a": value}
    for value in bad:
        with pytest.raises(BadArgument, match="a must be") as caught:
            check_arguments(wanted, Body({"a": value}, is_json=True), strict=True)
        assert caught.value.kind == "Type error"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Kind.INTEGER, "12", 12),
        (Kind.INTEGER, "12.0", 12),
        (Kind.INTEGER, "9007199254740993", 9007199254740993),
        (Kind.NUMBER, "1.5", 1.5),
        (Kind.FLAG, "TRUE", True),
        (Kind.FLAG, "0", False),
        (Kind.TEXTS, "a", ["a"]),
        (Kind.INTEGERS, ["1", "2"], [1, 2]),
        (Kind.TEXT, "None", None),
    ],
)
def test_texts_of_forms_are_converted(kind: Kind, text: object, value: object) -> None:
    found = check_arguments(method(optional("a", kind)), Body({"a": text}), strict=True)
    assert found == ({} if value is None else {"a": value})


@pytest.mark.parametrize("text", ["", "x", "1e400", "nan", "٣x", "٣", "1_0", "1" * 40])
def test_texts_that_are_no_number_are_refused(text: str) -> None:
    with pytest.raises(BadArgument):
        check_arguments(method(optional("a", Kind.INTEGER)), Body({"a": text}), strict=True)


def test_missing_and_unknown_arguments_are_named() -> None:
    with pytest.raises(BadArgument, match="needs the argument 'a'"):
        check_arguments(method(required("a")), Body({"a": None}, is_json=True), strict=True)
    with pytest.raises(BadArgument, match="does not know the argument 'b'"):
        check_arguments(method(optional("a")), Body({"b": 1}, is_json=True), strict=True)


def test_logs_may_have_nul_in_them_and_names_may_not() -> None:
    free = method(Argument("a", Kind.TEXT, free=True))
    assert check_arguments(free, Body({"a": "x\x00"}, is_json=True), strict=True) == {"a": "x\x00"}
    with pytest.raises(BadArgument):
        check_arguments(free, Body({"a": 5}, is_json=True), strict=True)


def test_json_of_a_form_field_is_parsed_with_the_same_rules() -> None:
    assert parse_json('[{"a": "\\u00e9\\ud83d\\ude00"}]') == [{"a": "é😀"}]
    with pytest.raises(Malformed):
        parse_json("[NaN]")
