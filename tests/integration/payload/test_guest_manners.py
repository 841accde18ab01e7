"""A guest's manners: a sick node stops asking (N6), memory is counted where the payload alone is (U2), as any user."""

from __future__ import annotations

import json
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pilot.common.errorcodes import shell_exit_code
from pilot.util.payloadgroup import PayloadGroup
from tests import pilots
from tests.integration.payload.conftest import Submit, settings
from tests.integration.payload.test_guest_leaves_nothing import HOSTILE, alive
from tests.servers import RunningServer
from tests.site import QUEUE, Site, add_site
from tests.users import User

ONCE = ("-v", "1")


def test_a_node_that_only_fails_leaves_the_rest_of_the_queue_alone(site: Site, rundir: Path, tmp_path: Path) -> None:
    program = tmp_path / "apptainer"
    script = 'if [ "$1" = --version ]; then echo apptainer version 1.4.5; exit; fi\necho FATAL: no luck >&2; exit 255'
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PILOTKIT_QUEUEDATA": json.dumps({"container_type": "apptainer:pilot"}),
    }
    jobs = site.submit(*({"transformation": "true", "jobPars": "--containerImage=/"} for _ in range(12)))
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, env=env)
    pilots.wait_until(lambda: "holding" not in map(site.status, jobs), "the final reports are dealt with")
    states = [site.status(jobid) for jobid in jobs]
    site.call("job/kill", {"job_ids": jobs})
    assert (states.count("failed"), states.count("activated")) == (3, 9), pilot.log()
    assert "3 jobs in a row failed within 600 s each, and not by their own fault" in pilot.log()
    assert pilot.process.returncode == shell_exit_code(1306) != 0


@pytest.fixture
def counted() -> None:
    """Only where a payload's memory is counted in a control group of its own."""
    group = PayloadGroup.make()
    counts = group is not None and group.memory is not None
    if group is not None:
        group.end()
    if not counts:
        pytest.skip("no control group that counts memory can be made here: that needs root, or one that is delegated")


@pytest.mark.usefixtures("counted")
def test_memory_that_no_process_maps_counts_in_the_payloads_own_group(site: Site, rundir: Path, submit: Submit) -> None:
    name = f"/dev/shm/pilotkit-{uuid.uuid4().hex}"
    jobid = submit(
        f"""
        import os, time
        with open({name!r}, "wb") as held:
            os.unlink({name!r})
            for _ in range(100):
                held.write(bytes(2**20))
            held.flush()
            time.sleep(60)
        """,
        minRamCount=80,
    )
    quick = settings(memory_check_first=0.2, memory_check=0.4, memory_check_near=0.2, memory_samples=3)
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, settings=quick)
    assert site.wait_for(jobid, "failed")["pilotErrorCode"] == 1235, pilot.log()


@pytest.mark.usefixtures("counted")
def test_a_payload_that_the_kernel_kills_before_it_was_ever_looked_at_has_run_out_of_memory(
    site: Site, rundir: Path, submit: Submit, memory_group: Path
) -> None:
    (memory_group / "memory.limit_in_bytes").write_text(str(150 * 2**20))
    jobid = submit(
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytearray(400 << 20)'], check=True)"
    )
    with pilots.running(site.url, QUEUE, rundir, *ONCE, settings=settings(memory_check_first=30)) as pilot:
        (memory_group / "cgroup.procs").write_text(str(pilot.pid))
        job = site.wait_for(jobid, "failed")
        pilot.wait()
    # Not the payload's first process was killed, and nobody had looked: the group's own counter tells.
    assert job["pilotErrorCode"] == 1212, pilot.log()
    assert "pilotkit-payload-" in str(job["pilotErrorDiag"]) and "may hold 150 MB" in str(job["pilotErrorDiag"])


# ---- as an ordinary user, who can make no control group here


@pytest.fixture(scope="module")
def their_site(server: RunningServer, user: User) -> Site:
    made = add_site(server.url, user.folder, timefloor=60)
    made.storage.chmod(0o777)
    return made


@pytest.fixture
def mark(user: User) -> Iterator[str]:
    """What the processes of the hostile payload are told by."""
    (user.folder / "hostile.py").write_text(HOSTILE)
    made = f"guest-{uuid.uuid4().hex}"
    yield made
    for pid in alive(made):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("end", ["its own", "TERM", "pilot", "guard"])
def test_an_ordinary_users_payload_leaves_nothing_either(their_site: Site, user: User, mark: str, end: str) -> None:
    (jobid,) = their_site.submit(
        {
            "transformation": "/usr/bin/python3",
            "jobPars": f"{user.folder}/hostile.py {mark}",
            "maxAttempt": 3 if end == "TERM" else 1,
        }
    )
    pilot = user.start(their_site.url, QUEUE, *ONCE)
    try:
        their_site.wait_for(jobid, "running")
        pilots.wait_until(lambda: (pilot.workdir(jobid) / "ready").exists(), "the payload is ready")
        assert len(alive(mark)) >= 5 and {psutil.Process(pilot.pid).uids().real} == {user.uid}
        if end == "its own":
            (pilot.workdir(jobid) / "over").touch()
        elif end == "guard":
            psutil.Process(pilot.pid).children()[0].kill()
        else:
            pilot.signal(signal.SIGTERM if end == "TERM" else signal.SIGKILL)
        code = pilot.wait()
        pilots.wait_until(lambda: not alive(mark), f"all is gone but {alive(mark)}", 10)
    finally:
        pilot.process.kill()
        pilot.process.wait()
    if end == "TERM":
        assert code == 143
        assert their_site.wait_for(jobid, "activated")["failedAttempt"] == 0
        assert list(their_site.storage.rglob(f"{jobid}.*.log.tgz*"))
    their_site.call("job/kill", {"job_ids": [jobid]})
    assert sys.executable not in pilot.log()
