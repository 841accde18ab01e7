"""ID tokens of OIDC providers: whether one is good, and whom it shows.

A provider's keys are fetched when they are needed and kept in memory: for an hour, or until a token comes that was
signed with another one. While a provider does not answer one request waits for it; others go on with the keys known.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping

import jwt
from jwt.types import JWKDict

from server.logic.authconfig import AuthConfig, Client
from server.logic.errors import BadCredential
from server.logic.fetching import Unreachable, fetch
from server.logic.names import shown
from server.logic.users import Login
from server.settings import is_safe_url

logger = logging.getLogger(__name__)

#: Signatures with a public key. Those with a secret key (HS256) would let everybody who has the client secret, which is
#: no secret, write tokens; "none" is no signature.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
#: Clocks may differ by this much, in s.
LEEWAY = 60
#: How long keys are good without asking, and how soon a provider is asked again after an answer or none, in s.
KEYS_KEPT, PAUSE = 3600, 30
#: s for an answer, and its bytes: keys are a few thousand.
_PATIENCE, _SIZE_LIMIT = 10.0, 1024 * 1024
#: The claims that groups are in: those of Indigo IAM's ID tokens, and of the WLCG's profile.
_GROUPS = ("groups", "wlcg.groups")


class ProviderAway(Exception):
    """A provider does not answer, and without its keys nobody can tell whether a token is good."""


class Provider:
    """An OIDC provider: its name in tokens (issuer) and its keys. Threads may share it."""

    def __init__(self, oidc_config_url: str) -> None:
        self._url = oidc_config_url
        self._lock = threading.Lock()
        self._issuer = ""
        self._keys: Mapping[str, JWKDict] = {}
        self._fetched = self._tried = float("-inf")

    def issuer_and_key(self, kid: str, now: float) -> tuple[str, JWKDict | None]:
        """The issuer, and the key of that name as a JWK; None if it has none.

        Raises:
            ProviderAway: it does not answer, and never has.
        """
        # while one asks for new keys, only those wait who cannot do without
        if self._lacks(kid, now) and self._lock.acquire(blocking=kid not in self._keys):
            try:
                # asked for a key that it does not have it would be asked for each bad token: hence the pause
                if now - self._tried > PAUSE and self._lacks(kid, now):
                    self._fetch(now)
            finally:
                self._lock.release()
        if not self._issuer:
            raise ProviderAway(f"the provider of ID tokens at {self._url} does not answer")
        return self._issuer, self._keys.get(kid)

    def _lacks(self, kid: str, now: float) -> bool:
        """Whether a key is not here, or all are old."""
        return kid not in self._keys or now - self._fetched > KEYS_KEPT

    def _fetch(self, now: float) -> None:
        self._tried = now
        try:
            described = _get(self._url)
            issuer, keys_url = described.get("issuer"), described.get("jwks_uri")
            if not isinstance(issuer, str) or not isinstance(keys_url, str) or not is_safe_url(keys_url):
                raise ValueError("it names no issuer, or no keys at an https address")
            listed = _get(keys_url).get("keys")
            keys = [key for key in listed if isinstance(key, dict)] if isinstance(listed, list) else []
            if not keys:
                raise ValueError("it has no keys")
        except (Unreachable, ValueError) as error:
            logger.warning("The provider of ID tokens at %s cannot be used: %s", self._url, error)
            return
        self._issuer, self._fetched = issuer, now
        self._keys = {str(key.get("kid", "")): key for key in keys}


def _get(url: str) -> dict[str, object]:
    """The JSON object at an address.

    Raises:
        Unreachable: there is none.
        ValueError: it is something else.
    """
    answer = fetch(url, "", patience=_PATIENCE, limit=_SIZE_LIMIT, follow=False)
    value = json.loads(answer.content) if answer else None
    if not isinstance(value, dict):
        raise ValueError(f"what {url} answered is no JSON object")
    return value


class Providers:
    """All providers that are configured, and the rules about their tokens."""

    def __init__(self, config: AuthConfig) -> None:
        self.config = config
        urls = {client.oidc_config_url for client in config.clients.values()}
        self._providers = {url: Provider(url) for url in urls}

    def identify(self, token: str, origin: str, now: float) -> Login:
        """Whom a token shows.

        Args:
            origin: `vo`, `vo.role` or `vo:role`, as the header Origin has it; empty if there is none.

        Raises:
            BadCredential: it is not good for this server; the text says why.
            ProviderAway: its provider does not answer.
        """
        client, role = self._client(origin.replace(":", ".", 1))
        claims = _verified(token, client, self._providers[client.oidc_config_url], now)
        rules = self.config.matching(client.vo, _strings(claims), role)
        if role and not rules:
            raise BadCredential(f"Your token gives you no role {shown(role)} in {client.vo}: no group of yours has it.")
        names = (claims.get(key) for key in ("preferred_username", "name", "sub"))
        name = next((found for found in names if isinstance(found, str) and found), "")
        return self.config.login(f"{claims['iss']} {claims['sub']}", name, rules)

    def _client(self, origin: str) -> tuple[Client, str]:
        """The client that a token must be for, and the role that is asked for; empty if none is."""
        clients = self.config.clients
        vo, _, role = origin.partition(".")
        if not origin and len(clients) == 1:
            return next(iter(clients.values())), ""
        found = clients.get(origin) or clients.get(vo)
        if found is None:
            known = ", ".join(sorted(clients))
            raise BadCredential(f"The header Origin must name your VO (one of {known}), not {shown(origin)}.")
        return found, role


def _strings(claims: Mapping[str, object]) -> set[str]:
    """What the policy file may speak of: the groups of a token, and whose it is."""
    strings = {f"sub:{claims['sub']}"}
    for key in _GROUPS:
        groups = claims.get(key)
        strings |= {group for group in groups if isinstance(group, str)} if isinstance(groups, list) else set()
    return strings


def issuer_of(token: str) -> str:
    """The issuer that a token names, which may be a lie; empty if it is no JSON web token."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return ""
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) else ""


def _verified(token: str, client: Client, provider: Provider, now: float) -> dict[str, object]:
    """The claims of a token that is good."""
    try:
        header = jwt.get_unverified_header(token)
        algorithm = str(header.get("alg"))
        if algorithm not in ALGORITHMS:
            raise BadCredential(f"This token is signed by {shown(algorithm)}; accepted are {', '.join(ALGORITHMS)}.")
        issuer, key = provider.issuer_and_key(str(header.get("kid", "")), now)
        if key is None:
            raise BadCredential(f"This token was signed with a key that the provider of {client.vo} does not have.")
        claims: dict[str, object] = jwt.decode(
            token,
            jwt.PyJWK(key, algorithm).key,
            algorithms=[algorithm],
            audience=client.audience,
            issuer=issuer,
            leeway=LEEWAY,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
    except jwt.ExpiredSignatureError:
        raise BadCredential("This token has ended; log in again.") from None
    except jwt.ImmatureSignatureError:
        raise BadCredential("This token is not good yet; is the clock right?") from None
    except jwt.InvalidAudienceError:
        raise BadCredential(f"This token is for another service: its audience is not {client.audience}.") from None
    except jwt.InvalidIssuerError:
        raise BadCredential(f"This token is not from the provider of {client.vo}.") from None
    except jwt.InvalidSignatureError:
        raise BadCredential("This token was changed, or signed by somebody else.") from None
    except jwt.PyJWTError as error:
        raise BadCredential(f"This token cannot be used: {error}.") from None
    return claims
