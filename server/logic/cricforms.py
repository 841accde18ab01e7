"""What the information service's answers look like: their JSON as entries by name, without database or network.

The forms are those of CRIC's addresses in chapter 17 of PanDA's documents, and of chapter 12.1.1 for software.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qs, urlsplit

from server.db.network import Link
from server.logic.names import complaint_about_queue, has_control_characters, shown

#: What an entry of the blacklist closes a storage for; the values are what a person is told.
READ, WRITE = "read", "write"
#: Longest key of a link between sites.
_KEY_LENGTH = 64
#: No link is anything like this; larger numbers, and those that are none, are mistakes.
_LARGEST = 1e100
#: Longest reason that is kept of an entry of the blacklist.
_REASON_LENGTH = 200


class BadAnswer(Exception):
    """An answer cannot be used as a whole; nothing of it was taken over."""


def read_json(content: bytes) -> object:
    """The JSON of an answer.

    Raises:
        BadAnswer: it is none, or not all of it.
    """
    try:
        return json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        begin = content[:40].decode("utf-8", "replace")
        raise BadAnswer(f"the answer is not JSON ({error}); it begins with {shown(begin)}") from None


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")


def entries_of(answer: object) -> tuple[dict[str, dict[str, object]], list[str]]:
    """Objects by name, from an object of objects or a list of objects with a name; and what cannot be used of it.

    Raises:
        BadAnswer: it is neither.
    """
    entries: dict[str, dict[str, object]] = {}
    complaints: list[str] = []
    for name, entry in _named(answer):
        if complaint := complaint_about_queue(name):
            complaints.append(f"an entry has a bad name: {complaint}")
        elif not isinstance(entry, dict):
            complaints.append(f"{name} must be an object, not {shown(entry)}")
        elif complaint := _complaint_about_numbers(entry):
            complaints.append(f"{name} {complaint}")
        else:
            entries[str(name)] = entry
    return entries, complaints


def _named(answer: object) -> Iterator[tuple[object, object]]:
    if isinstance(answer, dict):
        yield from answer.items()
    elif isinstance(answer, list):
        for entry in answer:
            yield (entry.get("name") if isinstance(entry, dict) else entry), entry
    else:
        raise BadAnswer(f"the answer must be an object or a list, not {shown(answer)}")


def _complaint_about_numbers(entry: Mapping[str, object]) -> str:
    """JSON may spell numbers that no database takes, like 1e999."""
    try:
        json.dumps(entry, allow_nan=False)
    except ValueError:
        return "has a number that is too large"
    except RecursionError:
        return "is nested too deeply"
    return ""


def blacklist_of(answer: object, address: str) -> tuple[dict[str, dict[str, str]], list[str]]:
    """{RSE: {"read" or "write": why}} of storages that are closed, and what cannot be used of the answer.

    An entry names activities, {RSE: {activity: {status: {value, reason}}}}; what has another value than OFF is open.
    One that names none, and an RSE in a plain list, is closed for the activities in the address's query (chapter 17
    asks for `activity=write_wan`), or else for both.

    Raises:
        BadAnswer: it is neither an object nor a list.
    """
    asked = parse_qs(urlsplit(address).query).get("activity", [])
    general = {kind for kind in map(closed_by, asked) if kind} or {READ, WRITE}
    found: dict[str, dict[str, str]] = {}
    complaints: list[str] = []
    for name, entry in _named(answer):
        if complaint := complaint_about_queue(name):
            complaints.append(f"an entry has a bad name: {complaint}")
            continue
        activities = _activities(entry)
        closed: dict[str, str] = {}
        for activity, status in activities.items():
            if closed_by(activity) and _value(status) == "OFF":
                closed[closed_by(activity)] = _reason(status) or f"{activity} is OFF"
        if not activities:
            closed = {kind: _reason(entry) or "it is on the blacklist" for kind in sorted(general)}
        if closed:
            found[str(name)] = closed
    return found, complaints


def _activities(entry: object) -> dict[str, object]:
    """What an entry names activities; delete_wan is one as well, and closes nothing that we do."""
    if not isinstance(entry, dict):
        return {}
    return {
        key: value for key, value in entry.items() if closed_by(key) or (isinstance(value, dict) and key != "status")
    }


def closed_by(activity: str) -> str:
    """Whether an activity (read_lan, write_wan, pr, pw ...) reads or writes; empty for others."""
    if activity in ("pr", "r") or activity.startswith("read"):
        return READ
    return WRITE if activity in ("pw", "pl", "w") or activity.startswith("write") else ""


def _value(status: object) -> str:
    """OFF unless the entry says something else: being there at all means being closed."""
    inner = status.get("status", status) if isinstance(status, dict) else status
    value = inner.get("value", "OFF") if isinstance(inner, dict) else inner
    return value.upper() if isinstance(value, str) else "OFF"


def _reason(status: object) -> str:
    inner = status.get("status") if isinstance(status, dict) else None
    for holder in (inner, status):
        reason = holder.get("reason") if isinstance(holder, dict) else None
        if isinstance(reason, str) and reason.strip():
            text = " ".join(reason.split())[:_REASON_LENGTH]
            return "".join(sign if sign.isprintable() else "?" for sign in text)
    return ""


def links_of(answer: object) -> tuple[dict[Link, float], list[str]]:
    """The numbers of a site matrix: a list (or object) of {src, dst, key: number ...}; and what cannot be used of it.

    Raises:
        BadAnswer: it is neither.
    """
    links: dict[Link, float] = {}
    complaints: list[str] = []
    for _, entry in _named(answer):
        if not isinstance(entry, dict):
            complaints.append(f"a link must be an object, not {shown(entry)}")
            continue
        src, dst = entry.get("src"), entry.get("dst")
        if complaint := complaint_about_queue(src) or complaint_about_queue(dst):
            complaints.append(f"the link from {shown(src)} to {shown(dst)} cannot be used: {complaint}")
            continue
        for key, value in entry.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not key or len(key) > _KEY_LENGTH or has_control_characters(key) or not abs(value) < _LARGEST:
                complaints.append(f"the link from {src} to {dst} has a bad {shown(key)}")
            else:
                links[Link(str(src), str(dst), key)] = float(value)
    return links, complaints
