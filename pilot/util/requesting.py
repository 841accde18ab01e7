"""One request to a server, with the credentials that the environment names, under the documented names.

Import them from pilot.util.https, as chapter 7.3.2 of PanDA's documents has it. The pilot itself keeps one client for
all its requests; nothing is set up, or remembered, between two of these.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from pilot import __version__
from pilot.util.config import read
from pilot.util.credentials import ca_directory, default_proxy
from pilot.util.https import Credentials, HttpClient, Json, RequestFailed

__all__ = ["cacert", "cacert_default_location", "capath", "request"]

log = logging.getLogger(__name__)


def cacert_default_location() -> str:
    """Where a user's proxy lies unless somebody says otherwise: /tmp/x509up_u<uid>."""
    return default_proxy(os.getuid())


def cacert(args: object = None) -> str | None:
    """The certificate or proxy to show: --cacert, X509_USER_PROXY or the default place; None when none is a file."""
    places = (getattr(args, "cacert", ""), os.environ.get("X509_USER_PROXY", ""), cacert_default_location())
    return next((str(path) for path in places if path and Path(path).is_file()), None)


def capath(args: object = None) -> str | None:
    """The directory of CA certificates: --capath, X509_CERT_DIR or the usual place; None when none is a directory."""
    return ca_directory(os.environ, getattr(args, "capath", "") or "") or None


def request(url: str, data: Mapping[str, object] | None = None, plain: bool = False, secure: bool = True) -> Json:
    """Ask a server. data: sent as a form. plain: the answer is text, else JSON. secure: show the certificate.

    Returns the answer, or None (with a line in the log) when there is none, or one that is no success.
    """
    settings = read().pilot
    shown = Credentials(certificate=cacert() or "" if secure else "", ca=capath() or "")
    agent = f"pilotkit/{__version__}"
    client = HttpClient(shown, settings.http_connect_timeout, settings.http_timeout, agent, url)
    accept = "*/*" if plain else "application/json"
    try:
        if data is None:
            reply = client.get(url, accept=accept)
        else:
            reply = client.post_form(url, urlencode(data, doseq=True), accept=accept)
        return reply.body.decode("utf-8", "replace") if plain else reply.json()
    except RequestFailed as exc:
        log.warning("%s", exc.diag)
        return None
    finally:
        client.close()
