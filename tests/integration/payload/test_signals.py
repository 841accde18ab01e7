"""Every phase of a job, held up: signals have their own code, the log is saved (U6, U7); heartbeats go on (N3)."""

from __future__ import annotations

import json
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pilot.common.errorcodes import shell_exit_code
from tests import pilots
from tests.faults import Network, Request, network
from tests.integration.payload.conftest import settings
from tests.servers import RunningServer
from tests.site import QUEUE, Site, add_site

ONCE = ("-v", "1")
# The pilot promises 5 s (1 to 3 are measured); a test's machine may be busy.
SOON = 20.0
FINAL = ("finished", "failed", "holding")
# The site's scripts: they copy, but for a file that is named like the file `hold`; then they ignore TERM and hang.
SCRIPT = """#!/bin/sh
while [ $# -gt 2 ]; do shift 2; done
case "$1$2" in
  *$(cat {folder}/hold 2>/dev/null || echo nothing)*)
    trap '' TERM INT HUP QUIT USR1
    touch {folder}/reached
    sleep 60; sleep 60;;
esac
from="${{1#file://localhost}}"; to="${{2#file://localhost}}"
mkdir -p "$(dirname "$to")" && cp "$from" "$to"
"""


@dataclass
class Stage:
    """Where a pilot and its job are played, and what holds them up."""

    site: Site
    net: Network
    rundir: Path
    folder: Path
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    env: dict[str, str] = field(default_factory=dict)
    jobs: list[int] = field(default_factory=list)

    def submit(self, command: str, **job: object) -> int:
        """A job that may be tried three times."""
        what = {"command": command} if "transformation" not in job else {}
        self.jobs += self.site.submit({**what, "maxAttempt": 3, **job})
        return self.jobs[-1]

    def script_holds(self, name: str) -> None:
        """Whatever moves a file of this name hangs."""
        (self.folder / "hold").write_text(name)

    def is_reached(self) -> bool:
        return self.reached.is_set() or (self.folder / "reached").exists()

    def runtime_that(self, does: str) -> None:
        """A container runtime that tells its version and hangs."""
        program = self.folder / "apptainer"
        script = f'if [ "$1" = --version ]; then echo apptainer version 1.4.5; exit; fi\n{does}'
        program.write_text(f"#!/bin/sh\n{script}; touch {self.folder}/reached; trap '' TERM; sleep 60; sleep 60\n")
        program.chmod(0o755)
        queue = {"container_type": "apptainer:pilot"}
        self.env = {"PATH": f"{self.folder}:{os.environ['PATH']}", "PILOTKIT_QUEUEDATA": json.dumps(queue)}

    def hold(self, when: Callable[[Request], bool]) -> None:
        """The server does not answer a request until it may go on."""

        def rule(request: Request) -> object:
            if when(request) and not self.go_on.is_set():
                self.reached.set()
                self.go_on.wait(60)
            return None

        self.net.rule = rule


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    for name in ("lsm-get", "lsm-put"):
        (folder / name).write_text(SCRIPT.format(folder=folder))
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def site(server: RunningServer, scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that moves its files with scripts."""
    tools = {"copytools": {"lsm": {"setup": str(scripts)}}, "acopytools": {"default": ["lsm"]}}
    return add_site(server.url, tmp_path_factory.mktemp("site"), timefloor=60, **tools)


@pytest.fixture
def stage(site: Site, rundir: Path, scripts: Path) -> Iterator[Stage]:
    with network(site.url) as net:
        made = Stage(site, net, rundir, scripts)
        try:
            yield made
        finally:
            made.go_on.set()
            # Those that are queued again, or that a test has not got to.
            site.call("job/kill", {"job_ids": made.jobs})
            for name in ("hold", "reached", "apptainer"):
                (scripts / name).unlink(missing_ok=True)


# ---- the phases: each submits a job and says what holds it up there


def asking(stage: Stage) -> int:
    """The answer with the job comes when the pilot has been told to leave."""
    stage.hold(lambda request: request.call == "acquire_jobs")
    return stage.submit("true")


def staging_in(stage: Stage) -> int:
    made = stage.submit("echo x > input.txt", outputs=["input.txt"])
    pilots.run(stage.site.url, QUEUE, stage.rundir, *ONCE)
    stage.site.wait_for(made, "finished")
    name = str(stage.site.files(made, "output")[0]["lfn"])
    stage.script_holds(name)
    return stage.submit("true", inputs=[name])


def downloading(stage: Stage) -> int:
    stage.hold(lambda request: request.path.startswith("/trf/"))
    return stage.submit("true")


def fetching_an_image(stage: Stage) -> int:
    stage.runtime_that("true")
    return stage.submit("", transformation="true", jobPars="--containerImage=docker://127.0.0.1:1/x")


def starting_a_container(stage: Stage) -> int:
    stage.runtime_that("true")
    return stage.submit("", transformation="true", jobPars="--containerImage=/")


def running(stage: Stage) -> int:
    return stage.submit(f"trap '' TERM; touch {stage.folder}/reached; while :; do sleep 0.2; done")


def staging_out(stage: Stage) -> int:
    stage.script_holds("output.txt")
    return stage.submit("echo x > output.txt", outputs=["output.txt"])


PHASES = [asking, staging_in, downloading, fetching_an_image, starting_a_container, running, staging_out]


@contextmanager
def held_in(stage: Stage, phase: Callable[[Stage], int], **how: object) -> Iterator[tuple[pilots.Pilot, int]]:
    """A pilot whose job is in a phase and stays there."""
    jobid = phase(stage)
    with pilots.running(stage.net.url, QUEUE, stage.rundir, *ONCE, env=stage.env, **how) as pilot:
        pilots.wait_until(stage.is_reached, f"{phase.__name__} hangs")
        yield pilot, jobid


def logged(stage: Stage, jobid: int) -> str:
    """The pilot's log in the tarball of the attempt that has ended."""
    (path,) = stage.site.storage.rglob(f"{jobid}.*.log.tgz*")
    with tarfile.open(path) as archive:
        (name,) = (one for one in archive.getnames() if one.endswith("pilotlog.txt"))
        return archive.extractfile(name).read().decode()  # type: ignore[union-attr]


def end(stage: Stage, pilot: pilots.Pilot, number: int, shell: int) -> float:
    """Send a signal; s until the pilot is gone."""
    begun = time.monotonic()
    pilot.signal(number)
    if stage.reached.is_set():
        pilots.wait_until(lambda: "jobs are ended, logs saved" in pilot.log(), "the signal is heard")
        # The server is slow, and not dead. What hangs on its way to the pilot stays where it is.
        if any(request.call == "acquire_jobs" for request in stage.net.requests[-1:]):
            stage.go_on.set()
    assert pilot.wait(60) == shell, pilot.log()
    took = time.monotonic() - begun
    assert took < SOON, pilot.log()
    return took


@pytest.mark.parametrize("phase", PHASES)
def test_term_ends_a_job_in_every_phase_with_its_log_and_without_charge(
    stage: Stage, phase: Callable[[Stage], int]
) -> None:
    with held_in(stage, phase) as (pilot, jobid):
        below = pilot.tree()
        end(stage, pilot, signal.SIGTERM, 143)
        assert pilots.names(below) == []
    final = [request.body for request in stage.net.calls("update_job") if request.state in FINAL]
    assert [(body["job_id"], body["pilot_error_code"]) for body in final] == [(jobid, 1201)], pilot.log()
    # The attempt counts for nothing: the job is queued again with as many failures as before.
    job = stage.site.wait_for(jobid, "activated")
    assert (job["attemptNr"], job["failedAttempt"]) == (2, 0)
    assert "the pilot got SIGTERM" in logged(stage, jobid)


@pytest.mark.parametrize(
    ("phase", "number", "code", "shell", "charged"),
    [
        (staging_in, signal.SIGINT, 1208, 130, True),
        (running, signal.SIGXCPU, 1204, 152, True),
        (staging_out, signal.SIGUSR1, 1207, 138, True),
        (starting_a_container, signal.SIGQUIT, 1202, 131, True),
    ],
)
def test_other_signals_have_their_own_codes_and_are_charged(
    stage: Stage, phase: Callable[[Stage], int], number: int, code: int, shell: int, charged: bool
) -> None:
    with held_in(stage, phase) as (pilot, jobid):
        end(stage, pilot, number, shell)
    assert stage.site.wait_for(jobid, "activated")["failedAttempt"] == int(charged)
    (final,) = (request.body for request in stage.net.calls("update_job") if request.state in FINAL)
    assert final["pilot_error_code"] == code
    assert "jobs are ended, logs saved" in logged(stage, jobid)


@pytest.mark.parametrize("phase", [staging_in, running])
@pytest.mark.parametrize("said", ["PreemptTime=2026-11-21T07:06:24", "PreemptTime=None"])
def test_a_slot_that_goes_to_another_job_is_1379_where_the_batch_system_says_so(
    stage: Stage, phase: Callable[[Stage], int], said: str, tmp_path: Path
) -> None:
    program = tmp_path / "scontrol"
    program.write_text(f"#!/bin/sh\necho JobState=RUNNING TimeLimit=UNLIMITED {said}\n")
    program.chmod(0o755)
    stage.env = {"SLURM_JOB_ID": "7", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    preempted = "None" not in said
    with held_in(stage, phase) as (pilot, jobid):
        end(stage, pilot, signal.SIGTERM, shell_exit_code(1379 if preempted else 1201))
    (final,) = (request.body for request in stage.net.calls("update_job") if request.state in FINAL)
    assert final["pilot_error_code"] == (1379 if preempted else 1201), pilot.log()
    assert stage.site.wait_for(jobid, "activated")["failedAttempt"] == 0
    assert ("Slurm says that job 7 is preempted" in logged(stage, jobid)) is preempted


def test_a_signal_at_the_end_of_the_slot_is_the_slots_end(stage: Stage) -> None:
    jobid = running(stage)
    with pilots.running(stage.net.url, QUEUE, stage.rundir, *ONCE, "-l", "55") as pilot:
        pilots.wait_until(stage.is_reached, "the payload runs")
        end(stage, pilot, signal.SIGTERM, 81)
    (final,) = (request.body for request in stage.net.calls("update_job") if request.state in FINAL)
    assert final["pilot_error_code"] == 1213 and "the pilot got SIGTERM, and the slot ends in" in str(final)
    assert stage.site.wait_for(jobid, "activated")["failedAttempt"] == 0


def test_a_signal_during_the_final_update_changes_no_result(stage: Stage) -> None:
    stage.hold(lambda request: request.state in FINAL)
    jobid = stage.submit("true")
    with pilots.running(stage.net.url, QUEUE, stage.rundir, *ONCE) as pilot:
        assert stage.reached.wait(30)
        pilot.signal(signal.SIGTERM)
        pilots.wait_until(lambda: "jobs are ended, logs saved" in pilot.log(), "the signal is heard")
        stage.go_on.set()
        assert pilot.wait() == 143, pilot.log()
    job = stage.site.wait_for(jobid, "finished")
    assert (job["jobStatus"], job["failedAttempt"]) == ("finished", 0)


def test_a_second_signal_neither_hurries_nor_changes_the_reason(stage: Stage) -> None:
    with held_in(stage, running, settings=settings(Pilot__grace_on_signal=2)) as (pilot, _):
        pilot.signal(signal.SIGTERM)
        pilots.wait_until(lambda: "jobs are ended" in pilot.log(), "the first is heard")
        pilot.signal(signal.SIGINT)
        assert pilot.wait() == 143
    assert "SIGINT: the shutdown is under way" in pilot.log()
    (final,) = (request.body for request in stage.net.calls("update_job") if request.state in FINAL)
    assert final["pilot_error_code"] == 1201


@pytest.mark.parametrize("phase", [staging_in, fetching_an_image, starting_a_container, staging_out])
def test_heartbeats_go_on_while_a_phase_hangs_and_bring_the_servers_orders(
    stage: Stage, phase: Callable[[Stage], int]
) -> None:
    hasty = settings(Pilot__heartbeat=1, Pilot__heartbeat_min=1)
    with held_in(stage, phase, settings=hasty) as (pilot, jobid):
        before = len(stage.net.calls("update_job"))
        # Three periods, each with a heartbeat.
        pilots.wait_until(lambda: len(stage.net.calls("update_job")) >= before + 3, "three heartbeats")
        stage.site.call("job/kill", {"job_ids": [jobid]})
        pilot.wait(60)
    (final,) = (request.body for request in stage.net.calls("update_job") if request.state in FINAL)
    assert final["pilot_error_code"] == 1144, pilot.log()
    assert "tobekilled" in logged(stage, jobid)


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase is not asking])
def test_a_pilot_killed_in_any_phase_leaves_nothing_and_the_next_one_tells_where_it_was(
    stage: Stage, phase: Callable[[Stage], int]
) -> None:
    with held_in(stage, phase) as (pilot, jobid):
        below = pilot.tree()
        pilot.signal(signal.SIGKILL)
        pilot.wait()
        pilots.wait_until(lambda: not pilots.names(below), "nothing is left", SOON)
    stage.go_on.set()
    (stage.folder / "hold").unlink(missing_ok=True)
    place = "stage-in" if phase is staging_in else "stage-out" if phase is staging_out else "payload"
    stage.site.call("job/kill", {"job_ids": [jobid]})
    second = pilots.run(stage.net.url, QUEUE, stage.rundir, *ONCE, env=stage.env)
    (final,) = (request.body for request in stage.net.calls("update_job") if request.state in FINAL)
    assert final["pilot_error_code"] == 1200 and f"was killed in phase {place}" in str(final["pilot_error_diag"])
    assert f"job {jobid} (attempt 1): killed" in second.log()
    assert not list(stage.rundir.glob("pilotkit-[0-9]*"))
