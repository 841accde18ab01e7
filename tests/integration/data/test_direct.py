"""Whole jobs whose payload reads its input where it lies, on a real XRootD server."""

from __future__ import annotations

import os
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.info.storagedata import deterministic_path
from tests import pilots
from tests.integration.data.conftest import Proxy
from tests.site import DISK, QUEUE, Site
from tests.xrootd import XRootD

C = ErrorCodes
CONTENTS = os.urandom(200_000)
REMOTE = "REMOTE_DISK"


@pytest.fixture
def submit(site: Site, xrootd: XRootD) -> Callable[..., int]:
    """Describe a storage with endpoints, put an input into it, and submit a job that asks for direct access."""

    def call(*endpoints: str, stored: bool = True, **job: object) -> int:
        protocols = [{"endpoint": one, "id": n, "path": "/data/direct"} for n, one in enumerate(endpoints)]
        described = {"state": "ACTIVE", "is_deterministic": True, "arprotocols": {"default": protocols}}
        site.call("storage/add", {"storages": {REMOTE: described}})
        changes = {
            "astorages": {"read_lan": [REMOTE], "default": [DISK]},
            "acopytools": {"read_lan": ["https"], "default": ["mv"]},
            "copytools": {"mv": {}, "https": {}},
            "direct_access_lan": True,
        }
        site.call("queue/set", {"name": QUEUE, "changes": changes})
        name = f"in.{uuid.uuid4().hex}.root"
        if stored:
            xrootd.put(f"direct/{deterministic_path('mc', name)}", CONTENTS)
        known = {"fsize": len(CONTENTS), "checksum": f"ad:{zlib.adler32(CONTENTS):08x}", "guid": str(uuid.uuid4())}
        output = {"lfn": f"out.{uuid.uuid4().hex}.root"}
        made: dict[str, object] = {
            "transferType": "direct",
            "inputs": [{"lfn": name, "scope": "mc", "endpoint": REMOTE, **known}],
            "command": "xrdcp %IN out.root",
            "outputs": [{"local": "out.root", **output}],
        }
        if "transformation" in job:
            made = {**made, "outputs": [output], "jobPars": f"{name} {output['lfn']}"}
            del made["command"]
        (jobid,) = site.submit({**made, **job})
        return jobid

    return call


@pytest.fixture
def broken(xrootd: XRootD) -> Iterator[Callable[[str], str]]:
    """The address of a server that is gone, or that takes connections and says nothing."""
    with ExitStack() as left:

        def make(how: str) -> str:
            proxy = Proxy(xrootd.port, 0, hang=True)
            address = f"root://127.0.0.1:{proxy.port}/"
            if how == "gone":
                proxy.close()
            else:
                left.callback(proxy.close)
            return address

        yield make


def written(site: Site, jobid: int) -> bytes:
    (path,) = site.stored(jobid)
    return path.read_bytes()


def test_a_payload_reads_its_input_at_the_address_in_the_catalogue(
    site: Site, rundir: Path, xrootd: XRootD, submit: Callable[..., int]
) -> None:
    # runGen takes the address of what is not in the job's directory from PoolFileCatalog.xml.
    jobid = submit(f"root://127.0.0.1:{xrootd.port}/")
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", "--cleanup=False")
    assert site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()
    assert written(site, jobid) == CONTENTS
    (job,) = rundir.glob(f"pilotkit-*/PanDA_Pilot-{jobid}")
    assert not list(job.glob("in.*.root"))
    assert f"root://127.0.0.1:{xrootd.port}//data/direct/mc/" in (job / "PoolFileCatalog.xml").read_text()
    log = pilot.log()
    assert "lan, root, as queue, job and file allow" in log and "--usePFCTurl --directIn" in log
    assert "remote_io" in log


def test_the_address_takes_the_place_of_the_name_in_other_commands(
    site: Site, rundir: Path, xrootd: XRootD, submit: Callable[..., int]
) -> None:
    jobid = submit(f"root://127.0.0.1:{xrootd.port}/", transformation="xrdcp")
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1")
    assert site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()
    assert written(site, jobid) == CONTENTS
    assert f"payload command: xrdcp root://127.0.0.1:{xrootd.port}//data/direct/mc/" in pilot.log()


@pytest.mark.parametrize("how", ["gone", "hang"])
def test_an_input_whose_server_is_in_trouble_is_copied_by_another_way(
    site: Site, rundir: Path, xrootd: XRootD, submit: Callable[..., int], broken: Callable[[str], str], how: str
) -> None:
    jobid = submit(broken(how), f"dav://127.0.0.1:{xrootd.port}", command="cat %IN > out.root")
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", settings="[File]\nremote_open_limit = 3\n")
    assert site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()
    assert written(site, jobid) == CONTENTS
    assert "is copied, since it does not open where it lies" in pilot.log()


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("missing", C.REMOTEFILECOULDNOTBEOPENED, "the file is not there"),
        ("hang", C.REMOTEFILEOPENTIMEDOUT, "no byte moved for"),
    ],
)
def test_an_input_that_does_not_open_fails_a_job_that_wants_no_copy(
    site: Site, rundir: Path, xrootd: XRootD, submit: Callable[..., int], broken: Callable[[str], str], how: str,
    code: int, words: str,
) -> None:  # fmt: skip
    address = broken(how) if how == "hang" else f"root://127.0.0.1:{xrootd.port}/"
    jobid = submit(address, stored=how != "missing", maxAttempt=1)
    limit = 3 if how == "hang" else 30
    settings = f"[File]\nremote_open_limit = {limit}\ndirect_access_fallback = False\n"
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", settings=settings)
    job = site.wait_for(jobid)
    assert (job["jobStatus"], job["pilotErrorCode"]) == ("failed", code), pilot.log()
    assert words in str(job["pilotErrorDiag"])
