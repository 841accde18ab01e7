"""What transfers over HTTP show to storage: the bearer token or client certificate, and to nobody else (promise S5)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Union
from urllib.parse import urlsplit

import requests

from pilot.copytool.abortable import AbortableSession
from pilot.util.credentials import storage_token
from pilot.util.https import is_loopback

# As requests takes it: a file with certificate and key, or the two files.
Certificate = Union[str, tuple[str, str], None]


class ShowingSession(AbortableSession):
    """Shows what is in an environment of tools to the server that was asked: over TLS, or on loopback. A server that it
    redirects to gets neither, since nobody has said that it may have them.

    The token is read for each request, so that one that was renewed is used at once.
    """

    def __init__(self, verify: bool | str, environ: Mapping[str, str]) -> None:
        super().__init__(verify)
        self._environ = environ
        self._certificate = certificate_of(environ)
        self._asked = _origin("")

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """As the base has it; the arguments are the base's own."""
        self._asked = _origin(url if isinstance(url, str) else url.decode())
        return super().request(method, url, *args, **kwargs)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """As the base has it, for the first request and for those that redirects lead to."""
        url = request.url or ""
        is_asked = _origin(url) == self._asked
        token = storage_token(self._environ) if is_asked and is_private(url) else ""
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        elif not is_asked:
            request.headers.pop("Authorization", None)
        return super().send(request, **{**kwargs, "cert": self._certificate if is_asked else None})


def is_private(url: str) -> bool:
    """Whether nobody on the way can read what is sent there."""
    return urlsplit(url).scheme == "https" or is_loopback(url)


def certificate_of(environ: Mapping[str, str]) -> Certificate:
    """The client certificate of tools with this environment: the proxy, else certificate and key; None without."""
    proxy, cert, key = (environ.get(f"X509_USER_{name}", "") for name in ("PROXY", "CERT", "KEY"))
    if proxy:
        return proxy if os.path.isfile(proxy) else None
    return (cert, key) if os.path.isfile(cert) and os.path.isfile(key) else None


def stamp(environ: Mapping[str, str]) -> int:
    """A number that changes when the proxy is renewed: connections that were opened with the old one are of no use."""
    with suppress(OSError):
        return os.stat(environ.get("X509_USER_PROXY", "")).st_mtime_ns
    return 0


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what makes a server the same."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)
