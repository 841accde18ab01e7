"""Whom a client certificate or proxy shows, and what its VOMS attributes give.

It comes from our own TLS, with the chain that was verified, or as headers from a proxy server in front that has
verified it. Roles are those of the policy file (`logic.authconfig`), whose strings are FQANs here; for a VO that is not
in it, members are users, and the roles production and pilot are what they are called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from cryptography import x509

from pilot.common.der import OBJECT_ID, elements
from server.logic.authconfig import ROLES, AuthConfig, Rule
from server.logic.errors import BadCredential
from server.logic.names import shown
from server.logic.users import Login
from server.logic.voms import fqans_of, name_of
from server.settings import ConfigurationError, Settings

#: What makes a certificate a proxy: RFC 3820, and its draft.
_PROXY = frozenset(map(x509.ObjectIdentifier, ("1.3.6.1.5.5.7.1.14", "1.3.6.1.4.1.3536.1.222")))
#: How a proxy may be used: for less than everything (what batch systems hand on), or for nothing of its user's.
_LIMITED, _INDEPENDENT = "1.3.6.1.4.1.3536.1.1.1.9", "1.3.6.1.5.5.7.21.2"
#: The ends of names that proxies add: those before RFC 3820, and a number.
_LIMITED_END = "/CN=limited proxy"
_PROXY_END = re.compile(r"(?:/CN=(?:proxy|limited proxy|\d+))\Z")
#: A value of one type in a name of RFC 4514: characters, escaped ones, or all of it in quotes.
_PART = re.compile(r'\s*([A-Za-z0-9.]+)\s*=\s*("(?:[^"\\]|\\.)*"|(?:[^,+\\]|\\.)*)\s*([,+]|\Z)')
_SEQUENCE = 0x30
_ESCAPED = re.compile(r"\\(.)")
_FILES = re.compile(r"\.(?:pem|crt|\d)\Z")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class Certificates:
    """The authorities, VOMS servers and rules by which certificates are told apart."""

    def __init__(self, settings: Settings, config: AuthConfig) -> None:
        """Read the certificates of the authorities.

        Raises:
            ConfigurationError: they cannot be read, or there are none.
        """
        self._authorities = _read_authorities(Path(settings.ca).expanduser()) if settings.ca else []
        self._voms = Path(settings.voms_dir).expanduser()
        self._config = config

    def of_chain(self, chain: Sequence[bytes], now: float) -> Login:
        """Whom a chain shows that our TLS has verified, the client's own certificate first, each in DER.

        Raises:
            BadCredential: it is no proxy that a user may act with, its VOMS attributes are not good, or a certificate
                has something in it that no certificate may have.
        """
        try:
            return self._of_chain(chain, now)
        except (ValueError, x509.DuplicateExtension) as error:  # OpenSSL does not look at what it does not need
            raise BadCredential(f"A certificate in your chain cannot be read: {error}.") from None

    def _of_chain(self, chain: Sequence[bytes], now: float) -> Login:
        certificates = [x509.load_der_x509_certificate(one) for one in chain]
        user = next((one for one in certificates if not _PROXY & {ext.oid for ext in one.extensions}), None)
        if user is None:
            raise BadCredential("This proxy came without the certificate it was made of.")
        proxies = certificates[: certificates.index(user)]
        policies = {_policy(proxy) for proxy in proxies}
        if _INDEPENDENT in policies:
            raise BadCredential("This proxy does not stand for its user (it is an independent one).")
        ends = any(name_of(proxy.subject).endswith(_LIMITED_END) for proxy in proxies)
        fqans = fqans_of(certificates, user, self._authorities, self._voms, now)
        return self._login(name_of(user.subject), fqans, limited=_LIMITED in policies or ends)

    def of_headers(self, headers: Iterable[tuple[str, str]], *, voms: bool) -> Login | None:
        """Whom the headers of a trusted proxy server show; None if its client had no certificate.

        SSL-Client-Verify must be SUCCESS and SSL-Client-S-DN the name; FQANs come as mod_gridsite has them, in
        GRST-CRED-* and GRST-CONN-*.

        Args:
            voms: whether to believe those.

        Raises:
            BadCredential: the name cannot be read.
        """
        found = {name.upper(): _text(value) for name, value in headers}
        name = found.get("SSL-CLIENT-S-DN", "")
        if name in ("", "(null)") or found.get("SSL-CLIENT-VERIFY") != "SUCCESS":
            return None
        subject = slashed(name)
        limited = _LIMITED_END in subject
        while match := _PROXY_END.search(subject):
            subject = subject[: match.start()]
        return self._login(subject, tuple(_fqans(found)) if voms else (), limited=limited)

    def _login(self, subject: str, fqans: Sequence[str], *, limited: bool) -> Login:
        rules = [rule for vo, strings in _by_vo(fqans).items() for rule in self._rules(vo, strings)]
        return self._config.login(subject, _common_name(subject), rules, limited=limited)

    def _rules(self, vo: str, fqans: frozenset[str]) -> list[Rule]:
        if vo in self._config.rules:
            return self._config.matching(vo, fqans)
        words = {fqan.partition("/Role=")[2] or "user" for fqan in fqans}
        # the role operator is nothing that a VO gives unless the policy file says so
        return [Rule(vo, word) for word in sorted(words & ROLES.keys() - {"operator"})] or [Rule(vo, "user")]


def slashed(name: str) -> str:
    """A distinguished name as grid software writes it, /DC=org/CN=Some Body, from that form or from RFC 4514's.

    Raises:
        BadCredential: it is neither.
    """
    if name.startswith("/"):
        return name
    parts: list[str] = []
    position = 0
    while position < len(name):
        match = _PART.match(name, position)
        if match is None or match.end() == position:
            raise BadCredential(f"The name in your certificate cannot be read: {shown(name)}.")
        value = match[2][1:-1] if match[2].startswith('"') else match[2]
        parts.append(f"/{match[1]}=" + _ESCAPED.sub(lambda found: found[1], value))
        position = match.end()
    return "".join(reversed(parts))


def _common_name(subject: str) -> str:
    """The last CN of a name, which is the one for people; all of it if there is none."""
    names = re.findall(r"/CN=(.+?)(?=/[A-Za-z0-9.]+=|\Z)", subject)
    return str(names[-1]) if names else subject


def _by_vo(fqans: Sequence[str]) -> Mapping[str, frozenset[str]]:
    names = {fqan.split("/")[1] for fqan in fqans if fqan.startswith("/")}
    return {vo: frozenset(fqan for fqan in fqans if fqan.split("/")[1] == vo) for vo in sorted(names)}


def _fqans(headers: Mapping[str, str]) -> Iterator[str]:
    for name, value in headers.items():
        if not name.startswith(("GRST-CRED-", "GRST-CONN-")):
            continue
        words = value.split()
        # "fqan:/atlas/Role=pilot", or "VOMS <begin> <end> <delegation> /atlas/Role=pilot"
        found = unquote(value[5:]) if value.startswith("fqan:") else words[-1] if words[:1] == ["VOMS"] else ""
        if found.startswith("/"):
            yield found.replace("/Role=NULL", "").replace("/Capability=NULL", "")


def _text(value: str) -> str:
    """A header as it was meant: WSGI has its bytes as Latin 1, and most of the time they are UTF-8."""
    try:
        return value.encode("latin-1").decode("utf-8").strip()
    except UnicodeError:
        return value.strip()


def _policy(proxy: x509.Certificate) -> str:
    """How a proxy may be used (RFC 3820, 3.8): the object identifier of its policy language."""
    value = next(ext.value.public_bytes() for ext in proxy.extensions if ext.oid in _PROXY)
    try:
        policy = next(one for one in elements(value)[0].children() if one.tag == _SEQUENCE)
        return next(one.object_id() for one in policy.children() if one.tag == OBJECT_ID)
    except (ValueError, StopIteration, IndexError):
        raise BadCredential("This proxy does not say how it may be used.") from None


def _read_authorities(path: Path) -> list[x509.Certificate]:
    """The certificates in a file, or in the files of a folder as grid software has them."""
    try:
        files = [path] if path.is_file() else [one for one in sorted(path.iterdir()) if _FILES.search(one.name)]
        blocks = {block for one in files for block in _PEM.findall(one.read_bytes())}
    except OSError as error:
        raise ConfigurationError(
            f"The certificates of authorities in {path} cannot be read: {error.strerror}."
        ) from None
    found = []
    for block in sorted(blocks):
        try:
            found.append(x509.load_pem_x509_certificate(block))
        except ValueError:
            continue  # one of hundreds is broken: the others are good
    if not found:
        raise ConfigurationError(f"There are no certificates of authorities in {path}; PILOTKIT_CA must name them.")
    return found
