"""Who is calling: bearer tokens, and what is open without one."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path

from flask import Request

from server.logic import tokens
from server.logic.context import ANYBODY, Identity, Role
from server.settings import ConfigurationError, Settings, is_loopback

#: Names are stored with what their bearers do.
_NAME_LENGTH = 128


class Denied(Exception):
    """The caller is not who may do this; the text says why."""


class Gate:
    """Tells callers apart by their token.

    A token is one of the tokens file, or one that this server has issued in exchange for one (server.logic.tokens).
    Without a tokens file only this machine may call, and may do everything. A request that came through a proxy is not
    from this machine, wherever the proxy runs.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the tokens file, if there is one.

        Raises:
            ConfigurationError: it cannot be read, or has something else in it.
        """
        self._tokens: Mapping[bytes, Identity] = _read_tokens(Path(settings.tokens)) if settings.tokens else {}
        self._by_name = {identity.token: identity for identity in self._tokens.values()}
        self._key_path = settings.token_key_path()
        self._key = b""
        self._open = not settings.tokens

    def identify(self, request: Request) -> Identity:
        """The caller of a request.

        Raises:
            Denied: there is no token, or none we know, or the caller is not on this machine and there are no tokens.
        """
        if self._open:
            if is_loopback(request.remote_addr or "") and "X-Forwarded-For" not in request.headers:
                return ANYBODY
            raise Denied("This server has no tokens and is open to its own machine only. Give it a tokens file.")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Denied("A token is needed: send it as 'Authorization: Bearer <token>'.")
        presented = token.strip().encode(errors="replace")
        found: Identity | None = None
        for known, identity in self._tokens.items():  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(known, presented):
                found = identity
        return found if found is not None else self._descendant(token.strip())

    def _descendant(self, token: str) -> Identity:
        """The caller with a token that this server has issued."""
        self._key = self._key or tokens.read_key(self._key_path)
        try:
            claims = tokens.read(token, self._key, time.time())
        except tokens.BadToken as error:
            raise Denied(str(error)) from None
        found = self._by_name.get(claims.parent)
        if found is None:
            raise Denied("The token that this one was issued for is no longer in the tokens file.")
        return found


def _read_tokens(path: Path) -> dict[bytes, Identity]:
    """The tokens of a file {token: {"name": ..., "roles": [...]}}."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"The tokens file {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigurationError(f"The tokens file {path} is not JSON: {error}.") from None
    if not isinstance(content, dict) or not content:
        raise ConfigurationError(f"The tokens file {path} must be a JSON object with at least one token.")
    found: dict[bytes, Identity] = {}
    for number, (token, entry) in enumerate(content.items(), start=1):
        where = f"The tokens file {path}, token {number}"  # never the token itself: this text goes to logs
        if len(token) < 8:
            raise ConfigurationError(f"{where}: it has fewer than 8 characters, which can be guessed.")
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(name, str) or not 0 < len(name) <= _NAME_LENGTH:
            raise ConfigurationError(f'{where}: it needs a "name" of at most {_NAME_LENGTH} characters.')
        roles = entry.get("roles")
        if not isinstance(roles, list) or not roles or not set(map(str, roles)) <= set(Role):
            raise ConfigurationError(f'{where}: "roles" must be a list of {", ".join(Role)}.')
        encoded = token.encode()
        found[encoded] = Identity(name, frozenset(Role(role) for role in roles), tokens.fingerprint(encoded))
    return found
