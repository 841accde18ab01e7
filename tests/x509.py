"""X.509 for tests: a CA, certificates of a host and of a user, and proxies with and without VOMS attributes.

Made with the command openssl alone; voms-proxy-fake (package voms-clients) adds the VOMS attributes. Nothing here is
trusted outside the folder it is made in.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

# The Debian package with voms-proxy-fake and voms-proxy-info; .ci/suite.py installs it where it may.
PACKAGES = ("voms-clients",)

CA_NAME = "/DC=test/DC=site/CN=Test CA"
HOST_NAME = "/DC=test/DC=site/CN=localhost"
USER_NAME = "/DC=test/DC=site/CN=Test User"
VO = "atlas"
FQANS = ("/atlas/Role=production/Capability=NULL", "/atlas/Role=NULL/Capability=NULL")

# s; a command of these takes milliseconds, a key at most a second.
_PATIENCE = 60
# How long the CA and what it signs are good for (days), unless asked otherwise.
_CA_DAYS = 30
_DAYS = 20

_CA_EXTENSIONS = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash"
_USER_EXTENSIONS = "keyUsage=critical,digitalSignature,keyEncipherment"
_PROXY_EXTENSIONS = "keyUsage=critical,digitalSignature,keyEncipherment\nproxyCertInfo=critical,language:{}"
INHERIT_ALL, INDEPENDENT, LIMITED = "id-ppl-inheritAll", "id-ppl-independent", "1.3.6.1.4.1.3536.1.1.1.9"

# `openssl ca` is the one command of openssl that takes both dates, to the second.
_CONFIGURATION = """
[ca]
default_ca = here
[here]
new_certs_dir = {folder}/issued
database = {folder}/issued/index.txt
serial = {folder}/issued/serial
default_md = sha256
policy = anything
unique_subject = no
[anything]
domainComponent = optional
commonName = optional
"""

_SIGNING_POLICY = """access_id_CA X509 '{ca}'
pos_rights globus CA:sign
cond_subjects globus '"/DC=test/DC=site/*"'
"""


@dataclass(frozen=True)
class X509:
    """Everything of one CA.

    ca_dir: its certificate as grid software wants it, by hash, with a signing policy. voms_dir: says that the host's
    certificate may sign attributes of VO (X509_VOMS_DIR).
    """

    folder: Path
    ca_dir: Path
    voms_dir: Path
    ca_file: Path
    ca_key: Path
    host_cert: Path
    host_key: Path
    user_cert: Path
    user_key: Path

    def certificate(
        self, name: str, subject: str, *, hosts: Sequence[str] = (), hours: float = _DAYS * 24
    ) -> tuple[Path, Path]:
        """Another certificate of this CA and its key, in files called after `name`.

        hosts: DNS names and addresses it is for; hours: until it ends, negative for one that has ended.
        """
        names = ",".join(f"{'IP' if host[0].isdigit() else 'DNS'}:{host}" for host in hosts)
        extensions = f"{_USER_EXTENSIONS}\n" + (f"subjectAltName={names}" if hosts else "")
        return _issue(self.folder, name, subject, self.ca_file, self.ca_key, extensions, hours)

    def proxy(
        self,
        hours: float = 12,
        voms: bool = True,
        expired: bool = False,
        *,
        name: str = "",
        voms_hours: float | None = None,
        language: str = INHERIT_ALL,
    ) -> Path:
        """An RFC 3820 proxy of the user, mode 0600, in a new file unless `name` is given.

        hours: until it ends, negative (as with `expired`) for one that has ended. voms: with the attributes FQANS of
        VO, which end after voms_hours (default: with the proxy); skips where voms-proxy-fake is not installed.
        language: what a proxy without them may be used for.
        """
        hours = -1.0 if expired else hours
        target = self.folder / (name or f"proxy-{time.monotonic_ns()}.pem")
        if voms:
            require_voms()
            _voms_proxy(self, target, hours, hours if voms_hours is None else voms_hours)
        else:
            subject = f"{USER_NAME}/CN={time.monotonic_ns()}"
            cert, key = _issue(
                self.folder,
                f"{target.stem}-own",
                subject,
                self.user_cert,
                self.user_key,
                _PROXY_EXTENSIONS.format(language),
                hours,
            )
            text = cert.read_text() + key.read_text() + self.user_cert.read_text()
            cert.unlink()
            key.unlink()
            target.touch(mode=0o600)
            target.write_text(text)
        target.chmod(0o600)
        return target


def require_voms() -> None:
    """Skip where the VOMS clients are not installed, and fail where CI=true promises that they are."""
    missing = [name for name in ("voms-proxy-fake", "voms-proxy-info") if shutil.which(name) is None]
    if not missing:
        return
    text = f"{', '.join(missing)} not installed (Debian: apt-get install {' '.join(PACKAGES)})"
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


def make_x509(folder: Path) -> X509:
    """A new CA in a folder, with a certificate of this host (localhost, 127.0.0.1, ::1) and of one user."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_dir = folder / "certificates"
    ca_dir.mkdir()
    ca_file, ca_key = _issue(folder, "ca", CA_NAME, None, None, _CA_EXTENSIONS, _CA_DAYS * 24)
    hashed = _run(folder, "x509", "-hash", "-noout", "-in", str(ca_file)).strip()
    shutil.copy(ca_file, ca_dir / f"{hashed}.0")
    (ca_dir / f"{hashed}.signing_policy").write_text(_SIGNING_POLICY.format(ca=CA_NAME))
    voms_dir = folder / "vomsdir"
    (voms_dir / VO).mkdir(parents=True)
    (voms_dir / VO / "localhost.lsc").write_text(f"{HOST_NAME}\n{CA_NAME}\n")
    # The certificates of host and user are made by the same method as any other.
    made = X509(folder, ca_dir, voms_dir, ca_file, ca_key, *(folder / name for name in ("host.pem", "host.key")),
                *(folder / name for name in ("user.pem", "user.key")))  # fmt: skip
    made.certificate("host", HOST_NAME, hosts=("localhost", "127.0.0.1", "::1"))
    made.certificate("user", USER_NAME)
    return made


