"""Tokens of this server, of three kinds, looked up in one way.

The tokens file has the first ones, the database those that operators make (`pilotkit token create`): random texts of
which only the SHA-256 is kept. Either is exchanged for tokens that end soon (`creds/renew_token`): JSON web tokens
(RFC 7519), of which nothing is stored. They name the one they descend from, and die with it when it is revoked.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jwt

from server.db import accounts, information
from server.db.accounts import Token
from server.logic.context import Context, Identity, Role
from server.logic.errors import BadCredential, BadField, Conflict, NotFound
from server.logic.names import QUEUE_LENGTH, complaint_about_queue, shown

ISSUER = "pilotkit"
#: What tokens begin with that operators make: programs that look for leaked secrets find them by it.
PREFIX = "pkt_"
#: Bytes of a token that nobody can guess, and of the key; the key's are as many as the hash has (RFC 7518, 3.2).
_KEY_LENGTH = 32
#: Characters of the digest that are a token's number.
_NUMBER_LENGTH = 16
#: How long a token may be good for, in s: what nobody has looked at for a year is not needed.
SHORTEST, LONGEST = 60, 366 * 86400
#: Tokens that ended are still listed for this long, in s.
_KEPT = 30 * 86400
#: The queue of a pilot's token that is good for all queues.
ANY_QUEUE = "*"
_NAME_LENGTH, _LABEL_LENGTH = 128, 20


@dataclass(frozen=True)
class Grant:
    """What a token of the file or the database allows; `identity.until` says how long."""

    identity: Identity
    digest: str
    revoked: bool = False


@dataclass(frozen=True)
class Claims:
    """What a token that was issued in exchange says: which one it descends from, and when it ends."""

    parent: str
    ends: float


def digest_of(token: str) -> str:
    """The SHA-256 of a token."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def number_of(digest: str) -> str:
    """A token's number, by which it is known where it must not be shown."""
    return digest[:_NUMBER_LENGTH]


def identify(context: Context, filed: Mapping[str, Grant], token: str) -> Identity:
    """The caller with a token of this server.

    Args:
        filed: the tokens of the tokens file by their numbers.

    Raises:
        BadCredential: it is none of ours, was revoked, or has ended.
    """
    digest = digest_of(token)
    grant = filed.get(number_of(digest))
    if grant is None and token.startswith(PREFIX):
        grant = _made(context, number_of(digest))
    if grant is not None and hmac.compare_digest(grant.digest, digest):
        _check(grant)
        if grant.identity.until is not None:
            _check_end(grant.identity.until, context.clock())
        return grant.identity
    claims = read(token, read_key(context.settings.token_key_path()), context.clock())
    parent = filed.get(claims.parent) or _made(context, claims.parent)
    if parent is None:
        raise BadCredential("The token that this one was issued for is no longer known here.")
    _check(parent)
    return parent.identity


def _check(grant: Grant) -> None:
    if grant.revoked:
        raise BadCredential("This token was revoked.")


def _check_end(ends: float, now: float) -> None:
    if now >= ends:
        raise BadCredential(f"This token ended {now - ends:.0f} s ago; get a new one before it ends.")


def _made(context: Context, number: str) -> Grant | None:
    with context.database.reading() as connection:
        token = accounts.read_token(connection, number)
    if token is None:
        return None
    roles = frozenset(Role(role) for role in token.roles)
    identity = Identity(token.name, roles, token.tokenID, token.endTime, token.queue, token.label)
    return Grant(identity, token.digest, token.revokedTime is not None)


# ---- what operators do


def create(
    context: Context, identity: Identity, name: str, roles: Sequence[str], queue: str, label: str, lifetime: int
) -> tuple[str, Token, str]:
    """Make a token; nobody will see it again.

    Args:
        queue: all that a pilot may ask jobs for; `*` for every queue.
        label: the prodSourceLabel that a pilot may ask for; empty for any.
        lifetime: s.

    Returns:
        The token, what is kept of it, and a remark; empty if there is nothing to say.

    Raises:
        BadField: a value cannot be used.
        Conflict: the name belongs to pilots of another queue.
    """
    _check_wishes(name, roles, queue, label, lifetime)
    text, now = PREFIX + secrets.token_urlsafe(_KEY_LENGTH), context.clock()
    digest = digest_of(text)
    bound = "" if queue == ANY_QUEUE else queue
    token = Token(
        number_of(digest), digest, name, sorted(set(roles)), bound, label, now, identity.name or "operator",
        now + lifetime,
    )  # fmt: skip
    with context.database.durable() as connection:
        accounts.forget_tokens(connection, now - _KEPT - context.settings.token_lifetime)
        for other in accounts.read_tokens(connection, name):
            if Role.PILOT in {*other.roles, *roles} and (other.queue, other.label) != (bound, label):
                raise Conflict(
                    f"{shown(name)} has a token for queue {other.queue or ANY_QUEUE} and label {other.label or 'any'}:"
                    " give pilots of different queues or labels different names, or they may update each other's jobs."
                )
        accounts.add_token(connection, token)
        unknown = bound and information.read_queue(connection, bound) is None
    return text, token, f"this server has no queue {bound} yet" if unknown else ""


