"""Tokens that this server issues: a caller with a token of the tokens file gets others for a limited time.

They are JSON web tokens (RFC 7519) signed with HMAC-SHA256. Nothing is stored of them: a token names the one in the
file that it descends from, and dies with it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from server.logic.context import Context, Identity
from server.logic.errors import Conflict, DispatcherError

ISSUER = "pilotkit"
#: Bytes of the key; as many as the hash has (RFC 7518, 3.2).
_KEY_LENGTH = 32
_HEADER = {"alg": "HS256", "typ": "JWT"}


class BadToken(DispatcherError):
    """A token is not one of ours, or has ended; the text never shows it."""


@dataclass(frozen=True)
class Claims:
    """What a token of ours says: which token of the file it descends from, and when it ends (seconds since 1970)."""

    parent: str
    ends: float


def fingerprint(token: bytes) -> str:
    """A name for a token of the tokens file that does not give it away."""
    return hashlib.sha256(token).hexdigest()[:16]


def renew(context: Context, identity: Identity) -> tuple[str, int]:
    """A fresh token for a caller, and the seconds it is good for.

    Raises:
        Conflict: the caller has none to renew, since the server is open to its own machine.
    """
    if not identity.token:
        raise Conflict("This server has no tokens, so there is none to renew.")
    lifetime = context.settings.token_lifetime
    now = context.clock()
    claims = {"iss": ISSUER, "sub": identity.name, "par": identity.token, "iat": now, "exp": now + lifetime}
    path = context.settings.token_key_path()
    return sign(claims, read_key(path) or make_key(path)), lifetime


def sign(claims: dict[str, object], key: bytes) -> str:
    """A token with these claims."""
    body = ".".join(_packed(json.dumps(part, separators=(",", ":")).encode()) for part in (_HEADER, claims))
    return f"{body}.{_packed(_signature(body, key))}"


def read(token: str, key: bytes, now: float) -> Claims:
    """What a token says.

    Raises:
        BadToken: it is none of ours, or has ended.
    """
    body, _, signature = token.rpartition(".")
    if not key or not hmac.compare_digest(_packed(_signature(body, key)).encode(), signature.encode(errors="replace")):
        raise BadToken("This token is not known here.")
    claims = json.loads(_unpacked(body.partition(".")[2]))
    if now >= claims["exp"]:
        raise BadToken(f"This token ended {now - claims['exp']:.0f} s ago; get a new one before it ends.")
    return Claims(claims["par"], claims["exp"])


def read_key(path: Path) -> bytes:
    """The key that tokens are signed with; empty when no token was ever issued."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def make_key(path: Path) -> bytes:
    """Make the key, unless another process has just done so."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(secrets.token_bytes(_KEY_LENGTH))
        stream.flush()
        os.fsync(stream.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(beside, path)
    beside.unlink()
    return path.read_bytes()


def _signature(body: str, key: bytes) -> bytes:
    return hmac.new(key, body.encode(errors="replace"), hashlib.sha256).digest()


def _packed(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _unpacked(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
