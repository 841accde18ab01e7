"""What an operator sees of a running job: commands travel with the server's answers, output with the next heartbeat."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pilots
from tests.components import require_programs
from tests.faults import Network, Request, network
from tests.site import QUEUE, Site

HASTY = "[Pilot]\nheartbeat = 1\nheartbeat_min = 1\nheartbeat_debug = 1\n"


class Operator:
    """Puts commands into the answers to updates, as the servers of the field do: the same one until it is changed."""

    def __init__(self, net: Network) -> None:
        self.commands = ""
        self.url = net.url
        self._net = net
        net.change = self._change

    def _change(self, status: int, body: bytes, request: Request) -> bytes:
        if request.call != "update_job" or not self.commands:
            return body
        answer = json.loads(body)
        answer["data"]["command"] = self.commands
        return json.dumps(answer).encode()

    def shown(self) -> list[str]:
        """What heartbeats have shown so far."""
        return [str(request.body["stdout"]) for request in self._net.calls("update_job") if request.body.get("stdout")]

    def sees(self, words: str) -> str:
        """The first output with these words in it."""
        pilots.wait_until(lambda: any(words in text for text in self.shown()), f"'{words}' is shown: {self.shown()}")
        return next(text for text in self.shown() if words in text)


@pytest.fixture
def operator(site: Site) -> Iterator[Operator]:
    with network(site.url) as net:
        yield Operator(net)


def test_an_operator_looks_into_a_running_job(site: Site, rundir: Path, operator: Operator) -> None:
    command = "echo here I am; mkdir deep; echo secrets of the deep > deep/log.x; while [ ! -e go ]; do sleep 0.1; done"
    (jobid,) = site.submit({"command": command})
    with pilots.running(operator.url, QUEUE, rundir, "-v", "1", settings=HASTY) as pilot:
        site.wait_for(jobid, "running")
        operator.commands = "debug"
        operator.sees("here I am")
        for text, words in (
            ("ls -l", "payload.stdout"),
            ("tail log.x", "secrets of the deep"),
            ("ps", "sleep 0.1"),
            ("du -sk .", "PanDA_Pilot"),
            ("cat /etc/passwd", "not obeyed: only tail, ls, ps, du, gdb are obeyed"),
            ("tail ../../../../etc/passwd", "is not in the job's directory"),
        ):
            operator.commands = f"debug,{text}"
            assert operator.sees(words).startswith(f"$ {text}\n")
        operator.commands = "debugoff"
        (pilot.workdir(jobid) / "go").touch()
        assert pilot.wait() == 0
    assert site.wait_for(jobid)["jobStatus"] == "finished"
    assert not any("root:x" in text for text in operator.shown())


def pilotkit(site: Site, *words: str) -> str:
    """What `pilotkit debug` says."""
    command = [sys.executable, "-m", "server.cli.main", "debug", "--url", site.url, *words]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=pilots.ROOT, timeout=60, check=False)
    return ended.stdout + ended.stderr


def test_a_user_looks_into_a_running_job_through_our_dispatcher(site: Site, rundir: Path) -> None:
    (jobid,) = site.submit({"command": "echo here I am; while [ ! -e go ]; do sleep 0.1; done"})
    job = str(jobid)
    with pilots.running(site.url, QUEUE, rundir, "-v", "1", settings=HASTY) as pilot:
        site.wait_for(jobid, "running")
        assert "has sent no output yet" in pilotkit(site, job, "--show")
        for order, words in (
            ([], "here I am"),
            (["ls", "-l"], "$ ls -l\n"),
            (["tail", "-3", "payload.stdout"], "$ tail"),
        ):
            assert "is told at its next update" in pilotkit(site, job, *order)
            pilots.wait_until(lambda words=words: words in pilotkit(site, job, "--show"), f"{words!r} is shown")  # type: ignore[misc]
        assert "debug mode off" in pilotkit(site, job, "--off")
        pilots.wait_until(lambda: "debugoff" in pilot.log(), "debug mode is left")
        (pilot.workdir(jobid) / "go").touch()
        assert pilot.wait() == 0
    assert "it is over, it is finished" in pilotkit(site, job, "ls")


def test_the_word_that_the_outcome_is_known_already_is_no_command(site: Site, rundir: Path, operator: Operator) -> None:
    (jobid,) = site.submit({"command": "while [ ! -e go ]; do sleep 0.1; done"})
    with pilots.running(operator.url, QUEUE, rundir, "-v", "1", settings=HASTY) as pilot:
        site.wait_for(jobid, "running")
        operator.commands = "alreadydone"
        pilots.wait_until(lambda: "has its outcome already" in pilot.log(), "the word is heard")
        (pilot.workdir(jobid) / "go").touch()
        assert pilot.wait() == 0
    assert "the server's command is" not in pilot.log()


def test_a_core_file_made_on_order_ends_the_job(site: Site, rundir: Path, operator: Operator) -> None:
    require_programs(["gdb"], ["gdb"])
    (jobid,) = site.submit({"command": "while [ ! -e go ]; do sleep 0.1; done"})
    with pilots.running(operator.url, QUEUE, rundir, "-v", "1", settings=HASTY) as pilot:
        site.wait_for(jobid, "running")
        operator.commands = "debug,gdb --pid % -ex generate-core-file"
        pilot.wait()
    job = site.wait_for(jobid, "failed")
    assert job["pilotErrorCode"] == 1144 and "core file" in str(job["pilotErrorDiag"])