def _issue(
    folder: Path, name: str, subject: str, ca: Path | None, ca_key: Path | None, extensions: str, hours: float
) -> tuple[Path, Path]:
    """A certificate and its key, signed by a CA (or a user, for a proxy), or by itself when there is none yet."""
    cert, key, request = folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.csr"
    _run(folder, "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", str(key),
         "-out", str(request))  # fmt: skip
    key.chmod(0o400)
    configuration, extension_file = folder / "openssl-ca.cfg", folder / f"{name}.ext"
    configuration.write_text(_CONFIGURATION.format(folder=folder))
    (folder / "issued").mkdir(exist_ok=True)
    (folder / "issued" / "index.txt").touch()
    extension_file.write_text(extensions)
    end = time.time() + hours * 3600
    # It began a little before now, and before its end.
    begin = min(time.time() - 600, end - 3600)
    signer = ["-selfsign", "-keyfile", str(key)] if ca is None else ["-cert", str(ca), "-keyfile", str(ca_key)]
    _run(folder, "ca", "-batch", "-notext", "-preserveDN", "-rand_serial", "-config", str(configuration),
         "-startdate", _date(begin), "-enddate", _date(end), "-extfile", str(extension_file),
         "-in", str(request), "-out", str(cert), *signer)  # fmt: skip
    for path in (request, extension_file):
        path.unlink()
    return cert, key


def _voms_proxy(x509: X509, target: Path, hours: float, voms_hours: float) -> None:
    fqans = [word for fqan in FQANS for word in ("-fqan", fqan)]
    whole, voms_whole = max(1, math.ceil(hours)), max(1, math.ceil(voms_hours))
    command = [
        "voms-proxy-fake", "-quiet", "-rfc", "-cert", str(x509.user_cert), "-key", str(x509.user_key),
        "-certdir", str(x509.ca_dir), "-hours", str(whole), "-vomslife", str(voms_whole), "-voms", VO, *fqans,
        "-uri", "localhost:15000", "-hostcert", str(x509.host_cert), "-hostkey", str(x509.host_key),
    ]  # fmt: skip
    # Lives are whole hours there; what is shorter began in the past.
    command += [
        "-pastproxy",
        str(round((whole - hours) * 3600)),
        "-pastac",
        str(round((voms_whole - voms_hours) * 3600)),
    ]
    environ = {**os.environ, "X509_CERT_DIR": str(x509.ca_dir)}
    done = subprocess.run(
        [*command, "-out", str(target)],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    if not target.is_file():
        raise RuntimeError(f"voms-proxy-fake made no proxy: {done.stdout}")


def _run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["openssl", *words], cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"openssl {words[0]} failed: {done.stderr}")
    return done.stdout


def _date(when: float) -> str:
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(when))
