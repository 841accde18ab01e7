"""A pilot in a batch job of a real Slurm: it finds the slot's limit, and ends its job before Slurm would."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pilots
from tests.integration.payload.conftest import Submit
from tests.integration.payload.test_memory import members
from tests.site import QUEUE, Site
from tests.slurm import Slurm, require_slurm, running_slurm


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    require_slurm()
    with running_slurm() as started:
        yield started


def test_a_pilot_knows_the_time_limit_of_its_batch_job(slurm: Slurm, site: Site, rundir: Path, submit: Submit) -> None:
    jobid = submit("""
        import json, os, time
        slot = json.load(open(os.environ["PILOT_SLOT_FILE"]))
        print("left", slot["end"] - time.time(), slot["source"])
    """)
    rundir.mkdir()
    script = rundir / "batch.sh"
    pilot = f"{sys.executable} {pilots.ROOT}/pilot.py -q {QUEUE} --url {site.url} -j user -v 1 -a {rundir}"
    script.write_text(f"#!/bin/sh\nexec {pilot}\n")
    number = slurm.submit(script, "-t", "3", "-o", str(rundir / "stdout"))
    job = site.wait_for(jobid, timeout=60)
    log = (rundir / "stdout").read_text()
    assert job["jobStatus"] == "finished", log
    assert f"batch system Slurm, job {number}" in log
    said = members(site.stored(jobid, "log")[0])["payload.stdout"]
    _, left, *source = said.split()
    assert 60 < float(left) <= 181
    assert " ".join(source) == "limit of the batch system (Slurm)"
    slurm.wait_for(number, "COMPLETED")
