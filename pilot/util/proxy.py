"""X.509 proxies and certificates: who they are, what VOMS says of them, how long they last, whether that is enough.

Nothing is verified here: the pilot looks at its own file, to know beforehand what a server would say to it.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import time
from dataclasses import dataclass

from pilot.common.der import OCTETS, Element, elements
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import NoGridProxy, NoVomsProxy, PilotException

# Certificate extensions: VOMS attribute certificates, and what makes a certificate a proxy (RFC 3820, and its draft).
_VOMS = "1.3.6.1.4.1.8005.100.100.5"
_PROXY = ("1.3.6.1.5.5.7.1.14", "1.3.6.1.4.1.3536.1.222")
# The attribute of an attribute certificate that holds the FQANs.
_FQANS = "1.3.6.1.4.1.8005.100.100.4"
# How proxies were told before RFC 3820: by the end of their name.
_OLD_PROXY = ("/CN=proxy", "/CN=limited proxy")
# Optional fields of certificates have tags of their own.
_VERSION, _EXTENSIONS, _AUTHORITY = 0xA0, 0xA3, 0xA0
# No proxy with a long chain comes near this size (bytes).
_SIZE_LIMIT = 1024 * 1024

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class ProxyInfo:
    """What a file with a proxy or certificate says. Times are seconds since the epoch.

    subject, issuer: of the first certificate; identity: the subject of the user's own. begins: of the first
    certificate; ends: the earliest end in the whole chain. vo, fqans: of the VOMS attributes, empty without; voms_ends:
    when these end, 0 without.
    """

    subject: str
    issuer: str
    identity: str
    begins: float
    ends: float
    is_proxy: bool
    vo: str = ""
    fqans: tuple[str, ...] = ()
    voms_ends: float = 0.0

    @property
    def usable_until(self) -> float:
        """The end of the chain, or that of the VOMS attributes when they end before."""
        return min(self.ends, self.voms_ends) if self.voms_ends else self.ends

    @property
    def role(self) -> str:
        """VO and role in the words of voms-proxy-init: `atlas`, or `atlas:/atlas/Role=production`."""
        fqan = self.fqans[0].partition("/Capability=")[0] if self.fqans else ""
        return f"{self.vo}:{fqan}" if "/Role=" in fqan and not fqan.endswith("/Role=NULL") else self.vo


@dataclass(frozen=True)
class _Certificate:
    subject: str
    issuer: str
    begins: float
    ends: float
    is_proxy: bool
    voms: bytes


def read_proxy(path: str | os.PathLike[str]) -> ProxyInfo:
    """What a file says. Raises NoGridProxy when it cannot be read, or is neither proxy nor certificate with a key."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(_SIZE_LIMIT)
    except OSError as exc:
        raise NoGridProxy(f"proxy {path} cannot be read: {exc.strerror}") from exc
    try:
        return parse_proxy(data)
    except ValueError as exc:
        raise NoGridProxy(f"{path} is no proxy: {exc}") from exc


def parse_proxy(data: bytes) -> ProxyInfo:
    """What a proxy or certificate in PEM says; the first certificate is its own. Raises ValueError."""
    chain = [_certificate(block) for block in _BLOCK.findall(data)]
    if not chain:
        raise ValueError("it has no certificate in PEM format")
    if b"PRIVATE KEY-----" not in data:
        raise ValueError("it has no private key")
    first = chain[0]
    own = next((one.subject for one in chain if not one.is_proxy), chain[-1].issuer)
    ends = min(one.ends for one in chain)
    attributes = next((one.voms for one in chain if one.voms), b"")
    vo, fqans, voms_ends = _voms(attributes) if attributes else ("", (), 0.0)
    return ProxyInfo(
        first.subject, first.issuer, own, first.begins, ends, first.is_proxy, vo, fqans, voms_ends
    )  # fmt: skip


