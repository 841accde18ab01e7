"""Whole jobs whose inputs and outputs go through a copytool for remote storage."""

from __future__ import annotations

import os
import uuid
import zlib
from pathlib import Path

import pytest

from pilot.info.storagedata import deterministic_path
from tests import pilots
from tests.gfal import require_gfal
from tests.site import QUEUE, Site
from tests.x509 import X509
from tests.xrootd import XRootD

CONTENTS = os.urandom(200_000)
REMOTE = "REMOTE_DISK"
# Copytool and endpoint; those with localhost want a proxy.
WAYS = (
    ("xrdcp", "root://127.0.0.1:{port}/"),
    ("xrdcp", "roots://localhost:{port}/"),
    ("https", "dav://127.0.0.1:{port}"),
    ("https", "davs://localhost:{port}"),
    ("lsm", "root://127.0.0.1:{port}/"),
    ("gfal", "root://127.0.0.1:{port}/"),
    ("gfal", "dav://127.0.0.1:{port}"),
    ("gfalcopy", "davs://localhost:{port}"),
)
# What a site may have for lsm.
SCRIPTS = {
    "lsm-get": '#!/bin/sh\nexec xrdcp --nopbar "$1" "$2"\n',
    "lsm-put": '#!/bin/sh\nwhile [ $# -gt 2 ]; do shift 2; done\nexec xrdcp --nopbar --path "$1" "$2"\n',
}


@pytest.mark.parametrize(("tool", "endpoint"), WAYS, ids=[f"{tool}-{url.partition(':')[0]}" for tool, url in WAYS])
def test_a_job_reads_and_writes_remote_storage_and_its_log_tells_every_attempt(
    site: Site, rundir: Path, xrootd: XRootD, secure: XRootD, x509: X509, tool: str, endpoint: str
) -> None:
    if tool.startswith("gfal"):
        require_gfal()
    with_proxy = "localhost" in endpoint
    server = secure if with_proxy else xrootd
    proxy = {"X509_USER_PROXY": str(x509.proxy()), "X509_CERT_DIR": str(x509.ca_dir)} if with_proxy else {}
    folder = f"{tool}-{endpoint.partition(':')[0]}"
    protocol = {"endpoint": endpoint.format(port=server.port), "id": 1, "path": f"/data/{folder}"}
    described = {"state": "ACTIVE", "is_deterministic": True, "arprotocols": {"default": [protocol]}}
    site.call("storage/add", {"storages": {REMOTE: described}})
    options = {"setup": scripts(rundir.parent / "site")} if tool == "lsm" else {}
    changes = {"astorages": {"default": [REMOTE]}, "acopytools": {"default": [tool]}, "copytools": {tool: options}}
    site.call("queue/set", {"name": QUEUE, "changes": changes})
    known = {"fsize": len(CONTENTS), "checksum": f"ad:{zlib.adler32(CONTENTS):08x}", "guid": str(uuid.uuid4())}
    name = f"in.{folder}.root"
    server.put(f"{folder}/{deterministic_path('mc', name)}", CONTENTS)
    entry = {"lfn": name, "scope": "mc", "endpoint": REMOTE, **known}
    (jobid,) = site.submit(
        {
            "command": f"cp {name} out.root",
            "inputs": [entry],
            "outputs": [{"local": "out.root", "lfn": f"out.{folder}.root"}],
        }
    )
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", env=proxy)
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    (output,) = site.files(jobid, "output")
    assert output["endpoint"] == REMOTE and output["checksum"] == known["checksum"]
    stored = [found for found in server.files() if found.endswith(f"out.{folder}.root")]
    assert [(server.data / found).read_bytes() for found in stored] == [CONTENTS]
    (tarball,) = site.files(jobid, "log")
    assert tarball["endpoint"] == REMOTE and any(found.endswith(str(tarball["lfn"])) for found in server.files())
    log = pilot.log()
    assert f"places for {name}, best first" in log and "transfers:\n" in log


def scripts(folder: Path) -> str:
    """The site's own scripts, in a directory."""
    folder.mkdir()
    for name, text in SCRIPTS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return str(folder)
