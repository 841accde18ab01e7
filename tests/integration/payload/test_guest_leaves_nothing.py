"""Nothing of a payload survives, however it tries and whoever is killed, and nothing else is touched (promise N1)."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pilot.util.payloadgroup import PayloadGroup
from tests import pilots
from tests.containers import sandbox
from tests.integration.payload.conftest import settings
from tests.site import QUEUE, Site

ONCE = ("-v", "1")
# s; the guard needs milliseconds, a busy machine more.
GRACE = 10

# Each kind in a process of its own, and its name among the arguments, by which a survivor is told. All of them end by
# themselves within a minute, should the pilot fail.
HOSTILE = '''
import os, signal, sys, time

END = time.monotonic() + 60

def storm():
    """Each generation lives only to bear the next, in a session of its own."""
    while time.monotonic() < END:
        if os.fork():
            os._exit(0)
        os.setsid()

def daemon():
    """A double fork with setsid, the usual way out."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            rest()
    os._exit(0)

def stopped():
    """Takes no signal but KILL, since it is stopped."""
    os.kill(os.getpid(), signal.SIGSTOP)
    rest()

def zombies():
    """Bears children and never waits for them."""
    for _ in range(20):
        if os.fork() == 0:
            os._exit(0)
    rest()

def deaf():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    rest()

def again():
    """Is a new program every few milliseconds."""
    left = float(sys.argv[3]) if len(sys.argv) > 3 else END
    if time.monotonic() < left:
        time.sleep(0.01)
        os.execv(sys.executable, [sys.executable, *sys.argv[:3], str(left)])
    os._exit(0)

def rest():
    while time.monotonic() < END:
        time.sleep(0.5)
    os._exit(0)

KINDS = [storm, daemon, stopped, zombies, deaf, again]
mark, *kind = sys.argv[1:]
if kind and kind[0] != "but-storm":
    globals()[kind[0]]()
for kind in KINDS[bool(kind):]:
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, sys.argv[0], mark, kind.__name__])
time.sleep(1.5)
open("ready", "w").close()
while not os.path.exists("over"):
    time.sleep(0.05)
