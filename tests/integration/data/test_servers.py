"""The real servers themselves, through their own clients: tells a broken component apart from a broken copytool."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import disks, gfal
from tests.x509 import X509, make_x509
from tests.xrootd import XRootD, require_xrootd, running_xrootd

CONTENTS = os.urandom(100_000)
# Name of a file -> its URL.
Url = Callable[[XRootD, str], str]
# s; far more than a transfer of that much takes.
PATIENCE = 60


def run(*command: str | os.PathLike[str], fails: bool = False, **environ: str) -> str:
    """What a command says on both its outputs. It must do what is asked, or fail."""
    done = subprocess.run(
        command, env={**os.environ, **environ}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode != 0) is fails, done.stdout
    return done.stdout


def there_and_back(url: str, work: Path, **environ: str) -> None:
    gfal.require_gfal()
    (work / "out").write_bytes(CONTENTS)
    run("gfal-copy", "-p", "-K", "ADLER32", f"file://{work}/out", url, **gfal.ENVIRON, **environ)
    run("gfal-copy", "-K", "ADLER32", url, f"file://{work}/in", **gfal.ENVIRON, **environ)
    assert (work / "in").read_bytes() == CONTENTS


@pytest.fixture(scope="module")
def x509(tmp_path_factory: pytest.TempPathFactory) -> X509:
    return make_x509(tmp_path_factory.mktemp("x509"))


@pytest.fixture(scope="module")
def secure(x509: X509) -> Iterator[XRootD]:
    """A server that wants a proxy."""
    require_xrootd()
    with running_xrootd(gsi=x509) as server:
        yield server


def environ(x509: X509, proxy: Path | None = None) -> dict[str, str]:
    return {"X509_CERT_DIR": str(x509.ca_dir), "X509_USER_PROXY": str(proxy or "/nonexistent")}


@pytest.mark.parametrize("url", [XRootD.root, XRootD.http])
def test_gfal_copies_both_ways_without_a_proxy(xrootd: XRootD, work: Path, url: Url) -> None:
    there_and_back(url(xrootd, f"gfal/{work.parent.name}"), work)


@pytest.mark.parametrize("url", [XRootD.roots, XRootD.davs])
@pytest.mark.parametrize("voms", [False, True])
def test_gfal_copies_both_ways_with_a_proxy(secure: XRootD, x509: X509, work: Path, url: Url, voms: bool) -> None:
    there_and_back(url(secure, f"gfal/{work.parent.name}"), work, **environ(x509, x509.proxy(voms=voms)))


@pytest.mark.parametrize("url", [XRootD.roots, XRootD.davs])
def test_without_a_good_proxy_nobody_reads(secure: XRootD, x509: X509, work: Path, url: Url) -> None:
    gfal.require_gfal()
    secure.put("f", CONTENTS)
    for proxy in (None, x509.proxy(voms=False, expired=True)):
        known = {**gfal.ENVIRON, **environ(x509, proxy)}
        run("gfal-copy", url(secure, "f"), f"file://{work}/in", fails=True, **known)
    assert list(work.iterdir()) == []


def test_a_server_without_checksums_tells_none(work: Path) -> None:
    require_xrootd()
    with running_xrootd(checksums=False) as server:
        server.put("f", CONTENTS)
        host = f"127.0.0.1:{server.port}"
        run("xrdfs", host, "query", "checksum", "/data/f", fails=True)
        run("xrdcp", "-s", server.root("f"), work / "in")
    assert (work / "in").read_bytes() == CONTENTS


def test_a_small_disk_gets_full(work: Path) -> None:
    require_xrootd()
    (work / "out").write_bytes(os.urandom(3_000_000))
    with disks.small_disk(2) as disk, running_xrootd(data=disk) as server:
        said = run("xrdcp", "-s", work / "out", server.root("f"), fails=True)
        assert "no space left on device" in said.lower()
        disks.fill(disk)
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(b"x" * 5000)
