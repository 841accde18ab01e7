"""Request bodies in every encoding seen on this wire (wire.md sections 1 and 2), turned into plain values.

gzip is recognised by its first bytes, because existing pilots compress without saying so; JSON by its content type or
its first byte; everything else is a form. Sizes are limited before and after unpacking.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import parse_qsl

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from server.logic.names import shown
from server.routes.registry import Argument, Kind, Method, Upload

_GZIP_MAGIC = b"\x1f\x8b"
#: More arguments than this in a form or query is no call of ours.
_MOST_ARGUMENTS = 1000
_TRUE = frozenset({"true", "1"})
_FALSE = frozenset({"false", "0", ""})


class Malformed(Exception):
    """The request cannot be understood at all; the text says why."""


class BadArgument(Exception):
    """An argument is missing, unknown or not what it must be; the text says which and why.

    Attributes:
        kind: "Argument error" or "Type error", the words v1 clients know.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass
class Body:
    """What a request carries.

    Attributes:
        values: arguments by name; a list where a name was repeated in a query or form.
        is_json: it came as JSON, so that numbers are numbers and texts are texts.
        uploads: files of a multipart body.
    """

    values: dict[str, object] = field(default_factory=dict)
    is_json: bool = False
    uploads: dict[str, Upload] = field(default_factory=dict)


def read_body(request: Request, limit: int) -> Body:
    """Decode a request's query or body.

    Args:
        limit: largest size in bytes the body may have or unpack to.

    Raises:
        Malformed: it is not what it claims to be.
        RequestEntityTooLarge: it is larger than the limit.
    """
    if request.method in ("GET", "HEAD"):
        return Body(_form(request.query_string))
    content_type = request.mimetype
    if content_type == "multipart/form-data":
        return _multipart(request)
    raw = request.get_data(cache=False)
    if raw[:2] == _GZIP_MAGIC:
        raw = _unpacked(raw, limit)
    elif "gzip" in request.headers.get("Content-Encoding", "") and raw:
        raise Malformed("The body is not gzip, although its Content-Encoding says so.")
    if content_type == "application/json" or (
        content_type != "application/x-www-form-urlencoded" and raw.lstrip()[:1] == b"{"
    ):
        return Body(_json_object(raw), is_json=True)
    return Body({**_form(request.query_string), **_form(raw)})


def _unpacked(raw: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)  # 31: a gzip header and nothing else
    try:
        data = unpacker.decompress(raw, limit + 1)
    except zlib.error as error:
        raise Malformed(f"The body is damaged gzip: {error}.") from None
    if len(data) > limit:
        raise RequestEntityTooLarge(f"The body unpacks to more than {limit} bytes.")
    if not unpacker.eof:
        raise Malformed("The body is gzip that ends too early.")
    return data


def _json_object(raw: bytes) -> dict[str, object]:
    if not raw.strip():
        return {}
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise Malformed("The body must be a JSON object with the arguments by name.")
    return value