'''
KINDS = ("storm", "daemon", "stopped", "zombies", "deaf", "again")


def alive(mark: str) -> dict[int, list[str]]:
    """What the processes of a payload are called, guard and runtime included."""
    found = {}
    for process in psutil.process_iter(["cmdline", "status"]):
        if mark in " ".join(process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found[process.pid] = process.info["cmdline"][-2:]
    return found


@dataclass
class Guest:
    """A job that does all it can to stay, and the pilots that play it."""

    site: Site
    rundir: Path
    mark: str
    script: Path
    options: str = ""
    env: dict[str, str] | None = None

    def submit(self) -> int:
        parameters = f"{self.script} {self.mark}{self.options}"
        (jobid,) = self.site.submit({"transformation": sys.executable, "jobPars": parameters})
        return jobid

    def settle(self, pilot: pilots.Pilot, jobid: int) -> Path:
        """Wait until every kind is there; the job's directory."""
        self.site.wait_for(jobid, "running")
        workdir = pilot.workdir(jobid)
        pilots.wait_until(lambda: (workdir / "ready").exists(), f"the payload is ready: {pilot.log()}")
        kinds = {word for words in alive(self.mark).values() for word in words}
        # A generation of the storm may be too short to be seen; that it goes on is seen by its children.
        assert set(KINDS) - {"storm", "again"} <= kinds, kinds
        return workdir

    def gone(self) -> None:
        pilots.wait_until(lambda: not alive(self.mark), f"all is gone but {alive(self.mark)}", GRACE)


@pytest.fixture
def guest(site: Site, rundir: Path, tmp_path: Path) -> Iterator[Guest]:
    mark = f"guest-{uuid.uuid4().hex}"
    script = tmp_path / "hostile.py"
    script.write_text(HOSTILE)
    yield Guest(site, rundir, mark, script)
    for pid in alive(mark):
        os.kill(pid, signal.SIGKILL)


def groups(on: bool) -> str:
    return settings(control_group=on)


def require_group() -> None:
    group = PayloadGroup.make()
    if group is None:
        pytest.skip("no control group can be made here: that needs root, or one that is delegated")
    group.end()


def guard_of(pilot: pilots.Pilot) -> psutil.Process:
    (guard,) = psutil.Process(pilot.pid).children()
    return guard


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("end", ["its own", "TERM"])
def test_nothing_stays_when_a_payload_ends(guest: Guest, end: str, grouped: bool) -> None:
    jobid = guest.submit()
    with pilots.running(guest.site.url, QUEUE, guest.rundir, *ONCE, settings=groups(grouped)) as pilot:
        workdir = guest.settle(pilot, jobid)
        if end == "its own":
            (workdir / "over").touch()
        else:
            pilot.signal(signal.SIGTERM)
        assert pilot.wait() == (0 if end == "its own" else 143), pilot.log()
        assert alive(guest.mark) == {}
    assert guest.site.wait_for(jobid)["jobStatus"] == ("finished" if end == "its own" else "failed")
    assert "had outlived the payload and were ended" in pilot.log() or end != "its own"


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("killed", ["pilot", "guard"])
def test_nothing_stays_when_pilot_or_guard_is_killed(guest: Guest, killed: str, grouped: bool) -> None:
    jobid = guest.submit()
    with pilots.running(guest.site.url, QUEUE, guest.rundir, *ONCE, settings=groups(grouped)) as pilot:
        guest.settle(pilot, jobid)
        os.kill(pilot.pid if killed == "pilot" else guard_of(pilot).pid, signal.SIGKILL)
        pilot.wait()
        guest.gone()
    if killed == "pilot":
        guest.site.call("job/kill", {"job_ids": [jobid]})
    else:
        assert "the guard of the payload was killed" in str(guest.site.wait_for(jobid, "failed")["pilotErrorDiag"])


@pytest.mark.parametrize("grouped", [True, False])
def test_what_stays_when_pilot_and_guard_are_killed_at_once_is_ended_by_the_next_pilot(
    guest: Guest, grouped: bool
) -> None:
    if grouped:
        require_group()
    # Each generation of a storm is gone before it is seen: without a control group nothing could catch it.
    guest.options = "" if grouped else " but-storm"
    jobid = guest.submit()
    with pilots.running(guest.site.url, QUEUE, guest.rundir, *ONCE, settings=groups(grouped)) as pilot:
        guest.settle(pilot, jobid)
        guard = guard_of(pilot)
        # Stopped first: neither is to see the other's end.
        pilot.signal(signal.SIGSTOP)
        guard.send_signal(signal.SIGSTOP)
        guard.kill()
        pilot.signal(signal.SIGKILL)
        pilot.wait()
        workdir = next(guest.rundir.glob("pilotkit-[0-9]*-*"))
        # A control group is ended by whichever pilot of this user on this node looks first, perhaps before us.
        assert grouped or alive(guest.mark), "they were to be left"
        second = pilots.run(guest.site.url, QUEUE, guest.rundir, *ONCE, settings=groups(grouped))
        guest.gone()
    assert not workdir.exists()
    assert grouped or "its dead pilot and guard have left" in second.log()
    assert guest.site.wait_for(jobid, "failed")["pilotErrorCode"] == 1200


def test_processes_that_are_not_the_payloads_live_whoever_is_killed(guest: Guest, tmp_path: Path) -> None:
    # A wrapper starts something and becomes the pilot: of the same user, in the same session, even the pilot's child.
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\n{shlex.join(CHILD)} &\n({shlex.join(ORPHAN)} &)\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    jobids = [guest.submit(), guest.submit()]
    with (
        pilots.running(guest.site.url, QUEUE, guest.rundir, *ONCE, python=str(wrapper)) as first,
        pilots.running(guest.site.url, QUEUE, guest.rundir, *ONCE) as other,
    ):
        ready = "pilotkit-*/PanDA_Pilot-*/ready"
        pilots.wait_until(lambda: len(list(guest.rundir.glob(ready))) == 2, "both payloads are ready")
        strangers = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] in (CHILD, ORPHAN)]
        try:
            assert len(strangers) == 2 and {os.getsid(p.pid) for p in strangers} == {os.getsid(first.pid)}
            of_first = psutil.Process(first.pid).children()
            (guard,) = (p for p in of_first if p not in strangers)
            guard.kill()
            first.wait()
            assert all(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in strangers)
            assert other.process.poll() is None and guard_of(other).is_running()
            (live,) = guest.rundir.glob(ready)
            (live.parent / "over").touch()
            assert other.wait() == 0, other.log()
        finally:
            for stranger in strangers:
                stranger.kill()
            psutil.wait_procs(strangers)
    assert sorted(str(guest.site.wait_for(jobid)["jobStatus"]) for jobid in jobids) == ["failed", "finished"]


# Those of another run of the tests on this machine sleep for other times.
CHILD, ORPHAN = ["sleep", f"61.25{os.getpid()}"], ["sleep", f"61.5{os.getpid()}"]


@pytest.mark.parametrize("killed", ["pilot", "guard", "both", "nobody"])
def test_nothing_stays_of_a_container(guest: Guest, killed: str) -> None:
    with sandbox() as box:
        guest.script.chmod(0o644)
        guest.options = f" --containerImage={box.image}"
        shared = {"container_options": f"-B {guest.script.parent}", "container_type": "singularity:pilot"}
        env = {**box.environ, "PILOTKIT_QUEUEDATA": json.dumps(shared)}
        jobid = guest.submit()
        with pilots.running(guest.site.url, QUEUE, guest.rundir, *ONCE, env=env) as pilot:
            workdir = guest.settle(pilot, jobid)
            guard = guard_of(pilot)
            if killed == "both":
                pilot.signal(signal.SIGSTOP)
            if killed in ("guard", "both"):
                guard.kill()
            if killed in ("pilot", "both"):
                pilot.signal(signal.SIGKILL)
            if killed == "nobody":
                (workdir / "over").touch()
            pilot.wait()
            guest.gone()
    if killed in ("pilot", "both"):
        guest.site.call("job/kill", {"job_ids": [jobid]})
