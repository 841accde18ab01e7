"""VOMS attributes in a client's certificate chain: read, and verified, since every user can write some.

An attribute certificate (RFC 5755) counts when a VOMS server of the VO has signed it for this very user: the server's
names are in an LSC file, <folder>/<vo>/<host>.lsc, as grid software has them, and its certificate, which comes along,
is from an authority that we trust.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from pilot.common.der import INTEGER, OCTETS, Element, elements
from server.logic.errors import BadCredential

#: Extensions: the attribute certificates in a proxy, and in one of them the certificate of the server that signed it.
_ATTRIBUTES, _SIGNER = "1.3.6.1.4.1.8005.100.100.5", "1.3.6.1.4.1.8005.100.100.10"
#: The attribute that holds the FQANs.
_FQANS = "1.3.6.1.4.1.8005.100.100.4"
_BASE_CERTIFICATE, _DIRECTORY_NAME = 0xA0, 0xA4
#: Kinds of signatures (RFC 8017 and 5758). SHA-1, which can be forged, is not among them.
_RSA: Mapping[str, hashes.HashAlgorithm] = {
    "1.2.840.113549.1.1.11": hashes.SHA256(),
    "1.2.840.113549.1.1.12": hashes.SHA384(),
    "1.2.840.113549.1.1.13": hashes.SHA512(),
}
_ECDSA: Mapping[str, hashes.HashAlgorithm] = {
    "1.2.840.10045.4.3.2": hashes.SHA256(),
    "1.2.840.10045.4.3.3": hashes.SHA384(),
    "1.2.840.10045.4.3.4": hashes.SHA512(),
}
_VO = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
#: What stands between two lists of names in an LSC file.
_NEXT = "NEXT CHAIN"


def name_of(name: x509.Name) -> str:
    """A distinguished name as grid software writes it: /DC=org/DC=site/CN=Some Body."""
    return elements(name.public_bytes())[0].name()


def fqans_of(
    chain: Sequence[x509.Certificate],
    user: x509.Certificate,
    authorities: Sequence[x509.Certificate],
    folder: Path,
    now: float,
) -> tuple[str, ...]:
    """The FQANs that a chain proves, without their empty parts (/Role=NULL, /Capability=NULL); none without VOMS.

    Args:
        chain: the client's own certificate first.
        user: the first of them that is no proxy.
        authorities: whose certificates may sign a VOMS server's.
        folder: of the LSC files.
        now: seconds since 1970.

    Raises:
        BadCredential: there are attributes, and they are not good.
    """
    wanted = x509.ObjectIdentifier(_ATTRIBUTES)
    found = next((one for certificate in chain for one in certificate.extensions if one.oid == wanted), None)
    if found is None:
        return ()
    try:
        content = found.value.public_bytes()
        (attributes,) = elements(content)[0].children()[0].children()[:1]
        return _verified(attributes, user, authorities, folder, now)
    except (ValueError, IndexError) as error:
        raise BadCredential(f"The VOMS attributes of your proxy cannot be read: {error}.") from None


def _verified(
    attributes: Element, user: x509.Certificate, authorities: Sequence[x509.Certificate], folder: Path, now: float
) -> tuple[str, ...]:
    """The FQANs of an attribute certificate: its information, the kind of signature, the signature."""
    information, kind, signature = attributes.children()
    _version, holder, _issuer, _kind, _serial, validity, listed, *rest = information.children()
    begins, ends = (one.when() for one in validity.children())
    if not begins - _LEEWAY <= now < ends:
        raise BadCredential("The VOMS attributes of your proxy have ended, or not begun; make a new proxy.")
    if not _is_for(holder, user):
        raise BadCredential("The VOMS attributes of your proxy are somebody else's.")
    fqans = tuple(fqan for one in listed.children() for fqan in _fqans(one))
    vos = {fqan.split("/")[1] for fqan in fqans}
    if len(vos) != 1 or not _VO.match(vo := vos.pop()):
        raise BadCredential("The VOMS attributes of your proxy are not those of one VO.")
    signers = [x509.load_der_x509_certificate(one.encoded()) for one in _signers(rest)]
    _check_signers(signers, vo, authorities, folder, now)
    # a bit string begins with the number of bits that are not used
    _check_signature(signers[0], kind.children()[0].object_id(), signature.content[1:], information.encoded())
    return tuple(fqan.replace("/Role=NULL", "").replace("/Capability=NULL", "") for fqan in fqans)


#: Clocks may differ by this much, in s.
_LEEWAY = 300


def _is_for(holder: Element, user: x509.Certificate) -> bool:
    """Whether attributes were made for a user: they say issuer and number of the certificate (some, its own name)."""
    base = next((one for one in holder.children() if one.tag == _BASE_CERTIFICATE), None)
    if base is None:
        return False
    names, serial, *_ = base.children()
    said = [one.children()[0].name() for one in names.children() if one.tag == _DIRECTORY_NAME]
    number = int.from_bytes(serial.content, "big") if serial.tag == INTEGER else -1
    known = {name_of(user.issuer), name_of(user.subject)}
    return number == user.serial_number and bool(said) and said[0] in known


def _fqans(attribute: Element) -> Iterator[str]:
    kind, values = attribute.children()
    if kind.object_id() != _FQANS:
        return
    for item in values.children():
        *_authority, listed = item.children()
        for one in listed.children():
            if one.tag == OCTETS and one.text().startswith("/"):
                yield one.text()


def _signers(rest: Sequence[Element]) -> list[Element]:
    """The certificates of the server that signed, its own first."""
    for extension in rest[-1].children() if rest else []:
        kind, *_, value = extension.children()
        if kind.object_id() == _SIGNER:
            return elements(value.content)[0].children()[0].children()
    raise ValueError("the certificate of the VOMS server is missing")


def _check_signers(
    signers: Sequence[x509.Certificate], vo: str, authorities: Sequence[x509.Certificate], folder: Path, now: float
) -> None:
    """Whether the server may speak for the VO, and is who it says."""
    names = [name_of(signers[0].subject), *(name_of(one.issuer) for one in signers)]
    if not any(names[: len(listed)] == listed for listed in _listed(folder / vo)):
        raise BadCredential(f"{names[0]} is no VOMS server of {vo} here; the operators know those in {vo}/*.lsc.")
    when = datetime.datetime.fromtimestamp(now, datetime.UTC)
    for place, certificate in enumerate(signers):
        if not certificate.not_valid_before_utc <= when < certificate.not_valid_after_utc:
            raise BadCredential(f"The certificate of the VOMS server {names[0]} has ended, or not begun.")
        if any(_has_issued(authority, certificate) for authority in authorities):
            return
        if place + 1 == len(signers) or not _has_issued(signers[place + 1], certificate):
            break
    raise BadCredential(f"The certificate of the VOMS server {names[0]} is from an authority that is not known here.")


def _listed(folder: Path) -> Iterator[list[str]]:
    """The lists of names in the LSC files of a VO: the server's, then those of its authorities."""
    for path in sorted(folder.glob("*.lsc")):
        names: list[str] = []
        for line in [*path.read_text(encoding="utf-8", errors="replace").splitlines(), _NEXT]:
            if line.startswith("/"):
                names.append(line.strip())
            elif _NEXT in line and len(names) > 1:
                yield names
                names = []


def _has_issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        if not authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        certificate.verify_directly_issued_by(authority)
    except (x509.ExtensionNotFound, InvalidSignature, TypeError, ValueError):
        return False
    return True


def _check_signature(signer: x509.Certificate, kind: str, signature: bytes, signed: bytes) -> None:
    key = signer.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey) and kind in _RSA:
            key.verify(signature, signed, padding.PKCS1v15(), _RSA[kind])
        elif isinstance(key, ec.EllipticCurvePublicKey) and kind in _ECDSA:
            key.verify(signature, signed, ec.ECDSA(_ECDSA[kind]))
        else:
            raise BadCredential("The VOMS attributes of your proxy are signed in a way that is not taken any more.")
    except InvalidSignature:
        raise BadCredential("The VOMS attributes of your proxy were changed, or signed by somebody else.") from None
