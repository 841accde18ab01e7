"""What may go wrong between pilot and dispatcher, and on the node: nothing is lost, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests import pilots
from tests.faults import Request, network
from tests.servers import running_server
from tests.site import QUEUE, Site, add_site

ONCE = ("-v", "1")
# A pilot that sends heartbeats every second and gives an absent server two seconds at the end.
HASTY = (
    "[Pilot]\nheartbeat = 1\nheartbeat_min = 1\nretry_delay = 0.05\nretry_delay_max = 0.2\nfinal_update_patience = 2\n"
)
FINAL = ("finished", "failed", "holding")


def final_updates(requests: list[Request]) -> list[Request]:
    return [request for request in requests if request.state in FINAL]


def test_a_server_that_is_killed_and_restarted_during_the_payload_costs_nothing(tmp_path: Path) -> None:
    with running_server(tmp_path / "server", environment={"PILOTKIT_RETRY_AFTER": "1"}) as first:
        site = add_site(first.url, tmp_path)
        (jobid,) = site.submit(
            {"command": "while [ ! -e go ]; do sleep 0.1; done; echo done > kept.txt", "outputs": ["kept.txt"]}
        )
        with pilots.running(first.url, QUEUE, tmp_path / "run", *ONCE, settings=HASTY) as pilot:
            site.wait_for(jobid, "running")
            first.kill()
            time.sleep(2)  # heartbeats meet a closed door
            second = first.restart()
            try:
                (pilot.workdir(jobid) / "go").touch()
                assert pilot.wait() == 0, pilot.log()
                assert site.wait_for(jobid)["jobStatus"] == "finished"
                assert site.stored(jobid)[0].read_text() == "done\n"
            finally:
                second.stop()
        assert "next try in" in pilot.log()


def test_a_final_update_that_is_refused_ten_times_is_delivered(site: Site, rundir: Path) -> None:
    (jobid,) = site.submit({"command": "true"})
    refused = []

    def refuse(request: Request) -> object:
        if request.state in FINAL and len(refused) < 10:
            refused.append(request)
            return 500
        return None

    with network(site.url, refuse) as net:
        pilot = pilots.run(net.url, QUEUE, rundir, *ONCE, settings=HASTY)
    assert site.wait_for(jobid)["jobStatus"] == "finished"
    assert (pilot.process.returncode, len(refused)) == (0, 10), pilot.log()


def test_a_final_update_whose_answer_is_lost_is_repeated_and_counts_once(site: Site, rundir: Path) -> None:
    (jobid,) = site.submit({"command": "true"})
    dropped = []

    def drop(request: Request) -> object:
        if request.state in FINAL and not dropped:
            dropped.append(request)
            return "drop"
        return None

    with network(site.url, drop) as net:
        pilot = pilots.run(net.url, QUEUE, rundir, *ONCE, settings=HASTY)
        assert len(final_updates(net.requests)) == 2
    job = site.wait_for(jobid, "finished")
    assert [entry["status"] for entry in job["history"]].count("finished") == 1  # type: ignore[attr-defined]
    assert pilot.process.returncode == 0


def test_a_getjob_whose_answer_is_lost_gives_the_same_job_again(site: Site, rundir: Path) -> None:
    jobs = site.submit({"command": "true"}, {"command": "true"})
    dropped = []

    def drop(request: Request) -> object:
        if request.call == "acquire_jobs" and not dropped:
            dropped.append(request)
            return "drop"
        return None

    with network(site.url, drop) as net:
        pilots.run(net.url, QUEUE, rundir, *ONCE, settings=HASTY)
        asked = [request.headers["x-pilotkit-request"] for request in net.calls("acquire_jobs")]
    assert asked[0] == asked[1] != asked[2]
    assert [site.wait_for(jobid)["jobStatus"] for jobid in jobs] == ["finished", "finished"]
    assert [site.job(jobid)["attemptNr"] for jobid in jobs] == [1, 1]


def test_a_server_that_is_gone_for_good_leaves_the_outcome_in_the_spool_for_the_next_pilot(
    site: Site, tmp_path: Path
) -> None:
    (jobid,) = site.submit({"command": "echo kept > spooled.txt", "outputs": ["spooled.txt"]})
    gone = threading.Event()

    def vanish(request: Request) -> object:
        if request.state in FINAL:
            gone.set()
        return 503 if gone.is_set() else None

    rundir = tmp_path / "run"
    with network(site.url, vanish) as net:
        pilot = pilots.run(net.url, QUEUE, rundir, *ONCE, settings=HASTY)
        assert pilot.process.returncode == 79, pilot.log()
        assert site.status(jobid) in ("starting", "running")
        (spooled,) = list((rundir / "pilotkit-spool").rglob("*finished*.json"))
        assert json.loads(spooled.read_text())["body"]["jobId"] == str(jobid)
        net.rule = lambda request: None
        second = pilots.run(net.url, QUEUE, rundir, *ONCE)
    assert site.wait_for(jobid)["jobStatus"] == "finished"
    assert "left by an earlier pilot, is delivered" in second.log()
    assert not (rundir / "pilotkit-spool").exists()


def test_a_pilot_killed_before_it_could_send_leaves_its_outcome_to_the_next(site: Site, tmp_path: Path) -> None:
    (jobid,) = site.submit({"command": "true"})
    rundir = tmp_path / "run"
    reached = threading.Event()

    def hold(request: Request) -> object:
        if request.state in FINAL:
            reached.set()
            return 503
        return None

    with network(site.url, hold) as net:
        with pilots.running(net.url, QUEUE, rundir, *ONCE, settings=HASTY) as pilot:
            assert reached.wait(30), pilot.log()
            pilot.signal(signal.SIGKILL)
            pilot.wait()
        net.rule = lambda request: None
        pilots.run(net.url, QUEUE, rundir, *ONCE)
    assert site.wait_for(jobid)["jobStatus"] == "finished"


def test_a_kill_order_ends_the_payload_and_is_reported_with_its_own_code(site: Site, rundir: Path) -> None:
    (jobid,) = site.submit({"command": "exec sleep 300"})
    with pilots.running(site.url, QUEUE, rundir, *ONCE, settings=HASTY) as pilot:
        site.wait_for(jobid, "running")
        site.call("job/kill", {"job_ids": [jobid]})
        assert pilot.wait() == 0, pilot.log()
    job = site.wait_for(jobid)
    assert (job["jobStatus"], job["pilotErrorCode"]) in (("failed", 1144), ("cancelled", 1144))
    assert site.stored(jobid, "log")[0].exists()


def test_heartbeats_go_on_while_the_payload_runs_with_what_it_uses(site: Site, rundir: Path) -> None:
    (jobid,) = site.submit({"command": "python3 -c 'import time; x = bytearray(20_000_000); time.sleep(4)'"})
    with network(site.url) as net:
        pilots.run(net.url, QUEUE, rundir, *ONCE, settings=HASTY + "[Payload]\nmemory_check_first = 0.3\n")
        beats = [request.body for request in net.calls("update_job") if request.state == "running"]
    assert len(beats) >= 3
    assert int(str(beats[-1]["max_pss"])) > 15_000
    assert site.wait_for(jobid)["jobStatus"] == "finished"


def test_heartbeats_go_on_while_a_transformation_does_not_arrive(site: Site, rundir: Path) -> None:
    (jobid,) = site.submit({"command": "true"})
    held = threading.Event()

    def hold(request: Request) -> object:
        if request.path.startswith("/trf/"):
            held.wait(4)
        return None

    with network(site.url, hold) as net:
        pilots.run(net.url, QUEUE, rundir, *ONCE, settings=HASTY)
        assert [request.state for request in net.calls("update_job")].count("starting") >= 3
    assert site.wait_for(jobid)["jobStatus"] == "finished"


@pytest.mark.parametrize(
    ("number", "code", "shell"),
    [
        (signal.SIGTERM, 1201, 143),
        (signal.SIGINT, 1208, 130),
        (signal.SIGQUIT, 1202, 131),
        (signal.SIGXCPU, 1204, 152),
        (signal.SIGUSR1, 1207, 138),
        (signal.SIGHUP, 1200, 137),
        (signal.SIGSEGV, 1203, 139),
        (signal.SIGBUS, 1206, 135),
    ],
)
def test_each_signal_to_the_pilot_ends_the_job_with_its_own_code_and_saves_the_log(
    site: Site, rundir: Path, number: signal.Signals, code: int, shell: int
) -> None:
    (jobid,) = site.submit({"command": "exec sleep 300"})
    with pilots.running(site.url, QUEUE, rundir, *ONCE) as pilot:
        site.wait_for(jobid, "running")
        below = pilot.tree()
        pilot.signal(number)
        assert pilot.wait() == shell, pilot.log()
    job = site.wait_for(jobid, "failed")
    assert job["pilotErrorCode"] == code
    assert job["error"]["blame"] == "batch"  # type: ignore[index]
    assert site.stored(jobid, "log")[0].exists()
    assert pilots.names(below) == []


def test_a_transformation_that_hangs_on_its_way_does_not_hold_up_the_end(site: Site, rundir: Path) -> None:
    (jobid,) = site.submit({"command": "true"})
    asked, over = threading.Event(), threading.Event()

    def hold(request: Request) -> object:
        if request.path.startswith("/trf/"):
            asked.set()
            over.wait(60)
        return None

    with network(site.url, hold) as net:
        try:
            with pilots.running(net.url, QUEUE, rundir, *ONCE) as pilot:
                assert asked.wait(30)
                begun = time.monotonic()
                pilot.signal(signal.SIGTERM)
                assert pilot.wait() == 143, pilot.log()
                assert time.monotonic() - begun < 30
        finally:
            over.set()
    assert site.wait_for(jobid, "failed")["pilotErrorCode"] == 1201
    assert site.stored(jobid, "log")[0].exists()


def test_a_payload_that_ignores_term_is_killed_after_the_grace(site: Site, rundir: Path) -> None:
    (jobid,) = site.submit({"command": "trap '' TERM; while :; do sleep 0.2; done"})
    with pilots.running(site.url, QUEUE, rundir, *ONCE, settings="[Pilot]\ngrace_on_signal = 1\n") as pilot:
        site.wait_for(jobid, "running")
        below = pilot.tree()
        pilot.signal(signal.SIGTERM)
        assert pilot.wait() == 143
    assert site.wait_for(jobid, "failed")["pilotErrorCode"] == 1201
    assert pilots.names(below) == []


def test_a_signal_before_there_is_a_job_ends_the_pilot_at_once(site: Site, rundir: Path) -> None:
    with pilots.running(site.url, QUEUE, rundir, "-v", "1000", "-j", "managed") as pilot:
        pilots.wait_until(lambda: "no job (1 of" in pilot.log(), "the first empty answer")
        pilot.signal(signal.SIGTERM)
        assert pilot.wait(20) == 143


def test_a_signal_while_the_server_hangs_in_getjob_ends_the_pilot_within_seconds(site: Site, rundir: Path) -> None:
    asked, over = threading.Event(), threading.Event()

    def hang(request: Request) -> object:
        if request.call == "acquire_jobs":
            asked.set()
            over.wait(60)
            return 503
        return None

    with network(site.url, hang) as net:
        with pilots.running(net.url, QUEUE, rundir, *ONCE) as pilot:
            assert asked.wait(30)
            pilot.signal(signal.SIGTERM)
            assert pilot.wait(30) == 143, pilot.log()
        over.set()


def test_the_end_of_the_lifetime_ends_the_job_with_1213(site: Site, rundir: Path) -> None:
    (jobid,) = site.submit({"command": "exec sleep 300"})
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, "-l", "12")
    job = site.wait_for(jobid, "failed")
    assert (job["pilotErrorCode"], pilot.process.returncode) == (1213, 81)


def test_the_kill_file_ends_the_payload_with_1363(site: Site, rundir: Path) -> None:
    (jobid,) = site.submit({"command": "exec sleep 300"})
    settings = "[Pilot]\nkill_file_check = 0.2\n"
    with pilots.running(site.url, QUEUE, rundir, *ONCE, settings=settings) as pilot:
        site.wait_for(jobid, "running")
        (rundir / "pilot_kill_payload").touch()
        pilot.wait()
    assert site.wait_for(jobid, "failed")["pilotErrorCode"] == 1363


# A payload that tries to get away: in the background, by a session of its own, by a double fork with setsid, and by
# stopping itself so that it cannot take a signal.
RUNAWAY = """
sleep 301 &
setsid sleep 302 &
(setsid sh -c 'setsid sleep 303 & exit 0' &)
sh -c 'kill -STOP $$; sleep 304' &
echo $$ > ready
sleep 305
"""


def test_nothing_of_a_payload_survives_the_kill_minus_9_of_its_pilot_and_nothing_else_is_touched(
    site: Site, rundir: Path
) -> None:
    (jobid,) = site.submit({"command": RUNAWAY})
    # A process of the same user, started from the same shell as the pilot, that is none of its business.
    rundir.mkdir()
    stranger = subprocess.Popen(["sleep", "306"], cwd=rundir)
    try:
        with pilots.running(site.url, QUEUE, rundir, *ONCE) as pilot:
            site.wait_for(jobid, "running")
            pilots.wait_until(lambda: len(runaways(pilot)) >= 5, "all five sleeps")
            below = pilot.tree()
            pilot.signal(signal.SIGKILL)
            pilot.wait()
            pilots.wait_until(lambda: not pilots.names(below), "all processes of the payload are gone", timeout=10)
        assert stranger.poll() is None
    finally:
        stranger.terminate()
        stranger.wait()
    # Nobody reports on it now: the watcher will. Give the server its job back so that the module's queue stays clean.
    site.call("job/kill", {"job_ids": [jobid]})


def test_the_next_pilot_removes_what_a_killed_one_left_and_leaves_a_living_one_alone(site: Site, rundir: Path) -> None:
    first, second, third = site.submit(
        {"command": "sleep 301"}, {"command": "while [ ! -e go ]; do sleep 0.1; done"}, {"command": "true"}
    )
    with pilots.running(site.url, QUEUE, rundir, *ONCE) as killed:
        site.wait_for(first, "running")
        left, below = killed.workdir(first).parent, killed.tree()
        killed.signal(signal.SIGKILL)
        killed.wait()
        pilots.wait_until(lambda: not pilots.names(below), "all processes of the payload are gone")
    told = autopsy(left)
    assert f"job {first} (attempt 1): killed" in told and "the pilot was killed in phase payload" in told
    with pilots.running(site.url, QUEUE, rundir, *ONCE) as living:
        job = site.wait_for(first, "failed")
        assert job["pilotErrorCode"] == 1200 and "was killed in phase payload" in str(job["pilotErrorDiag"])
        site.wait_for(second, "running")
        assert f"job {second} (attempt 1): under way" in autopsy(living.workdir(second).parent)
        assert f"job {first} (attempt 1): killed" in living.log()
        assert not left.exists() and f"{left}: its pilot (process {killed.pid}) was killed" in living.log()
        pilots.run(site.url, QUEUE, rundir, *ONCE)
        site.wait_for(third, "finished")
        (living.workdir(second) / "go").touch()
        assert living.wait() == 0
        site.wait_for(second, "finished")


def autopsy(directory: Path) -> str:
    """What `pilot.py --autopsy` tells of a pilot's directory."""
    command = [sys.executable, str(pilots.ROOT / "pilot.py"), "--autopsy", str(directory)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_an_autopsy_tells_who_decided_on_the_end_and_how_long_each_phase_took(site: Site, rundir: Path) -> None:
    (jobid,) = site.submit({"command": "echo oops >&2; exit 3"})
    pilots.run(site.url, QUEUE, rundir, *ONCE, "--cleanup=False")
    site.wait_for(jobid, "failed")
    (directory,) = rundir.glob("pilotkit-*-*")
    told = autopsy(rundir)
    assert autopsy(directory) == told
    assert f"job {jobid} (attempt 1): failed" in told and "decided by  the payload, by its end" in told
    assert "reported    yes" in told and "what to do" in told
    for phase in ("received", "stage-in", "payload", "stage-out", "reporting"):
        assert f"{phase:10}" in told
    assert "still" not in told


def runaways(pilot: pilots.Pilot) -> list[str]:
    wanted = [f"sleep {number}" for number in (301, 302, 303, 305)]
    found = pilots.names(pilot.tree())
    return [name for name in found if any(want in name for want in wanted)] + [n for n in found if "kill -STOP" in n]


def test_what_a_payload_leaves_running_is_swept_when_it_ends(site: Site, rundir: Path) -> None:
    # Those of another run of the tests on this machine sleep for other times.
    one, other = f"311.{os.getpid()}", f"312.{os.getpid()}"
    command = f"(setsid sh -c 'setsid sleep {one} & exit 0' &); sleep {other} & sleep 0.5; echo fine > left.txt"
    (jobid,) = site.submit({"command": command, "outputs": ["left.txt"]})
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE)
    assert site.wait_for(jobid)["jobStatus"] == "finished"
    left = [
        p.info["cmdline"]
        for p in psutil.process_iter(["cmdline"])
        if p.info["cmdline"] in (["sleep", one], ["sleep", other])
    ]
    assert left == []
    assert "2 processes had outlived the payload and were ended" in pilot.log()


def test_a_guard_that_is_killed_takes_its_payload_with_it(site: Site, rundir: Path) -> None:
    (jobid,) = site.submit({"command": RUNAWAY})
    with pilots.running(site.url, QUEUE, rundir, *ONCE) as pilot:
        site.wait_for(jobid, "running")
        pilots.wait_until(lambda: len(runaways(pilot)) >= 5, "all five sleeps")
        below = pilot.tree()
        os.kill(psutil.Process(pilot.pid).children()[0].pid, signal.SIGKILL)
        pilot.wait()
    job = site.wait_for(jobid, "failed")
    assert "guard" in str(job["pilotErrorDiag"])
    assert pilots.names(below) == []
