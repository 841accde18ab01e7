"""Whole jobs whose files are moved inside a middleware container, by real Apptainer and real XRootD."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.info.storagedata import deterministic_path
from tests import pilots
from tests.containers import Container
from tests.integration.data.conftest import Proxy
from tests.site import QUEUE, Site
from tests.x509 import X509
from tests.xrootd import XRootD

C = ErrorCodes
CONTENTS = os.urandom(200_000)
REMOTE = "REMOTE_DISK"
SETTINGS = f"[Container]\nmiddleware_python = {sys.executable}\n"


@pytest.fixture
def submit(site: Site, xrootd: XRootD, container: Container) -> Callable[..., int]:
    """A job of a queue that moves its files in the container, from and to the server at a port."""

    def call(
        port: int = 0,
        stored: bool = True,
        image: str = "",
        runtime: str = "apptainer",
        server: XRootD = xrootd,
        more: str = "",
    ) -> int:
        reads, writes = (
            [{"endpoint": f"root://localhost:{one}/", "id": 1, "path": "/data/inside"}]
            for one in (port or server.port, server.port)
        )
        protocols = {"read_lan": reads, "default": writes}
        described = {"state": "ACTIVE", "is_deterministic": True, "arprotocols": protocols}
        site.call("storage/add", {"storages": {REMOTE: described}})
        changes = {
            "astorages": {"default": [REMOTE]},
            "acopytools": {"default": ["xrdcp"]},
            "copytools": {"xrdcp": {}},
            "container_type": f"{runtime}:middleware",
            "catchall": f"middleware_image={image or container.image}",
        }
        site.call("queue/set", {"name": QUEUE, "changes": changes})
        name = f"in.{uuid.uuid4().hex}.root"
        if stored:
            server.put(f"inside/{deterministic_path('mc', name)}", CONTENTS)
        known = {"fsize": len(CONTENTS), "checksum": f"ad:{zlib.adler32(CONTENTS):08x}", "guid": str(uuid.uuid4())}
        (jobid,) = site.submit(
            {
                "command": f"cp {name} out.root{more}",
                "inputs": [{"lfn": name, "scope": "mc", "endpoint": REMOTE, **known}],
                "outputs": [{"local": "out.root", "lfn": f"out.{uuid.uuid4().hex}.root"}],
                "maxAttempt": 1,
            }
        )
        return jobid

    return call


def test_files_of_a_job_are_moved_in_the_container(
    site: Site, rundir: Path, xrootd: XRootD, container: Container, submit: Callable[..., int]
) -> None:
    jobid = submit()
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", "--cleanup=False", env=container.environ, settings=SETTINGS)
    job, log = site.wait_for(jobid), pilot.log()
    assert job["jobStatus"] == "finished", log
    (output,) = site.files(jobid, "output")
    assert output["checksum"] == f"ad:{zlib.adler32(CONTENTS):08x}" and output["fsize"] == len(CONTENTS)
    (path,) = [found for found in xrootd.files() if found.endswith(str(output["lfn"]))]
    assert (xrootd.data / path).read_bytes() == CONTENTS
    assert "in the container: " in log and "places for in." in log
    assert "in the container:   in." in log, "the table of transfers is not in the log"
    (folder,) = rundir.glob(f"pilotkit-*/PanDA_Pilot-{jobid}")
    assert not [path for path in folder.parent.rglob("*") if path.name.startswith("middleware-")]


def test_what_a_payload_leaves_in_its_directory_is_no_program_of_the_middleware(
    site: Site, rundir: Path, container: Container, submit: Callable[..., int]
) -> None:
    mine = "import os, sys; print(sorted(os.environ)); sys.exit('the payload has the credentials of the pilot')"
    jobid = submit(more=f'; mkdir pilot; echo "{mine}" | tee json.py pilot/__init__.py ssl.py > sitecustomize.py')
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", env=container.environ, settings=SETTINGS)
    assert site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()
    assert "the payload has" not in pilot.log()


def test_rucio_is_used_as_the_pilot_was_told_and_the_pilot_sends_the_traces(
    site: Site, rundir: Path, container: Container, submit: Callable[..., int]
) -> None:
    jobid = submit()
    told = f"{SETTINGS}[Rucio]\ntrace_file = traces.json\nreplicas = False\n"
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", env=container.environ, settings=told)
    assert site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()
    written = [json.loads(line) for line in (rundir / "traces.json").read_text().splitlines()]
    assert [(one["eventType"], one["clientState"], one["appid"]) for one in written] == [
        ("get_sm_a", "DONE", str(jobid)), ("put_sm_a", "DONE", str(jobid)), ("put_sm_a", "DONE", str(jobid))
    ]  # fmt: skip


def test_the_proxy_reaches_the_container(
    site: Site, rundir: Path, secure: XRootD, x509: X509, container: Container, submit: Callable[..., int]
) -> None:
    jobid = submit(server=secure)
    env = {**container.environ, "X509_USER_PROXY": str(x509.proxy()), "X509_CERT_DIR": str(x509.ca_dir)}
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", env=env, settings=SETTINGS)
    assert site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()
    (output,) = site.files(jobid, "output")
    assert any(found.endswith(str(output["lfn"])) for found in secure.files())


def test_a_tool_in_the_container_finds_no_keys_that_are_for_another(
    site: Site, rundir: Path, tmp_path: Path, container: Container
) -> None:
    """And a place that the queue names for its containers is seen in there."""
    own = tmp_path / "site"
    own.mkdir()
    for name, source in (("lsm-get", "$1"), ("lsm-put", "")):
        text = f"#!/bin/sh\nenv >> {own}/seen-by-tools\nls -a >> {own}/in-the-jobs-directory\n" + (
            f'cp {own}/stored "$2"\n' if source else ""
        )
        (own / name).write_text(text)
        (own / name).chmod(0o755)
    (own / "stored").write_bytes(CONTENTS)
    protocols = {"default": [{"endpoint": "srm://nowhere", "id": 1, "path": "/data"}]}
    site.call(
        "storage/add", {"storages": {REMOTE: {"state": "ACTIVE", "is_deterministic": True, "arprotocols": protocols}}}
    )
    changes = {
        "astorages": {"default": [REMOTE]},
        "acopytools": {"default": ["lsm", "s3"]},
        "copytools": {"lsm": {"setup": str(own)}, "s3": {}},
        "container_type": "apptainer:middleware",
        "catchall": f"middleware_image={container.image},bindmounts={own}:{own}:rw",
    }
    site.call("queue/set", {"name": QUEUE, "changes": changes})
    known = {"fsize": len(CONTENTS), "checksum": f"ad:{zlib.adler32(CONTENTS):08x}"}
    inputs = [{"lfn": "in.root", "scope": "mc", "endpoint": REMOTE, **known}]
    (jobid,) = site.submit({"command": "env > seen.txt", "inputs": inputs, "outputs": [], "maxAttempt": 1})
    secret = {"AWS_SECRET_ACCESS_KEY": "c4na7y-of-aws", "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/c4na7y.json"}
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", env={**container.environ, **secret}, settings=SETTINGS)
    assert site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()
    seen = (own / "seen-by-tools").read_text()
    assert "PYTHONPATH=" in seen and "c4na7y" not in seen
    assert "c4na7y" not in pilot.log()
    # What the pilot tells the script may have keys in it.
    assert "middleware" not in (own / "in-the-jobs-directory").read_text()


def test_what_goes_wrong_in_the_container_is_told_as_outside(
    site: Site, rundir: Path, container: Container, submit: Callable[..., int]
) -> None:
    jobid = submit(stored=False)
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", env=container.environ, settings=SETTINGS)
    job = site.wait_for(jobid)
    assert (job["jobStatus"], job["pilotErrorCode"]) == ("failed", C.MISSINGINPUTFILE), pilot.log()
    assert "the file is not there" in str(job["pilotErrorDiag"])


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("image", C.IMAGENOTFOUND, "image /no/such/image.sif is not there"),
        ("broken image", C.SINGULARITYIMAGEMOUNTFAILURE, "image"),
        ("runtime", C.APPTAINERNOTINSTALLED, "neither apptainer nor singularity is on the PATH"),
        ("docker", C.NOTIMPLEMENTED, "the queue asks for docker containers"),
        ("python", C.MIDDLEWAREIMPORTFAILURE, "no /no/such/python of 3.9 or later with requests"),
        ("requests", C.MIDDLEWAREIMPORTFAILURE, "of 3.9 or later with requests"),
    ],
)
def test_a_container_that_cannot_be_had_fails_the_job_with_what_to_do(
    site: Site, rundir: Path, tmp_path: Path, container: Container, submit: Callable[..., int], what: str, code: int,
    words: str,
) -> None:  # fmt: skip
    (tmp_path / "broken.sif").write_bytes(b"no image at all")
    images = {"image": "/no/such/image.sif", "broken image": str(tmp_path / "broken.sif")}
    jobid = submit(image=images.get(what, ""), runtime="docker" if what == "docker" else "apptainer")
    env = {} if what == "runtime" else container.environ
    settings = "[Container]\nmiddleware_python = /no/such/python\n" if what == "python" else SETTINGS
    if what == "requests":
        # Isolated from what is installed: a Python that has nothing but itself.
        bare = tmp_path / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
        settings = f"[Container]\nmiddleware_python = {bare}/bin/python\n"
        env = {**container.environ, "APPTAINER_BIND": f"{container.environ['APPTAINER_BIND']},{bare}:{bare}:ro"}
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", env=env, settings=settings)
    job = site.wait_for(jobid)
    assert (job["jobStatus"], job["pilotErrorCode"]) == ("failed", code), pilot.log()
    assert words in str(job["pilotErrorDiag"])


def test_a_pilot_that_is_told_to_end_leaves_nothing_of_the_container(
    site: Site, rundir: Path, xrootd: XRootD, container: Container, submit: Callable[..., int]
) -> None:
    proxy = Proxy(xrootd.port, 0, hang=True)
    try:
        jobid = submit(proxy.port)
        with pilots.running(site.url, QUEUE, rundir, "-v", "1", env=container.environ, settings=SETTINGS) as pilot:

            def inside() -> list[str]:
                return [name for name in pilots.names(pilot.tree()) if "with_xrootd" in name]

            pilots.wait_until(inside, "a helper in the container")
            below = pilot.tree()
            pilot.signal(signal.SIGTERM)
            pilot.wait()
        assert pilots.names(below) == []
        assert site.wait_for(jobid)["pilotErrorCode"] == C.SIGTERM, pilot.log()
    finally:
        proxy.close()


def test_the_scripts_themselves_move_files_for_anybody(tmp_path: Path, xrootd: XRootD) -> None:
    xrootd.put("script/in.root", CONTENTS)
    sums = {"adler32": f"{zlib.adler32(CONTENTS):08x}"}
    for n, url in enumerate((xrootd.root("script/in.root"), xrootd.http("script/in.root"))):
        one = {"lfn": "f.root", "surl": url, "checksum": sums, "filesize": len(CONTENTS)}
        out = {"lfn": "f.root", "surl": url.replace("in.root", f"out{n}.root")}
        work = tmp_path / str(n)
        work.mkdir()
        for script, spec in (("stagein", one), ("stageout", out)):
            ended = subprocess.run(
                [sys.executable, "-m", f"pilot.scripts.{script}", "-", "--workdir", str(work)],
                input=json.dumps({"files": [spec]}), capture_output=True, text=True, timeout=60, check=False,
                cwd=pilots.ROOT,
            )  # fmt: skip
            assert ended.returncode == 0, ended.stderr
            assert json.loads(ended.stdout)["files"][0]["status"] == "transferred"
        assert (xrootd.data / f"script/out{n}.root").read_bytes() == CONTENTS
