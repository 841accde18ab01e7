"""The pilot's own credentials, found in the order that pilot.md (section 1) gives. Nothing here is ever logged."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pilot.util.https import Credentials

# Variables that lead to the pilot's credentials: a payload must not find them (promise S3).
SECRET_VARIABLES = frozenset(
    {
        "PANDA_AUTH_TOKEN", "PANDA_AUTH_ORIGIN", "PANDA_AUTH_DIR", "PANDA_AUTH_ID_TOKEN", "OIDC_AUTH_TOKEN",
        "OIDC_AUTH_ORIGIN", "OIDC_AUTH_DIR", "X509_USER_PROXY", "X509_USER_CERT", "X509_USER_KEY", "BEARER_TOKEN",
        "BEARER_TOKEN_FILE",
    }
)  # fmt: skip

# Those of them that are for storage: transfer tools get these and no others (promise S5).
STORAGE_VARIABLES = frozenset(
    {"X509_USER_PROXY", "X509_USER_CERT", "X509_USER_KEY", "BEARER_TOKEN", "BEARER_TOKEN_FILE"}
)

_CA_DIRECTORY = "/etc/grid-security/certificates"


def tool_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a transfer tool: without what the pilot shows to its dispatcher."""
    hidden = SECRET_VARIABLES - STORAGE_VARIABLES
    return {name: value for name, value in environ.items() if name not in hidden}


def ca_directory(environ: Mapping[str, str], capath: str = "") -> str:
    """Where the CA certificates of the grid are: --capath, X509_CERT_DIR or the usual place; else empty."""
    return next((p for p in (capath, environ.get("X509_CERT_DIR", ""), _CA_DIRECTORY) if p and Path(p).is_dir()), "")


def find(environ: Mapping[str, str], uid: int, cacert: str, capath: str) -> tuple[Credentials, list[str]]:
    """Look for a bearer token, a client certificate and CA certificates.

    cacert, capath: what the command line says. Returns the credentials and sentences about what was named but is not
    there.
    """
    problems: list[str] = []
    token, origin = _token(environ, problems)
    certificate, ca = "", ""
    for name, path in (
        ("--cacert", cacert),
        ("X509_USER_PROXY", environ.get("X509_USER_PROXY", "")),
        ("", f"/tmp/x509up_u{uid}"),
    ):
        if not path or certificate:
            continue
        if not Path(path).is_file():
            if name:
                problems.append(f"{name} names {path}, which is not there")
        elif _has_key(Path(path)):
            certificate = path
        elif name == "--cacert":
            ca = path
    if not ca:
        ca = ca_directory(environ, capath)
    if capath and not Path(capath).is_dir():
        problems.append(f"--capath names {capath}, which is no directory")
    return Credentials(token=token, origin=origin, certificate=certificate, ca=ca), problems


def _token(environ: Mapping[str, str], problems: list[str]) -> tuple[str, str]:
    for prefix in ("PANDA_AUTH", "OIDC_AUTH"):
        name = environ.get(f"{prefix}_TOKEN", "")
        if not name:
            continue
        path = Path(environ.get(f"{prefix}_DIR", ""), name)
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            problems.append(f"{prefix}_TOKEN names the file {path}, which cannot be read: the pilot has no token")
            continue
        if not token or len(token.split()) > 1:
            problems.append(f"{prefix}_TOKEN names the file {path}, which holds no token")
            continue
        return token, environ.get(f"{prefix}_ORIGIN", "")
    return "", ""


def _has_key(path: Path) -> bool:
    """Whether a PEM file holds a private key, as a client certificate or proxy does, and a CA file does not."""
    with suppress(OSError):
        return b"PRIVATE KEY" in path.read_bytes()
    return False
