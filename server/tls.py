"""TLS by ourselves: the server's certificate, and certificates and proxies of clients, which may have none."""

from __future__ import annotations

import ssl
from pathlib import Path

from server.settings import ConfigurationError, Settings

#: How the inside of a socket is told to write DER.
_DER = 2


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """What our sockets speak; None for plain HTTP.

    Raises:
        ConfigurationError: a file cannot be used, or one is missing.
    """
    if not settings.cert and not settings.key:
        if settings.ca:
            raise ConfigurationError("PILOTKIT_CA (--ca) is for TLS: give --cert and --key as well.")
        return None
    if not settings.cert or not settings.key:
        raise ConfigurationError("TLS needs both the certificate (--cert) and its key (--key).")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(Path(settings.cert).expanduser(), Path(settings.key).expanduser())
        if settings.ca:
            _take_clients(context, Path(settings.ca).expanduser())
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(filter(None, (settings.cert, settings.key, settings.ca)))
        raise ConfigurationError(f"TLS cannot be set up with {files}: {error.strerror or error}.") from None
    return context


def _take_clients(context: ssl.SSLContext, authorities: Path) -> None:
    if authorities.is_dir():
        context.load_verify_locations(capath=authorities)  # by hash, as /etc/grid-security/certificates has them
    else:
        context.load_verify_locations(cafile=authorities)
    context.verify_mode = ssl.CERT_OPTIONAL
    # A session that is taken up again has the client's certificate, and not the chain it came with.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
    # Newer Pythons are strict about details that proxies, and authorities older than the rules, do not have.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT


def peer_chain(connection: object) -> list[bytes]:
    """The client's certificates as they were verified, in DER, its own first; none on plain HTTP or without any."""
    if not isinstance(connection, ssl.SSLSocket) or not connection.getpeercert(binary_form=True):
        return []
    if hasattr(connection, "get_verified_chain"):  # Python 3.13
        return list(connection.get_verified_chain())
    # what that method calls; older Pythons have it on the object inside alone
    inner = connection._sslobj  # type: ignore[attr-defined]
    return [certificate.public_bytes(_DER) for certificate in inner.get_verified_chain() or ()]
