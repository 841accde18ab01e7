"""The live log of whole jobs: a user reads what the payload writes while it runs, and no sink can harm a job."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests import pilots
from tests.faults import Request, network
from tests.integration.payload.conftest import Submit, settings
from tests.pilots import ROOT
from tests.site import QUEUE, Site

QUICK = settings(Realtime__interval=0.2)
# Writes, waits for a file, and writes again.
TALKER = """
import os, sys, time
print("the beginning", flush=True)
print("trouble: https://user:canary1@host/f?token=canary2&x=1", file=sys.stderr, flush=True)
while not os.path.exists("go"):
    time.sleep(0.05)
print("the end, without a line end", end="")
"""


def shown(site: Site, jobid: int, *options: str) -> str:
    """What `pilotkit log` says."""
    done = subprocess.run(
        [sys.executable, "-m", "server.cli.main", "log", str(jobid), "--url", site.url, *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
    )
    return done.stdout


def test_a_user_reads_the_output_of_a_running_job_without_its_secrets(site: Site, rundir: Path, submit: Submit) -> None:
    jobid = submit(TALKER)
    options = ("-v", "1", "--use-realtime-logging")
    with pilots.running(site.url, QUEUE, rundir, *options, settings=QUICK) as pilot:
        pilots.wait_until(lambda: "x=1" in shown(site, jobid), "the beginning is shown")
        assert site.status(jobid) == "running"
        assert shown(site, jobid, "--name", "payload.stdout") == "the beginning\n"
        assert "canary" not in shown(site, jobid)
        (pilot.workdir(jobid) / "go").touch()
        followed = shown(site, jobid, "--follow", "--name", "payload.stdout")
        assert pilot.wait() == 0
    assert followed == "the beginning\nthe end, without a line end"
    assert site.wait_for(jobid)["jobStatus"] == "finished"


def test_a_dispatcher_that_takes_no_log_costs_nothing_and_the_rest_is_told(
    site: Site, rundir: Path, submit: Submit
) -> None:
    jobid = submit("print('line\\n' * 1000)")
    with network(site.url) as net:
        net.change = lambda status, body, request: b"" if request.call == "append_log" else body
        pilot = pilots.run(net.url, QUEUE, rundir, "-v", "1", "--use-realtime-logging", settings=QUICK)
    assert pilot.wait() == 0 and site.wait_for(jobid)["jobStatus"] == "finished"
    assert "the live log waits, the dispatcher does not take it" in pilot.log()
    assert "of its output were not sent" in pilot.log()


def fewest_threads(pilot: pilots.Pilot) -> int:
    """How many threads a pilot always has: one that sends an update comes and goes."""
    process, counts = psutil.Process(pilot.pid), []
    for _ in range(20):
        counts.append(process.num_threads())
        time.sleep(0.05)
    return min(counts)


def test_the_live_log_is_one_thread_and_none_when_nobody_asked_for_it(site: Site, rundir: Path, submit: Submit) -> None:
    threads = {}
    for option in ("--use-realtime-logging=False", "--use-realtime-logging"):
        jobid = submit("print('x'); import time; time.sleep(60)")
        with pilots.running(site.url, QUEUE, rundir / option[-5:], "-v", "1", option, settings=QUICK) as pilot:
            site.wait_for(jobid, "running")
            threads[option] = fewest_threads(pilot)
    assert [count - min(threads.values()) for count in threads.values()] == [0, 1]


def test_what_is_sent_again_after_lost_answers_is_shown_once(site: Site, rundir: Path, submit: Submit) -> None:
    jobid = submit("for number in range(1000): print('line', number)")
    lost: list[object] = []
    with network(site.url) as net:

        def lose_two(_status: int, body: bytes, request: Request) -> bytes:
            if request.call != "append_log" or len(lost) == 2:
                return body
            lost.append(request)
            return b"?"

        net.change = lose_two
        pilot = pilots.run(net.url, QUEUE, rundir, "-v", "1", "--use-realtime-logging", settings=QUICK)
    assert pilot.wait() == 0 and len(lost) == 2, pilot.log()
    assert shown(site, jobid, "--name", "payload.stdout") == "".join(f"line {number}\n" for number in range(1000))
    assert "the live log goes on" in pilot.log()


def test_a_log_server_that_is_away_costs_nothing(site: Site, rundir: Path, submit: Submit) -> None:
    jobid = submit("print('hello')")
    options = ("-v", "1", "--use-realtime-logging", "--realtime-logging-server", "logstash;http://127.0.0.1:9")
    pilot = pilots.run(site.url, QUEUE, rundir, *options, settings=QUICK)
    assert pilot.wait() == 0 and site.wait_for(jobid)["jobStatus"] == "finished"
    assert f"job {jobid}: its live log ends here: the pilot ends; 6 bytes of its output were not sent" in pilot.log()


@pytest.mark.parametrize("kind", ["logstash;http", "stomp;stomp"])
def test_a_log_server_that_takes_connections_and_says_nothing_holds_nobody_up(
    site: Site, rundir: Path, submit: Submit, kind: str
) -> None:
    jobid = submit("print('hello')")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = f"{kind}://127.0.0.1:{silent.getsockname()[1]}"
        options = ("-v", "1", "--use-realtime-logging", "--realtime-logging-server", server)
        pilot = pilots.run(site.url, QUEUE, rundir, *options, settings=QUICK)
    assert pilot.wait() == 0 and site.wait_for(jobid)["jobStatus"] == "finished"
    assert "6 bytes of its output were not sent" in pilot.log() and "does not end" not in pilot.log()


def test_a_server_of_no_known_kind_or_without_tls_is_refused_at_the_start(site: Site, rundir: Path) -> None:
    for server, words in (("google-cloud-logging;x", "must look like"), ("logstash;http://192.0.2.1:1", "not secured")):
        options = ("--use-realtime-logging", "--realtime-logging-server", server)
        pilot = pilots.run(site.url, QUEUE, rundir / words[:4], *options)
        assert pilot.wait() == 2 and words in pilot.log()