def parse_json(raw: bytes | str) -> object:
    """JSON as the standard has it (RFC 8259): UTF-8, no NaN, no infinity, no half characters.

    Raises:
        Malformed: it is none.
    """
    try:
        # not by json itself, which takes UTF-16 and halves of surrogate pairs, too
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw
        value: object = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        if "\\ud" in text or "\\uD" in text:  # what may be half of a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise Malformed("The JSON has characters that are no valid Unicode.") from None
    except RecursionError:
        raise Malformed("The JSON is nested too deeply.") from None
    except ValueError as error:
        raise Malformed(f"This is not valid JSON: {error}.") from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    """A number, unless it is one like 1e999, which no database takes and no JSON can say again."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _form(raw: bytes) -> dict[str, object]:
    """A query or url-encoded form; a name that is repeated becomes a list."""
    if not raw:
        return {}
    try:
        pairs = parse_qsl(raw.decode(errors="replace"), keep_blank_values=True, max_num_fields=_MOST_ARGUMENTS)
    except ValueError:
        raise Malformed(f"More than {_MOST_ARGUMENTS} arguments are too many.") from None
    values: dict[str, object] = {}
    for name, value in pairs:
        before = values.get(name)
        if before is None:
            values[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            values[name] = [before, value]
    return values


def _multipart(request: Request) -> Body:
    values: dict[str, object] = {name: items[0] if len(items) == 1 else items for name, items in request.form.lists()}
    uploads = {name: Upload(file.filename or "", file.stream) for name, file in request.files.items()}
    return Body({**_form(request.query_string), **values}, uploads=uploads)


def check_arguments(method: Method, body: Body, *, strict: bool) -> dict[str, object]:
    """The arguments of a call in their types; what was not given, or is null, is left out.

    Args:
        strict: JSON values must have the right type already (v1), instead of being converted where that is safe.

    Raises:
        BadArgument: one is missing, unknown or mistyped.
    """
    values: dict[str, object] = {}
    for name, value in body.values.items():
        argument = method.arguments.get(name)
        if argument is None:
            raise BadArgument("Argument error", f"{method.path} does not know the argument {shown(name)}")
        if value is None or (value == "None" and not body.is_json):
            continue
        values[name] = value if argument.kind is Kind.ANY else _checked(argument, value, strict=strict and body.is_json)
    for name in method.needed:
        if name not in values:
            raise BadArgument("Argument error", f"{method.path} needs the argument {name!r}")
    return values


def _checked(argument: Argument, value: object, *, strict: bool) -> object:
    kind = argument.kind
    if kind in (Kind.TEXTS, Kind.INTEGERS, Kind.ITEMS):
        items = value if isinstance(value, list) else [value] if not strict else None
        if items is None:
            raise _type_error(argument, value)
        inner = {Kind.TEXTS: Kind.TEXT, Kind.INTEGERS: Kind.INTEGER}.get(kind)
        if inner is None:
            return items
        return [_checked(Argument(argument.name, inner), item, strict=strict) for item in items]
    if kind is Kind.OBJECT:
        if not isinstance(value, dict):
            raise _type_error(argument, value)
        return value
    if argument.free and isinstance(value, str):
        return value
    converted = _STRICT[kind](value) if strict else _LENIENT[kind](value)
    if converted is None:
        raise _type_error(argument, value)
    return converted


def _type_error(argument: Argument, value: object) -> BadArgument:
    return BadArgument("Type error", f"{argument.name} must be {argument.kind.value}, not {shown(value)}")


#: Numbers beyond 64 bits fit into no column.
_LARGEST = 2**63


def _strict_text(value: object) -> str | None:
    return value if isinstance(value, str) and "\x00" not in value else None


def _strict_integer(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST else None


def _strict_number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST else None


def _strict_flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _lenient_text(value: object) -> str | None:
    return str(value) if isinstance(value, bool | int | float) else _strict_text(value)


def _lenient_integer(value: object) -> int | None:
    number = _lenient_number(value)
    return None if number is None else int(number)


def _lenient_number(value: object) -> float | None:
    if isinstance(value, str):
        # Python takes the digits of all scripts for numbers, and underscores between them; no pilot means that.
        if not value.isascii() or "_" in value:
            return None
        try:
            value = int(value) if value.strip().lstrip("+-").isdecimal() and len(value) < 30 else float(value)
        except ValueError:
            return None
    return _strict_number(value)  # NaN and infinity are not smaller than anything


def _lenient_flag(value: object) -> bool | None:
    text = str(value).lower()
    return True if text in _TRUE else False if text in _FALSE else None


_STRICT: Mapping[Kind, Callable[[object], object]] = {
    Kind.TEXT: _strict_text,
    Kind.INTEGER: _strict_integer,
    Kind.NUMBER: _strict_number,
    Kind.FLAG: _strict_flag,
}
_LENIENT: Mapping[Kind, Callable[[object], object]] = {
    Kind.TEXT: _lenient_text,
    Kind.INTEGER: _lenient_integer,
    Kind.NUMBER: _lenient_number,
    Kind.FLAG: _lenient_flag,
}
