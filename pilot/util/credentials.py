"""The pilot's own credentials, found in the order that pilot.md (section 1) gives. Nothing here is ever logged."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pilot.util.blot import Secrets
from pilot.util.https import Credentials
from pilot.util.tokens import is_token

# Variables that lead to the keys of object stores, by the copytools that need them.
_AWS = frozenset(
    {
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    }
)  # fmt: skip
_GOOGLE = frozenset({"GOOGLE_APPLICATION_CREDENTIALS"})
_TOOL_VARIABLES = {"s3": _AWS, "objectstore": _AWS, "gs": _GOOGLE}

# What container runtimes put before the names of variables that are for the inside.
_INSIDE = ("APPTAINERENV_", "SINGULARITYENV_")
_SECRET = frozenset(
    {
        "PANDA_AUTH_TOKEN", "PANDA_AUTH_ORIGIN", "PANDA_AUTH_DIR", "PANDA_AUTH_ID_TOKEN", "OIDC_AUTH_TOKEN",
        "OIDC_AUTH_ORIGIN", "OIDC_AUTH_DIR", "X509_USER_PROXY", "X509_USER_CERT", "X509_USER_KEY", "BEARER_TOKEN",
        "BEARER_TOKEN_FILE", "APPTAINER_DOCKER_PASSWORD", "SINGULARITY_DOCKER_PASSWORD", "_CONDOR_CREDS", *_AWS,
        *_GOOGLE,
    }
)  # fmt: skip
# Variables that lead to the pilot's credentials: a payload must not find them (promise S3).
SECRET_VARIABLES = _SECRET | {f"{prefix}{name}" for prefix in _INSIDE for name in _SECRET}

# Those of them that hold the secret itself, and those that name a file with it.
_SECRET_VALUES = (
    "BEARER_TOKEN", "PANDA_AUTH_ID_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "APPTAINER_DOCKER_PASSWORD",
    "SINGULARITY_DOCKER_PASSWORD",
)  # fmt: skip
_SECRET_FILES = (
    "X509_USER_KEY", "X509_USER_CERT", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "GOOGLE_APPLICATION_CREDENTIALS",
)  # fmt: skip
# A file of credentials is not larger (bytes).
_FILE_LIMIT = 1048576

# Those of them that are for storage: transfer tools get these and no others (promise S5).
STORAGE_VARIABLES = frozenset(
    {"X509_USER_PROXY", "X509_USER_CERT", "X509_USER_KEY", "BEARER_TOKEN", "BEARER_TOKEN_FILE"}
)

# Lists of directories in which programs, modules and libraries are looked for.
_SEARCH_PATHS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")

_CA_DIRECTORY = "/etc/grid-security/certificates"
# Where grid software looks for proxies and tokens of a user that nobody has named.
_TEMPORARY = "/tmp"


def tool_environment(
    environ: Mapping[str, str], certificate: str = "", token_file: str = "", ca: str = ""
) -> dict[str, str]:
    """The environment of a transfer tool: without what the pilot shows to its dispatcher.

    Tools run with the pilot's credentials, some of them in a directory that a payload has filled. So search paths lose
    their empty and relative entries, which mean the current directory (`PYTHONPATH=/opt/x:` has an empty one).
    certificate, token_file, ca: files (ca: directory) for storage in the variables that tools know, if not empty.
    """
    hidden = SECRET_VARIABLES - STORAGE_VARIABLES
    env = {name: value for name, value in environ.items() if name not in hidden}
    found = {"X509_USER_PROXY": certificate, "BEARER_TOKEN_FILE": token_file, "X509_CERT_DIR": ca}
    env.update({name: path for name, path in found.items() if path})
    if token_file:
        # Tools look at it first, and it would stay as it is when the file is renewed.
        env.pop("BEARER_TOKEN", None)
    for name in _SEARCH_PATHS:
        entries = [entry for entry in env.pop(name, "").split(os.pathsep) if entry.startswith("/")]
        if entries:
            env[name] = os.pathsep.join(entries)
    return env


def known_secrets(environ: Mapping[str, str]) -> Secrets:
    """The secrets in the pilot's environment and in the files that it names, but for those that its keeper reads."""
    values = {f"{prefix}{name}" for prefix in ("", *_INSIDE) for name in _SECRET_VALUES}
    secrets = Secrets(environ[name] for name in sorted(values & set(environ)))
    for name in _SECRET_FILES:
        with suppress(OSError):
            if environ.get(name):
                with open(environ[name], "rb") as stream:
                    secrets.learn(stream.read(_FILE_LIMIT))
    return secrets


