"""The real servers themselves, through their own clients: tells a broken component apart from a broken copytool."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from botocore.exceptions import ClientError

from tests import disks, gfal
from tests.containers import sandbox
from tests.gs import running_gs
from tests.integration.data.tools import damaged
from tests.rucio import Rucio
from tests.s3 import S3, running_s3
from tests.x509 import X509
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


# The programs that the command rucio has, but that fail when they fail: `rucio upload` exits with 0 all the same.
UPLOAD = """
import sys
from rucio.client.uploadclient import UploadClient
UploadClient().upload([{"path": sys.argv[1], "rse": sys.argv[2], "did_scope": "test"}])
"""
DOWNLOAD = """
import sys
from rucio.client.downloadclient import DownloadClient
DownloadClient().download_dids([{"did": sys.argv[1], "base_dir": sys.argv[2], "rse": sys.argv[3]}])
"""


def python(program: str, known: dict[str, str], *words: str | os.PathLike[str], fails: bool = False) -> str:
    return run(sys.executable, "-c", program, *words, fails=fails, **known)


@pytest.mark.parametrize("rse", ["FILE1", "XRD1", "DAVS1"])
def test_rucio_s_own_clients_upload_and_download(rucio: Rucio, x509: X509, work: Path, rse: str) -> None:
    known = {**rucio.environ, **environ(x509, x509.proxy(voms=False))}
    name, before = f"up-{rse}", len(rucio.traces())
    (work / name).write_bytes(CONTENTS)
    python(UPLOAD, known, work / name, rse)
    assert rucio.path(rse, name).read_bytes() == CONTENTS
    assert rucio.replicas(name) == {rse: [rucio.pfn(rse, name)]}
    python(DOWNLOAD, known, f"test:{name}", work, rse)
    assert (work / "test" / name).read_bytes() == CONTENTS
    assert [trace["eventType"] for trace in rucio.traces()[before:]] == ["upload", "download"]


def test_rucio_has_the_replicas_that_a_test_puts_there(rucio: Rucio, x509: X509, work: Path) -> None:
    known = {**rucio.environ, **environ(x509, x509.proxy(voms=False))}
    rucio.put("three", CONTENTS, ["FILE1", "XRD1", "DAV1", "DAVS1"], scope="mc")
    rucio.put_dataset("set", ["three"], scope="mc")
    there = rucio.replicas("three", scope="mc")
    assert there == {rse: [rucio.pfn(rse, "three", scope="mc")] for rse in ("FILE1", "XRD1", "DAV1", "DAVS1")}
    assert requests.get(there["DAV1"][0], timeout=PATIENCE).content == CONTENTS
    for rse in ("FILE1", "XRD1", "DAVS1"):
        python(DOWNLOAD, known, "mc:set", work / rse, rse)
        assert (work / rse / "set" / "three").read_bytes() == CONTENTS


def test_rucio_s_client_refuses_a_replica_that_is_damaged(rucio: Rucio, work: Path) -> None:
    rucio.put("damaged", CONTENTS, ["FILE1"])
    rucio.path("FILE1", "damaged").write_bytes(damaged(CONTENTS))
    assert "NoFilesDownloaded" in python(DOWNLOAD, rucio.environ, "test:damaged", work, "FILE1", fails=True)


def test_a_limit_of_the_account_stops_an_upload(rucio: Rucio, work: Path) -> None:
    (work / "much").write_bytes(CONTENTS)
    rucio.set_limit("FILE2", 0)
    assert "InsufficientAccountLimit" in python(UPLOAD, rucio.environ, work / "much", "FILE2", fails=True)


def test_rucio_says_what_is_wrong_with_a_trace(rucio: Rucio) -> None:
    trace = {
        "eventType": "get_sm",
        "localSite": "A",
        "eventVersion": "x",
        "uuid": "x",
        "scope": "mc",
        "filename": "f",
        "dataset": "d",
    }
    before = rucio.bad_traces()
    rucio.ask("POST", "traces/", trace)
    assert rucio.bad_traces() == before and rucio.traces()[-1]["traceIp"] == "127.0.0.1"
    del trace["filename"]
    rucio.ask("POST", "traces/", trace)
    assert rucio.bad_traces()[len(before) :] == ["Details: 'filename' is a required property"]


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as raised:
        call()
    return str(raised.value.response["Error"]["Code"])


def test_s3_takes_files_from_who_has_the_keys_and_no_others(work: Path) -> None:
    with running_s3() as server:
        (work / "out").write_bytes(CONTENTS)
        with server.client() as client:
            client.upload_file(str(work / "out"), server.bucket, "dir/f")
            client.download_file(server.bucket, "dir/f", str(work / "in"))
            assert refusal(lambda: client.get_object(Bucket=server.bucket, Key="none")) == "NoSuchKey"
            assert refusal(lambda: client.put_object(Bucket=server.locked, Key="f", Body=b"x")) == "AccessDenied"
        assert (work / "in").read_bytes() == CONTENTS and server.files() == ["dir/f"]
        for keys, code in (
            (("none", "none"), "InvalidAccessKeyId"),
            ((server.access_key, "none"), "SignatureDoesNotMatch"),
        ):
            with S3(server.port, *keys).client() as client:
                assert refusal(lambda: client.get_object(Bucket=server.bucket, Key="dir/f")) == code


def test_s3_takes_files_by_pre_signed_urls() -> None:
    with running_s3(checks_keys=False) as server:
        assert requests.put(server.signed("PUT", "f"), data=CONTENTS, timeout=PATIENCE).ok
        assert requests.get(server.signed("GET", "f"), timeout=PATIENCE).content == CONTENTS == server.get("f")


GS_PROGRAM = """
import sys
from google.cloud import storage
bucket = storage.Client().bucket("bucket")
blob = bucket.blob("dir/f", chunk_size=262144)
blob.upload_from_filename(sys.argv[1], checksum="md5")
bucket.blob("dir/f").download_to_filename(sys.argv[2], checksum="md5")
print(bucket.get_blob("dir/f").md5_hash)
"""


def test_gs_copies_both_ways_and_knows_the_md5(work: Path) -> None:
    with running_gs() as server:
        (work / "out").write_bytes(CONTENTS * 10)
        said = run(sys.executable, "-c", GS_PROGRAM, work / "out", work / "in", **server.environ)
        assert (work / "in").read_bytes() == CONTENTS * 10 == server.path("dir/f").read_bytes()
        assert base64.b64encode(hashlib.md5(CONTENTS * 10).digest()).decode() in said


def test_apptainer_runs_this_python_in_a_container_with_what_it_is_given(work: Path) -> None:
    (work / "in").write_bytes(CONTENTS)
    program = "import os, requests; os.rename('/job/in', '/job/out'); print(os.getppid() < 20, os.path.exists('/home'))"
    with sandbox() as container:
        command = container.command(sys.executable, "-c", program, binds=[f"{work}:/job"])
        assert run(*command, SECRET="x", **container.environ).split() == ["True", "False"]
        assert "SECRET" not in run(*container.command("/usr/bin/env"), SECRET="x", **container.environ)
        run(*container.command("/bin/sh", "-c", "exit 3"), fails=True, **container.environ)
    assert (work / "out").read_bytes() == CONTENTS