def verdict(info: ProxyInfo, now: float, least: float = 0.0, vo: str = "") -> PilotException | None:
    """Why a proxy is not good enough, or None when it is.

    least: seconds that must be left. vo: whose VOMS attributes must be there, `any` for those of whichever VO.
    CERTIFICATEHASEXPIRED for a chain that has ended, NOVOMSPROXY for attributes that are missing or have ended,
    VOMSPROXYABOUTTOEXPIRE (with attributes) or PROXYTOOSHORT (without) for what ends too soon.
    """
    who = f"the proxy of {info.identity}" if info.is_proxy else f"the certificate of {info.identity}"
    if now >= info.ends:
        return PilotException(f"{who} ended at {date_of(info.ends)}", code=ErrorCodes.CERTIFICATEHASEXPIRED)
    if vo and not info.voms_ends:
        return NoVomsProxy(f"{who} has no VOMS attributes")
    if vo not in ("", "any", info.vo):
        return NoVomsProxy(f"{who} has VOMS attributes of {info.vo}, those of {vo} are needed")
    if info.voms_ends and now >= info.voms_ends:
        return NoVomsProxy(f"the VOMS attributes of {who} ended at {date_of(info.voms_ends)}")
    left = info.usable_until - now
    if left < least:
        code = ErrorCodes.VOMSPROXYABOUTTOEXPIRE if info.voms_ends else ErrorCodes.PROXYTOOSHORT
        return PilotException(f"{who} ends in {left:.0f} s, {least:.0f} s are needed", code=code)
    return None


def get_distinguished_name(x509: str | None = None) -> str:
    """The identity in a proxy (default: the file that X509_USER_PROXY names). Raises NoGridProxy."""
    return read_proxy(x509 or os.environ.get("X509_USER_PROXY", "")).identity


def date_of(when: float) -> str:
    """A time in words, to end a sentence with."""
    return time.strftime("%H:%M:%S UTC on %d %B %Y", time.gmtime(when))


def _certificate(block: bytes) -> _Certificate:
    """One certificate (RFC 5280): tbsCertificate, algorithm, signature. Raises ValueError."""
    try:
        data = base64.b64decode(b"".join(block.split()), validate=True)
        (outer,) = elements(data)
        fields = outer.children()[0].children()
        if fields[0].tag == _VERSION:
            fields = fields[1:]
        issuer, validity, subject = fields[2], fields[3], fields[4]
        begins, ends = (one.when() for one in validity.children())
        extensions = _extensions(fields[5:])
    except (binascii.Error, ValueError, IndexError) as exc:
        raise ValueError(f"a certificate in it cannot be read ({exc})") from exc
    name = subject.name()
    is_proxy = any(kind in extensions for kind in _PROXY) or name.endswith(_OLD_PROXY)
    return _Certificate(name, issuer.name(), begins, ends, is_proxy, extensions.get(_VOMS, b""))


def _extensions(fields: list[Element]) -> dict[str, bytes]:
    found = {}
    for field in fields:
        if field.tag != _EXTENSIONS:
            continue
        for extension in field.children()[0].children():
            kind, *_, value = extension.children()
            found[kind.object_id()] = value.content
    return found


def _voms(value: bytes) -> tuple[str, tuple[str, ...], float]:
    """VO, FQANs and the end of the first attribute certificate (RFC 5755) in a VOMS extension. Raises ValueError."""
    try:
        certificate = elements(value)[0].children()[0].children()[0]
        fields = certificate.children()[0].children()
        # version, holder, issuer, signature, serial number, validity, attributes
        _, ends = (one.when() for one in fields[5].children())
        for attribute in fields[6].children():
            kind, values = attribute.children()
            if kind.object_id() != _FQANS:
                continue
            for item in values.children():
                authority, listed = _split(item)
                fqans = tuple(one.text() for one in listed.children() if one.tag == OCTETS)
                # The authority is a URL: vo://host:port.
                return authority.partition("://")[0] or fqans[0].split("/")[1], fqans, ends
    except (ValueError, IndexError) as exc:
        raise ValueError(f"its VOMS attributes cannot be read ({exc})") from exc
    return "", (), ends


def _split(item: Element) -> tuple[str, Element]:
    """The authority (empty if it is not named) and the values of one attribute."""
    *before, listed = item.children()
    authority = before[0].children()[0].text() if before and before[0].tag == _AUTHORITY else ""
    return authority, listed