def storage_token_file(environ: Mapping[str, str], uid: int) -> str:
    """Where the bearer token for storage is, in the order of the WLCG (Bearer Token Discovery, version 1.0).

    Empty when there is none, or when BEARER_TOKEN holds the token itself.
    """
    if environ.get("BEARER_TOKEN", "").strip():
        return ""
    named = environ.get("BEARER_TOKEN_FILE", "")
    if named:
        return named
    name = f"bt_u{uid}"
    places = [Path(environ["XDG_RUNTIME_DIR"], name)] if environ.get("XDG_RUNTIME_DIR") else []
    return next((str(path) for path in (*places, Path(_TEMPORARY, name)) if path.is_file()), "")


def storage_token(environ: Mapping[str, str]) -> str:
    """The bearer token that a tool with this environment shows to storage; empty when it has none."""
    token = environ.get("BEARER_TOKEN", "").strip()
    path = environ.get("BEARER_TOKEN_FILE", "")
    if not token and path:
        with suppress(OSError, ValueError):
            token = Path(path).read_text(encoding="ascii").strip()
    return token if is_token(token) else ""


def bucket_variables(environ: Mapping[str, str], tool: str = "") -> dict[str, str]:
    """What `tool_environment` leaves out, but a copytool needs: the keys of its own kind of object store.

    tool: the copytool; empty for all of them.
    """
    wanted = _TOOL_VARIABLES.get(tool, frozenset[str]()) if tool else _AWS | _GOOGLE
    return {name: value for name, value in environ.items() if name in wanted}


def ca_directory(environ: Mapping[str, str], capath: str = "") -> str:
    """Where the CA certificates of the grid are: --capath, X509_CERT_DIR or the usual place; else empty."""
    return next((p for p in (capath, environ.get("X509_CERT_DIR", ""), _CA_DIRECTORY) if p and Path(p).is_dir()), "")


def default_proxy(uid: int) -> str:
    """Where a user's proxy lies unless somebody says otherwise."""
    return f"{_TEMPORARY}/x509up_u{uid}"


def find(environ: Mapping[str, str], uid: int, cacert: str, capath: str) -> tuple[Credentials, list[str]]:
    """Look for a bearer token, a client certificate and CA certificates.

    cacert, capath: what the command line says. Returns the credentials and sentences about what was named but is not
    there.
    """
    problems: list[str] = []
    token, origin, token_file = _token(environ, problems)
    certificate, ca = "", ""
    for name, path in (
        ("--cacert", cacert),
        ("X509_USER_PROXY", environ.get("X509_USER_PROXY", "")),
        ("", default_proxy(uid)),
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
    found = Credentials(token=token, origin=origin, certificate=certificate, ca=ca, token_file=token_file)
    return found, problems


def _token(environ: Mapping[str, str], problems: list[str]) -> tuple[str, str, str]:
    """The token, its origin, and the file that it is in."""
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
        if not is_token(token):
            problems.append(f"{prefix}_TOKEN names the file {path}, which holds no token")
            continue
        return token, environ.get(f"{prefix}_ORIGIN", ""), str(path.absolute())
    return "", "", ""


def _has_key(path: Path) -> bool:
    """Whether a PEM file holds a private key, as a client certificate or proxy does, and a CA file does not."""
    with suppress(OSError):
        return b"PRIVATE KEY" in path.read_bytes()
    return False
