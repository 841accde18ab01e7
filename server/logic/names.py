"""What names from outside may look like: they become file names, list items and parts of URLs elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: An LFN or local name: no '/', blank, quote, comma (lists on the wire are comma-joined) or colon (scope:lfn).
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@%#~^-]*\Z")
#: A local name of an output may be a pattern, which runGen packs into one archive (client.md 1.3).
_PATTERN = re.compile(r"[A-Za-z0-9_*?][A-Za-z0-9_.+=@%#~^*?-]*\Z")
_SCOPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]*\Z")
_UNSAFE_IN_SCOPE = re.compile(r"[^A-Za-z0-9_.-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

#: File systems take 255 bytes in a name (and PanDA 256 characters in an LFN).
FILE_LENGTH = 255
SCOPE_LENGTH = 64
QUEUE_LENGTH = 128


def complaint_about_file(name: object, *, pattern: bool = False) -> str:
    """What is wrong with a file name (with `*` and `?` allowed in a pattern); empty if nothing is."""
    if not isinstance(name, str) or not name:
        return f"a file name is wanted, not {shown(name)}"
    if len(name) > FILE_LENGTH:
        return f"the file name has {len(name)} characters; {FILE_LENGTH} is the most a file system takes"
    if (_PATTERN if pattern else _FILE).match(name):
        return ""
    return (
        f"{shown(name)} cannot be a file name: letters, digits and _ . + - = @ % # ~ ^ may be used, "
        "no path, blank, comma or control character, and the first must be a letter, a digit or _"
    )


def is_pattern(name: str) -> bool:
    """Whether the name of an output stands for all files that match it."""
    return "*" in name or "?" in name


def complaint_about_scope(scope: object) -> str:
    """What is wrong with a scope; empty if nothing is."""
    return _complaint(scope, "scope", _SCOPE, SCOPE_LENGTH, "_ . -")


def complaint_about_queue(name: object) -> str:
    """What is wrong with the name of a queue or storage; empty if nothing is."""
    return _complaint(name, "name", _QUEUE, QUEUE_LENGTH, "_ . @ + -")


def _complaint(value: object, what: str, form: re.Pattern[str], length: int, signs: str) -> str:
    if not isinstance(value, str) or not value:
        return f"a {what} is wanted, not {shown(value)}"
    if len(value) > length:
        return f"the {what} has {len(value)} characters; {length} is the most"
    if form.match(value):
        return ""
    return (
        f"{shown(value)} cannot be a {what}: letters, digits and {signs} may be used, "
        "and the first must be a letter or a digit"
    )


def scope_of(user: str) -> str:
    """The scope of a user's own files: user.<name>, with what a scope cannot hold replaced by _."""
    return f"user.{_UNSAFE_IN_SCOPE.sub('_', user)}"[:SCOPE_LENGTH]


def has_control_characters(text: str) -> bool:
    """Whether a text has NUL, newline or another control character."""
    return _CONTROL.search(text) is not None


def shown(value: object) -> str:
    """A value as it can stand in a message: quoted, control characters escaped, not longer than a line."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def with_names(text: str, renamed: Mapping[str, str]) -> str:
    """A job's parameters with other file names, wherever one stands as a whole.

    Not where it is a key, as in runGen's -o "{'local name': 'LFN'}" (client.md 1.3): the payload's own name stays.
    """
    if not renamed:
        return text
    any_of_them = "|".join(map(re.escape, renamed))
    return re.sub(
        rf"(?<![\w.+=@%#~^-])(?:{any_of_them})(?![\w.+=@%#~^-]|['\"]\s*:)", lambda found: renamed[found[0]], text
    )
