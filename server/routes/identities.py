"""Who is calling: tokens and certificates, and what is open without one."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Sequence
from pathlib import Path

from flask import Request

from server.logic import tokens, users
from server.logic.authconfig import read_auth_config
from server.logic.certificates import Certificates
from server.logic.context import ANYBODY, Context, Identity
from server.logic.errors import BadCredential
from server.logic.oidc import Providers, issuer_of
from server.logic.tokenfile import read_tokens
from server.logic.users import Login
from server.settings import Settings, is_loopback
from server.tls import peer_chain

#: How long, in s, a web worker remembers who somebody is: what was revoked or banned is refused everywhere after it.
REMEMBERED = 5.0
#: Callers that a web worker remembers at once; more begin anew, which costs each of them a question to the database.
_MOST_REMEMBERED = 50_000
#: Longest token, in characters: no header that gunicorn lets through is longer.
_TOKEN_LENGTH = 8190


class Denied(Exception):
    """The caller is not who may do this; the text says why."""


class Gate:
    """Tells callers apart by what they show.

    A server without any way to tell them is open to its own machine, whose users may do everything. A request that
    came through a proxy is not from this machine, wherever the proxy runs.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the tokens file and those about ID tokens and certificates, as far as they are there.

        Raises:
            ConfigurationError: one cannot be read, or has something else in it.
        """
        self._open = settings.is_open()
        self._filed = read_tokens(Path(settings.tokens)) if settings.tokens else {}
        self._reserved = frozenset(grant.identity.name for grant in self._filed.values())
        config = read_auth_config(settings)
        self.providers = Providers(config)
        self._certificates = Certificates(settings, config)
        self._trusted = settings.trusted_networks()
        self._trusts_voms = settings.trusted_voms == 1
        self._remembered: dict[bytes, tuple[float, Identity]] = {}

    def identify(self, request: Request, context: Context) -> Identity:
        """The caller of a request.

        Raises:
            Denied: there is no credential, or none that is good, or the caller is not on this machine and the server
                is open to no other.
            ProviderAway: the provider of an ID token does not answer.
        """
        if self._open:
            if is_loopback(request.remote_addr or "") and "X-Forwarded-For" not in request.headers:
                return ANYBODY
            raise Denied("This server has no tokens and is open to its own machine only. Give it a tokens file.")
        token = _token(request)
        if token:
            origin = request.headers.get("Origin", "")
            return self._recall(f"token\n{origin}\n{token}", context, lambda: self._look_up(token, origin, context))
        if chain := peer_chain(request.environ.get("gunicorn.socket")):
            shown = b"".join(chain).hex()
            return self._recall(
                f"chain\n{shown}", context, lambda: self._log_in(context, self._of_chain(chain, context))
            )
        if self._is_trusted(request.remote_addr or ""):
            login = self._of_headers(request)
            if login is not None:
                return self._recall(f"headers\n{login}", context, lambda: self._log_in(context, login))
        raise Denied("A token is needed: send it as 'Authorization: Bearer <token>'.")

    def _recall(self, shown: str, context: Context, look_up: Callable[[], Identity]) -> Identity:
        """The caller who shows something, from memory if it was asked for a moment ago.

        Args:
            shown: its kind, and it; no header has a line break, so that none passes for something of another kind.
        """
        key, now = hashlib.sha256(shown.encode(errors="replace")).digest(), context.clock()
        found = self._remembered.get(key)
        if found is not None and now < found[0]:
            return found[1]
        try:
            identity = look_up()
        except BadCredential as error:
            self._remembered.pop(key, None)
            raise Denied(str(error)) from None
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = (now + REMEMBERED, identity)
        return identity

    def _look_up(self, token: str, origin: str, context: Context) -> Identity:
        if self.providers.config.clients and issuer_of(token) not in ("", tokens.ISSUER):
            return self._log_in(context, self.providers.identify(token, origin, context.clock()))
        return users.admit(context, tokens.identify(context, self._filed, token))

    def _log_in(self, context: Context, login: Login) -> Identity:
        return users.log_in(context, login, self._reserved)

    def _of_chain(self, chain: Sequence[bytes], context: Context) -> Login:
        return self._certificates.of_chain(chain, context.clock())

    def _of_headers(self, request: Request) -> Login | None:
        try:
            return self._certificates.of_headers(request.headers, voms=self._trusts_voms)
        except BadCredential as error:
            raise Denied(str(error)) from None

    def _is_trusted(self, address: str) -> bool:
        """Whether a proxy server of ours is at an address."""
        try:
            return any(ipaddress.ip_address(address) in network for network in self._trusted)
        except ValueError:
            return False


def _token(request: Request) -> str:
    """The token that a request shows; empty without one."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not scheme:
        return ""
    if scheme.lower() != "bearer" or not token.strip():
        raise Denied("A token is needed: send it as 'Authorization: Bearer <token>'.")
    if len(token) > _TOKEN_LENGTH:
        raise Denied(f"This token has more than {_TOKEN_LENGTH} characters; no token of ours is as long.")
    return token.strip()