def _check_wishes(name: str, roles: Sequence[str], queue: str, label: str, lifetime: int) -> None:
    if not 0 < len(name) <= _NAME_LENGTH or not name.isprintable() or name != name.strip():
        raise BadField("name", f"must be 1 to {_NAME_LENGTH} printable characters, not {shown(name)}")
    if not roles or not set(roles) <= set(Role):
        raise BadField("roles", f"must be a list of {', '.join(Role)}")
    if not {Role.PILOT, Role.HARVESTER} & set(roles) and (queue or label):
        raise BadField("queue" if queue else "label", "is for the roles pilot and harvester only")
    if Role.PILOT in roles and not queue:
        raise BadField("queue", f"is needed for the role pilot: the one it may have jobs of, or {ANY_QUEUE} for all")
    if queue not in ("", ANY_QUEUE) and (complaint := complaint_about_queue(queue)):
        raise BadField("queue", f"has a bad name: {complaint}")
    if len(queue) > QUEUE_LENGTH or len(label) > _LABEL_LENGTH or not label.isprintable():
        raise BadField("label", f"must be a prodSourceLabel of at most {_LABEL_LENGTH} characters")
    if not SHORTEST <= lifetime <= LONGEST:
        raise BadField("lifetime", f"must be between {SHORTEST} s and {LONGEST} s (a year), not {lifetime}")


def show(context: Context) -> list[Token]:
    """All tokens that operators have made; those that ended a month ago are forgotten."""
    with context.database.reading() as connection:
        return accounts.read_tokens(connection)


def revoke(context: Context, identity: Identity, number: str, name: str) -> list[str]:
    """Revoke a token by its number, or all of a name, and with them what they were exchanged for.

    Returns:
        The numbers of those that were good until now.

    Raises:
        BadField: neither or both were given.
        NotFound: there is none that could be revoked.
    """
    if bool(number) == bool(name):
        raise BadField("token_id", "or name must be given, one of them")
    with context.database.durable() as connection:
        by, now = identity.name or "operator", context.clock()
        revoked = accounts.revoke_tokens(connection, by, now, token_id=number, name=name)
    if not revoked:
        raise NotFound(f"There is no token of {shown(number or name)} that could be revoked.")
    return revoked


# ---- tokens in exchange


def renew(context: Context, identity: Identity) -> tuple[str, int]:
    """A fresh token for a caller, and the seconds it is good for.

    The last one may outlive what it was issued for, so that no job is cut off in the middle; it is not renewed then.

    Raises:
        Conflict: the caller has none to renew, or the one it descends from has ended.
    """
    if not identity.token:
        raise Conflict("You did not show a token of this server, so there is none to renew.")
    lifetime, now = context.settings.token_lifetime, context.clock()
    if identity.until is not None and now >= identity.until:
        raise Conflict("The token that yours was issued for has ended; ask the server's operators for a new one.")
    claims = {"iss": ISSUER, "sub": identity.name, "par": identity.token, "iat": now, "exp": now + lifetime}
    path = context.settings.token_key_path()
    return sign(claims, read_key(path) or make_key(path)), lifetime


def sign(claims: dict[str, object], key: bytes) -> str:
    """A token with these claims."""
    return jwt.encode(claims, key, algorithm="HS256")


def read(token: str, key: bytes, now: float) -> Claims:
    """What a token says that was issued in exchange.

    Raises:
        BadCredential: it is none of ours, or has ended.
    """
    try:
        if not key:
            raise jwt.InvalidTokenError
        claims = jwt.decode(
            token,
            key,
            algorithms=["HS256"],
            issuer=ISSUER,
            options={"verify_exp": False, "verify_iat": False, "require": ["par", "exp"]},  # the end: by our own clock
        )
    except jwt.InvalidTokenError:
        raise BadCredential("This token is not known here.") from None
    _check_end(float(claims["exp"]), now)
    return Claims(str(claims["par"]), float(claims["exp"]))


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
