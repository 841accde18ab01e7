"""Blots secrets out of text and files: none may reach a log, a report or the log tarball (promise S4).

Two kinds are known: what signs a URL or stands for a password in one, by its form; and by their values the tokens,
private keys and passwords that the pilot itself has read or was given.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from pilot.util.https import Json

# What takes a secret's place.
BLOT = "***"

# Parameters of a URL's query that open what the URL names: AWS (versions 4 and 2), Google, Azure, and the tokens that
# XRootD and dCache take. They are known by the ? or & before them, which may be encoded, since a URL may stand in
# another URL or in JSON: the same words in other text are no secrets.
_NAMES = (
    r"X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig|access_token|token|authz"
    r"|password|secret"
)
_PARAMETER = re.compile(
    rf"((?:[?&;]|&amp;|%3F|%26|\\u0026)(?:{_NAMES})(?:=|%3D))((?:(?!%26|&|\\u0026)[^\s\"'<>\\,;)\]}}#])+)",
    re.IGNORECASE,
)
# scheme://user:password@host
_PASSWORD = re.compile(r"(://[^/\s:@\"']+:)([^/\s@\"']+)(?=@)")


def without_secrets(text: str) -> str:
    """The text with the secrets in its URLs blotted out, and nothing else changed."""
    if "://" in text:
        text = _PASSWORD.sub(rf"\1{BLOT}", text)
    return _PARAMETER.sub(rf"\1{BLOT}", text) if "=" in text or "%3" in text else text


def is_signed(url: str) -> bool:
    """Whether a URL carries its own permission, so that it may be neither changed nor shown."""
    return without_secrets(url) != url


def location_of(url: str) -> str:
    """A URL for a catalogue: a signed one without its query, which is no part of where a file is."""
    return url.partition("?")[0] if is_signed(url) else url


def signatures(url: str) -> list[str]:
    """What is secret in a URL, by value: signatures, tokens, and a password before the host."""
    return [found.group(2) for pattern in (_PASSWORD, _PARAMETER) for found in pattern.finditer(url)]


# ---- secrets that are known by their value

# A shorter value (characters) is found in everything, and protects nothing.
_LEAST = 4
# Below this length a value must have characters of two kinds: "true", "test" and "2026" are words of every log.
_LEAST_PLAIN = 8
# Below this length a value counts only where it is a word of its own: no word that contains it is a secret.
_LEAST_ANYWHERE = 12
# Encoded forms of fewer characters than this would be found in text by chance.
_LEAST_ENCODED = 8
# A word ends where letters, digits and underscores end; an escape before it (%3D, \n, \u0026) is no part of it.
_BEFORE = r"(?:(?<![A-Za-z0-9_])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{4}))"
_AFTER = r"(?![A-Za-z0-9_])"
# So many characters around a value decide whether it is a word of its own.
_AROUND = 6

# What is secret in a file: the body of a private key (PEM), also as text in JSON, and keys in AWS's form.
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.+?)(?:-----END|\Z)", re.DOTALL)
_AWS = re.compile(
    r"^\s*(?:aws_access_key_id|aws_secret_access_key|aws_session_token|aws_security_token)\s*=\s*(\S+)",
    re.MULTILINE | re.IGNORECASE,
)


def secrets_in(contents: bytes) -> list[str]:
    """What is secret in a file of credentials: a token, private keys line by line, keys of object stores.

    Certificates are public and are not among it.
    """
    text = contents.decode("utf-8", "replace").replace("\\n", "\n")
    found = [line for body in _KEY.findall(text) for line in body.split()] + _AWS.findall(text)
    words = text.split()
    return found or (words if len(words) == 1 else [])


class Secrets:
    """The secrets that this pilot knows by value. Values may be added at any time, by any thread.

    A value is recognised as it is, percent-encoded, as in JSON, and in base64 wherever it begins. What is too short to
    be told from other words is not taken (see docs/credentials.md).
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._values: frozenset[str] = frozenset()
        # Longest first: a part of a secret that is replaced would hide the rest.
        self._forms: tuple[tuple[str, bytes, re.Pattern[str] | None, re.Pattern[bytes] | None], ...] = ()
        self.add(*values)

    def add(self, *values: str) -> None:
        """Know these, too."""
        wanted = {one.strip() for value in values for one in _parts(value) if _is_telling(one.strip())}
        with self._lock:
            if wanted <= self._values:
                return
            self._values |= wanted
            forms = {form for value in self._values for form in _forms(value)}
            self._forms = tuple(_compiled(form) for form in sorted(forms, key=len, reverse=True))

    def learn(self, contents: bytes) -> None:
        """Know what is secret in a file of credentials."""
        self.add(*secrets_in(contents))

    def blot(self, text: str) -> str:
        """The text with all secrets blotted out, those in URLs included, and nothing else changed."""
        for form, _, word, _ in self._forms:
            if form in text:
                text = text.replace(form, BLOT) if word is None else word.sub(BLOT, text)
        return without_secrets(text)

    def blot_all(self, value: Json) -> Json:
        """The same for every text in what will be JSON."""
        if isinstance(value, str):
            return self.blot(value)
        if isinstance(value, dict):
            return {name: self.blot_all(one) for name, one in value.items()}
        return [self.blot_all(one) for one in value] if isinstance(value, list) else value

    @property
    def reach(self) -> int:
        """So many bytes before and after a piece of a file decide what in it is secret."""
        return len(self._forms[0][1]) + _AROUND if self._forms else 0

    def mask(self, data: bytes) -> bytes:
        """The same for bytes, known values only; what is secret becomes as many asterisks, so that sizes stay."""
        for _, form, _, word in self._forms:
            if form in data:
                stars = b"*" * len(form)
                data = data.replace(form, stars) if word is None else word.sub(stars, data)
        return data


def _parts(value: str) -> list[str]:
    """A value, and the lines of one that has several: what shows a key or a file shows it line by line."""
    lines = [line for line in value.splitlines() if len(line.strip()) >= _LEAST_ANYWHERE]
    return [value, *(line for line in lines if not line.strip().startswith("-----"))]


def _is_telling(value: str) -> bool:
    kinds = sum(any(test(c) for c in value) for test in (str.isalpha, str.isdigit, lambda c: not c.isalnum()))
    return len(value) >= _LEAST_PLAIN or (len(value) >= _LEAST and kinds > 1)


def _forms(value: str) -> set[str]:
    """A value in the encodings in which it comes along."""
    data = value.encode("utf-8", "surrogateescape")
    percent = quote(data, safe="")
    encoded = {quote(data, safe="/"), percent, re.sub("%..", lambda found: found.group().lower(), percent)}
    encoded |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    for shift in range(3):
        # The characters that no neighbour of the value in the encoded bytes has a part in.
        whole = base64.b64encode(b"\0" * shift + data).rstrip(b"=").decode()
        core = whole[-(-shift * 8 // 6) : (shift + len(data)) * 8 // 6]
        if len(core) >= _LEAST_ENCODED:
            encoded |= {core, core.replace("+", "-").replace("/", "_")}
    return {value, *encoded}


def _compiled(form: str) -> tuple[str, bytes, re.Pattern[str] | None, re.Pattern[bytes] | None]:
    data = form.encode("utf-8", "surrogateescape")
    if len(form) >= _LEAST_ANYWHERE:
        return form, data, None, None
    word = _BEFORE + re.escape(form) + _AFTER
    as_bytes = _BEFORE.encode() + re.escape(data) + _AFTER.encode()
    return form, data, re.compile(word), re.compile(as_bytes)
