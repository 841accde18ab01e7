"""Whole jobs whose inputs and outputs go through a copytool for remote storage."""

from __future__ import annotations

import os
import uuid
import zlib
from pathlib import Path

import pytest

from pilot.info.storagedata import deterministic_path
from tests import pilots
from tests.site import QUEUE, Site
from tests.xrootd import XRootD

CONTENTS = os.urandom(200_000)
REMOTE = "REMOTE_DISK"
URLS = {"xrdcp": "root://127.0.0.1:{port}/", "https": "dav://127.0.0.1:{port}"}


@pytest.mark.parametrize("tool", sorted(URLS))
def test_a_job_reads_and_writes_remote_storage_and_its_log_tells_every_attempt(
    site: Site, rundir: Path, xrootd: XRootD, tool: str
) -> None:
    protocol = {"endpoint": URLS[tool].format(port=xrootd.port), "id": 1, "path": f"/data/{tool}"}
    described = {"state": "ACTIVE", "is_deterministic": True, "arprotocols": {"default": [protocol]}}
    site.call("storage/add", {"storages": {REMOTE: described}})
    changes = {"astorages": {"default": [REMOTE]}, "acopytools": {"default": [tool]}, "copytools": {tool: {}}}
    site.call("queue/set", {"name": QUEUE, "changes": changes})
    known = {"fsize": len(CONTENTS), "checksum": f"ad:{zlib.adler32(CONTENTS):08x}", "guid": str(uuid.uuid4())}
    name = f"in.{tool}.root"
    xrootd.put(f"{tool}/{deterministic_path('mc', name)}", CONTENTS)
    entry = {"lfn": name, "scope": "mc", "endpoint": REMOTE, **known}
    (jobid,) = site.submit(
        {
            "command": f"cp {name} out.root",
            "inputs": [entry],
            "outputs": [{"local": "out.root", "lfn": f"out.{tool}.root"}],
        }
    )
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1")
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    (output,) = site.files(jobid, "output")
    assert output["endpoint"] == REMOTE and output["checksum"] == known["checksum"]
    stored = [found for found in xrootd.files() if found.endswith(f"out.{tool}.root")]
    assert [(xrootd.data / found).read_bytes() for found in stored] == [CONTENTS]
    (tarball,) = site.files(jobid, "log")
    assert tarball["endpoint"] == REMOTE and any(found.endswith(str(tarball["lfn"])) for found in xrootd.files())
    log = pilot.log()
    assert f"places for {name}, best first" in log and "transfers:\n" in log
