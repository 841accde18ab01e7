"""The end of a slot (promise U5), and the other limits of a job that real payloads go beyond."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pilots
from tests.integration.payload.conftest import Submit, settings
from tests.integration.payload.test_memory import members
from tests.site import QUEUE, Site

ONCE = ("-v", "1")
SLOT = 16  # s; what is asserted of it holds for one of 60 s, in which the same parts are longer
# Works for ten slots unless told; saves what it has when it gets the soft signal, and then goes on a little.
WORKER = """
    import json, os, signal, sys, time
    slot = json.load(open(os.environ["PILOT_SLOT_FILE"]))
    print("left", round(slot["end"] - time.time()), "of", slot["source"])
    def save(number, frame):
        print("told", slot["soft"] - 2 <= time.time() <= slot["stop"] + 1)
        open("events.txt", "w").write("all so far")
    signal.signal(signal.SIGUSR1, save)
    end = time.monotonic() + 160
    while time.monotonic() < end:
        time.sleep(0.2)
"""


@pytest.mark.parametrize("said_by", ["lifetime", "queue", "job features", "Slurm"])
def test_output_and_log_of_a_long_job_arrive_before_the_slot_ends(
    site: Site, rundir: Path, submit: Submit, tmp_path: Path, said_by: str
) -> None:
    jobid = submit(WORKER, outFiles="events.txt,never.txt")
    options: tuple[str, ...] = ONCE
    env: dict[str, str] = {}
    begun = time.time()
    if said_by == "lifetime":
        options += ("-l", str(SLOT))
    elif said_by == "queue":
        env["PILOTKIT_QUEUEDATA"] = f'{{"maxtime": {SLOT}}}'
    elif said_by == "job features":
        (tmp_path / "features").mkdir()
        (tmp_path / "features" / "wall_limit_secs").write_text(f"{SLOT}\n")
        (tmp_path / "features" / "jobstart_secs").write_text(f"{int(begun)}\n")
        env["JOBFEATURES"] = str(tmp_path / "features")
    else:
        env |= {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": str(int(begun) + SLOT)}
    pilot = pilots.run(site.url, QUEUE, rundir, *options, env=env)
    left = begun + SLOT - time.time()
    job = site.wait_for(jobid, "failed")
    assert job["pilotErrorCode"] == 1213, pilot.log()
    assert pilot.process.returncode == 81
    assert left > 0, "the pilot has left before its slot was over"
    entries = {str(entry["lfn"]): entry for entry in site.files(jobid, "output")}
    stored = [path for path in site.storage.rglob("events.txt*") if path.is_file()]
    assert any(path.read_text() == "all so far" for path in stored), (entries, pilot.log())
    log = members(site.stored(jobid, "log")[0])
    assert "told True" in log["payload.stdout"]
    assert "SIGUSR1 sent to 1 process(es) that handle it" in log["pilotlog.txt"]
    names = {"lifetime": "--lifetime", "queue": "maxtime of the queue", "job features": "wall_limit_secs"}
    assert names.get(said_by, "limit of the batch system (Slurm)") in log["payload.stdout"]


def test_a_payload_that_does_not_handle_the_soft_signal_is_not_harmed_by_it(
    site: Site, rundir: Path, submit: Submit
) -> None:
    jobid = submit("""
        import json, os, time
        slot = json.load(open(os.environ["PILOT_SLOT_FILE"]))
        while time.time() < slot["soft"] + 1.2:
            time.sleep(0.1)
    """)
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, "-l", "40")
    assert site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()


def test_an_output_that_grows_too_large_ends_the_job_while_it_runs(site: Site, rundir: Path, submit: Submit) -> None:
    jobid = submit("""
        import time
        with open("out.bin", "wb") as out:
            out.write(bytes(200_000))
        time.sleep(60)
    """, outFiles="out.bin")  # fmt: skip
    limits = settings(output_check=0.3, File__output_limit=100_000)
    pilots.run(site.url, QUEUE, rundir, *ONCE, settings=limits)
    job = site.wait_for(jobid, "failed")
    assert job["pilotErrorCode"] == 1124
    assert "has 200000 bytes already, 100000 are allowed" in str(job["pilotErrorDiag"])


def test_what_a_job_had_asked_for_is_told_when_it_uses_more_and_never_enforced(
    site: Site, rundir: Path, submit: Submit
) -> None:
    jobid = submit("""
        import time
        with open("scratch", "wb") as out:
            out.write(bytes(3_000_000))
        time.sleep(2)
    """, maxDiskCount=1, maxCpuCount=3600, maxWalltime=1)  # fmt: skip
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, settings=settings(stdout_check=0.3))
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    assert job["metrics"]["exceeded"] == "maxDiskCount,maxWalltime"  # type: ignore[index]
    assert pilot.log().count("MB of disk, it had asked for 1 (maxDiskCount)") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB, which only root can make."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no disk of its own can be mounted here: that needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("cleans_up", [False, True])
def test_a_disk_that_the_payload_has_filled_has_its_own_code(
    site: Site, small_disk: Path, submit: Submit, cleans_up: bool
) -> None:
    jobid = submit(f"""
        import os
        try:
            with open("scratch", "wb", buffering=0) as out:
                while True:
                    out.write(bytes(1_000_000))
        except OSError:
            if {cleans_up}:
                os.unlink("scratch")
            raise
    """)
    limits = settings(File__space_to_start=0, File__space_to_run=0)
    pilot = pilots.run(site.url, QUEUE, small_disk / "run", *ONCE, settings=limits)
    job = site.wait_for(jobid, "failed")
    assert job["pilotErrorCode"] == 1098, pilot.log()
    assert "bytes are free on the work disk, the job's directory holds" in str(job["pilotErrorDiag"])
    assert job["transExitCode"] == 1
