"""Bearer tokens: what a JSON web token (RFC 7519) says of itself. Nothing is verified: it is the pilot's own."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenInfo:
    """What stands in a token; empty, or 0 for times (seconds since the epoch), where it says nothing."""

    begins: float = 0.0
    ends: float = 0.0
    issuer: str = ""
    subject: str = ""
    audience: str = ""


def read_token(token: str) -> TokenInfo:
    """What a token says; an opaque one says nothing."""
    parts = token.split(".")
    if len(parts) != 3:
        return TokenInfo()
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return TokenInfo()
    if not isinstance(claims, dict):
        return TokenInfo()
    audience = claims.get("aud", "")
    return TokenInfo(
        begins=_time(claims.get("iat")) or _time(claims.get("nbf")),
        ends=_time(claims.get("exp")),
        issuer=str(claims.get("iss", "")),
        subject=str(claims.get("sub", "")),
        audience=" ".join(map(str, audience)) if isinstance(audience, list) else str(audience),
    )


def is_token(text: str) -> bool:
    """Whether a text can be sent as a bearer token: printable, and one word (RFC 6750)."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _time(value: object) -> float:
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else 0.0  # type: ignore[arg-type]  # it is a number, as was just seen
