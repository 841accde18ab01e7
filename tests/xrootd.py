"""A real XRootD server for tests: root:// and http:// on one free port of the loopback interface, ended by its pid.

With X.509 it wants a proxy of everybody, and speaks roots:// and https:// as well.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.components import require_programs, running_daemon
from tests.x509 import USER_NAME, X509

# The Debian packages that these tests need; .ci/suite.py installs them where it may.
PACKAGES = ("xrootd-server", "xrootd-client", "xrootd-server-plugins")

_CONFIGURATION = """
all.role server
all.export /data
oss.localroot {base}
all.adminpath {base}/admin
all.pidpath {base}/run
xrd.port {port}
xrd.network nodnr
xrd.allow host 127.0.0.1
xrd.allow host localhost
xrootd.async off
ofs.tpc autorm pgm /usr/bin/xrdcp --server
xrd.protocol http:{port} libXrdHttp.so
http.selfhttps2http no
"""

_CHECKSUMS = "xrootd.chksum max 4 adler32 md5\n"

# The proxy's owner may do all, nobody else anything. Delegation (dlgpxy) is off: no test needs it.
_GSI = """
xrootd.seclib libXrdSec.so
sec.protparm gsi -gmapto:0
sec.protocol gsi -dlgpxy:0 -ca:1 -crl:0 -certdir:{x509}/certificates -cert:{x509}/host.pem -key:{x509}/host.key \
-gridmap:{x509}/gridmap -gmapopt:2
sec.protbind * only gsi
ofs.authorize
acc.authdb {x509}/authdb
xrd.tls {x509}/host.pem {x509}/host.key
xrd.tlsca certdir {x509}/certificates
xrootd.tls capable all
http.gridmap {x509}/gridmap
"""
_USER = "testuser"


@dataclass(frozen=True)
class XRootD:
    """A server that answers. data: the directory behind /data."""

    port: int
    data: Path

    def root(self, name: str) -> str:
        """URL of a file for XRootD."""
        return f"root://127.0.0.1:{self.port}//data/{name}"

    def http(self, name: str) -> str:
        """URL of the same file for WebDAV."""
        return f"dav://127.0.0.1:{self.port}/data/{name}"

    def roots(self, name: str) -> str:
        """URL of the same file for XRootD over TLS; the server must have X.509."""
        return f"roots://localhost:{self.port}//data/{name}"

    def davs(self, name: str) -> str:
        """URL of the same file for WebDAV over TLS; the server must have X.509."""
        return f"davs://localhost:{self.port}/data/{name}"

    def put(self, name: str, contents: bytes, mode: int = 0o644) -> None:
        """A file in storage, in directories that the server may write to."""
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.parents:
            if folder == self.data:
                break
            _hand_over(folder)
        path.write_bytes(contents)
        path.chmod(mode)

    def files(self) -> list[str]:
        """The names of all files in storage."""
        return sorted(str(path.relative_to(self.data)) for path in self.data.rglob("*") if path.is_file())


def require_xrootd() -> None:
    """Skip where server and client are not installed, and fail where CI=true promises that they are."""
    require_programs(("xrootd", "xrdcp", "xrdfs"), PACKAGES)


@contextmanager
def running_xrootd(*, gsi: X509 | None = None, checksums: bool = True, data: Path | None = None) -> Iterator[XRootD]:
    """A server for the time of a block. As root it runs as the user daemon, since it refuses to run as root.

    Args:
        gsi: the CA whose proxies it wants to see, from everybody; for root:// and roots://, https:// and davs://.
        checksums: whether it can tell a file's checksum.
        data: directory for the files instead of one of its own, for example a disk that gets full.
    """
    # Not below pytest's own folder, which only root may enter.
    with tempfile.TemporaryDirectory(prefix="pilotkit-xrootd-", dir="/tmp") as folder:
        base = Path(folder)
        if data is not None:
            (base / "data").symlink_to(data)
        for path in (base, *(base / name for name in ("data", "admin", "run", "log", "x509"))):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
            _hand_over(path)
        configuration = _CONFIGURATION + (_CHECKSUMS if checksums else "")
        if gsi is not None:
            _copy_x509(gsi, base / "x509")
            configuration += _GSI

        def command(port: int) -> list[str]:
            path = base / "xrootd.cfg"
            path.write_text(configuration.format(base=base, port=port, x509=base / "x509"))
            who = ["-R", "daemon"] if os.geteuid() == 0 else []
            return ["xrootd", *who, "-c", str(path), "-l", str(base / "log" / "x.log"), "-n", "srv", "-I", "v4"]

        with running_daemon("XRootD", command, base) as port:
            yield XRootD(port, (base / "data").resolve())


def _hand_over(path: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, "daemon")


def _copy_x509(gsi: X509, target: Path) -> None:
    """What the server needs of it, where the server may read it."""
    shutil.copytree(gsi.ca_dir, target / "certificates")
    (target / "gridmap").write_text(f'"{USER_NAME}" {_USER}\n')
    (target / "authdb").write_text(f"u {_USER} /data a\n")
    for source, name in ((gsi.host_cert, "host.pem"), (gsi.host_key, "host.key")):
        shutil.copy(source, target / name)
        _hand_over(target / name)
    (target / "host.key").chmod(0o400)
