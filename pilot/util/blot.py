"""Blots secrets out of text: what signs a URL or stands for a password in one must reach no log and no report (S4)."""

from __future__ import annotations

import re

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
