"""The stager workflow: a payload that runs as long as the server answers heartbeats."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import pilots
from tests.integration.payload.conftest import Submit
from tests.servers import running_server
from tests.site import QUEUE, Site, add_site

LEASE = 8  # s
STAGER = ("-v", "1", "-w", "stager", "-L", str(LEASE))
# Works until it is told to end, and then saves what it has.
WORKER = """
import signal, sys, time
def save(number, frame):
    open("state.txt", "w").write("so far")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("works", flush=True)
time.sleep({seconds})
open("state.txt", "w").write("all")
"""


def test_a_lease_is_renewed_by_heartbeats_for_as_long_as_the_payload_likes(
    site: Site, rundir: Path, submit: Submit
) -> None:
    jobid = submit(WORKER.format(seconds=3 * LEASE), outFiles="state.txt")
    pilot = pilots.run(site.url, QUEUE, rundir, *STAGER)
    assert site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()
    assert pilot.log().count("update 'running' is delivered") >= 3, "one a lease at the least"


def test_a_job_that_is_killed_ends_at_its_next_heartbeat(site: Site, rundir: Path, submit: Submit) -> None:
    jobid = submit(WORKER.format(seconds=60))
    with pilots.running(site.url, QUEUE, rundir, *STAGER) as pilot:
        site.wait_for(jobid, "running")
        site.call("job/kill", {"job_ids": [jobid]})
        pilot.wait()
    assert site.wait_for(jobid, "failed")["pilotErrorCode"] == 1144, pilot.log()


def test_a_lease_that_nobody_renews_ends_the_payload_softly_and_its_outputs_are_kept(
    tmp_path: Path, rundir: Path
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(seconds=60))
    with running_server(tmp_path / "data") as first:
        site = add_site(first.url, tmp_path / "site")
        (jobid,) = site.submit({"transformation": "python3", "jobPars": f"-u {script}", "outFiles": "state.txt"})
        with pilots.running(first.url, QUEUE, rundir, *STAGER) as pilot:
            site.wait_for(jobid, "running")
            first.stop()
            pilots.wait_until(lambda: "payload ended with" in pilot.log(), "the payload's end")
            second = first.restart()
            try:
                pilot.wait()
                job = site.wait_for(jobid, "failed")
            finally:
                second.stop()
    assert job["pilotErrorCode"] == 1375, pilot.log()
    assert f"no heartbeat was answered for {LEASE} s (--leasetime)" in str(job["pilotErrorDiag"])
    (kept,) = site.storage.rglob("state.txt")
    assert kept.read_text() == "so far"


@pytest.mark.parametrize("name", ["nosuch", "start", "named", "../evil", ""])
def test_a_workflow_that_is_not_there_is_refused_with_those_there_are(rundir: Path, name: str) -> None:
    pilot = pilots.run("http://127.0.0.1:9", QUEUE, rundir, f"--workflow={name}")
    assert pilot.process.returncode == 2
    assert pilot.log().endswith("there is no such workflow; there are: generic, stager\n")
