"""Where a pilot runs: in a Kubernetes pod, or on a machine with hooks of its own."""

from __future__ import annotations

from pathlib import Path

from tests import pilots
from tests.integration.payload.conftest import Submit
from tests.site import QUEUE, Site

ONCE = ("-v", "1")


def test_a_pilot_in_a_pod_says_so_and_links_the_jobs_directory(
    site: Site, rundir: Path, submit: Submit, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    jobid = submit(f"""
        import os
        print("linked", os.path.samefile("{shared}/payload_workdir", "."))
        open("out.txt", "w").write(str(os.path.samefile("{shared}/payload_workdir", ".")))
    """, outFiles="out.txt")  # fmt: skip
    env = {"SHARED_DIR": str(shared), "POD_NAME": "pilot-x", "POD_NAMESPACE": "atlas", "NODE_NAME": "node-7"}
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, "--pod", env=env)
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    assert (job["node"], job["batchID"]) == ("pilot-x@node-7", "atlas/pilot-x")
    assert site.stored(jobid)[0].read_text() == "True"
    assert list(shared.iterdir()) == [], "the link goes with the job"


def test_a_machine_without_hooks_is_refused_before_anything_is_done(rundir: Path) -> None:
    pilot = pilots.run("http://127.0.0.1:9", QUEUE, rundir, "--hpc-resource", "nosuch")
    assert pilot.process.returncode == 2
    assert "--hpc-resource nosuch: there are no hooks for it; there are for: alcf, bnl, generic," in pilot.log()


def test_a_job_runs_on_a_machine_with_hooks(site: Site, rundir: Path, submit: Submit) -> None:
    jobid = submit("print('fine')")
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, "--hpc-resource", "summit")
    assert site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()
