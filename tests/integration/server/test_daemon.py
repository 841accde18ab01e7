"""The daemon: woken at once, patient with what fails, gone when it should be."""

from __future__ import annotations

import fcntl
import grp
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.daemon.config import DEFAULTS
from server.db.migrate import migrate
from tests.integration.server.clients import Client, wait_until
from tests.servers import RunningServer, running_server

NONE = "pilotkit: no daemon of its own runs here (the one in `pilotkit serve` comes and goes with the server)\n"


@contextmanager
def daemon(
    data: Path, *, stdin: int | socket.socket = subprocess.DEVNULL, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """A daemon of its own, as an administrator starts it on a second machine."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PILOTKIT_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "server.daemon", *(["--watch-stdin"] if stdin != subprocess.DEVNULL else [])],
        env={**own, "PYTHONPATH": os.getcwd(), "PILOTKIT_DATA": str(data), **environment},
        stdin=stdin,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        assert process.stderr is not None
        process.stderr.close()
        process.wait(20)


def test_a_final_report_is_dealt_with_at_once(server: RunningServer) -> None:
    """Well below the period of 10 s; how far below is measured by the benchmark."""
    with Client(server.url) as client:
        client.add_queue()
        took = []
        for _ in range(5):
            (job,) = client.submit({"outputs": ["a"]})
            client.finish(client.get_job())
            begun = time.monotonic()
            client.wait_for(job, "finished")
            took.append(time.monotonic() - begun)
        assert min(took) < 1


def test_a_chain_is_activated_by_its_last_maker(server: RunningServer) -> None:
    with Client(server.url) as client:
        client.add_queue()
        make, use, last = client.submit({"outputs": ["x"]}, {"inputs": ["x"], "outputs": ["y"]}, {"inputs": ["y"]})
        for expected in (make, use, last):
            client.wait_for(expected, "activated")
            definition = client.get_job()
            assert definition["PandaID"] == expected
            client.finish(definition)
        client.wait_for(last, "finished")


def test_lost_heartbeats_are_noticed_and_the_job_is_given_to_another_pilot(tmp_path: Path) -> None:
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps({"watcher": {"period": 0.2}}))
    environment = {"PILOTKIT_LOST_HEARTBEAT": "4", "PILOTKIT_DAEMON_CONFIG": str(config)}
    with running_server(tmp_path / "data", environment=environment) as server, Client(server.url) as client:
        client.add_queue()
        once, twice = client.submit({}, {"max_attempts": 2, "outputs": ["a"]})
        first, old = client.get_job(), client.get_job()
        assert old["next_heartbeat"] == 1800
        client.update(once, "running")
        client.update(twice, "running")
        lost = client.wait_for(once, "failed")
        assert lost["error"]["name"] == "LOSTHEARTBEAT"
        assert client.update(once, "running")["command"] == "tobekilled"
        client.wait_for(twice, "activated")
        new = client.get_job()
        assert (new["PandaID"], new["attemptNr"]) == (twice, 2)
        assert client.update(twice, "finished", attemptNr=1, claim_id=old["claim_id"])["command"] == "tobekilled"
        client.finish(new)
        done = client.wait_for(twice, "finished")
        assert [(c["attemptNr"], c["status"]) for c in done["history"]][-3:] == [
            (2, "sent"),
            (2, "holding"),
            (2, "finished"),
        ]
        assert first["PandaID"] == once


def test_it_stops_when_whoever_started_it_has_gone(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, daemon(tmp_path, stdin=theirs) as process:
        ours.settimeout(20)
        assert ours.recv(1) == b"1"  # it hears the bell now
        assert (tmp_path / "daemon.sock").exists()
        ours.close()
        assert process.wait(20) == 0
    assert not (tmp_path / "daemon.sock").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_on_a_signal(tmp_path: Path, number: int) -> None:
    with daemon(tmp_path) as process:
        wait_until((tmp_path / "daemon.sock").exists, "the daemon to listen")
        process.send_signal(number)
        assert process.wait(20) == 0


def test_a_script_we_do_not_have_is_left_out_with_one_line(tmp_path: Path) -> None:
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps({"evpPD2P": {"period": 2400, "sync": True}, "x": {"period": 5, "module": "os.path"}}))
    with daemon(tmp_path, PILOTKIT_DAEMON_CONFIG=str(config)) as process:
        wait_until((tmp_path / "daemon.sock").exists, "the daemon to listen")
        process.terminate()
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
        assert process.wait(20) == 0
    assert len(lines) == 2
    assert lines == [
        "pilotkit daemon: the script evpPD2P is left out: there is no placement of data by events here",
        "pilotkit daemon: the script x is left out: there is no module os.path in server.daemon.scripts",
    ]


@pytest.mark.parametrize("content", ["{", '{"x": {"period": -1}}'])
def test_a_bad_configuration_is_one_sentence_and_an_exit_code(tmp_path: Path, content: str) -> None:
    config = tmp_path / "daemon.json"
    config.write_text(content)
    with daemon(tmp_path, PILOTKIT_DAEMON_CONFIG=str(config)) as process:
        assert process.stderr is not None
        text = process.stderr.read()
        assert process.wait(20) == 1
    assert text.startswith("pilotkit daemon: The daemon configuration")
    assert text.count("\n") == 1


def test_a_script_that_hangs_is_killed_and_the_others_go_on(tmp_path: Path) -> None:
    """The database is locked by somebody else, so that add_main cannot get on; then it is let go."""
    config = tmp_path / "daemon.json"
    # the others would hang as well, for as long as they may, and leave no worker
    others = {name: {"enable": False} for name in DEFAULTS if name not in ("add_main", "class_cleaner")}
    config.write_text(json.dumps({**others, "class_cleaner": {"period": 0.2, "timeout": 0.5, "sync": False}}))
    migrate(f"sqlite:///{tmp_path}/pilotkit.db")
    with (
        open(tmp_path / "pilotkit.db-writers", "w") as lock,
        daemon(tmp_path, PILOTKIT_DAEMON_CONFIG=str(config)) as process,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert process.stderr is not None
        for line in process.stderr:
            if "class_cleaner took more than" in line:
                break
        fcntl.flock(lock, fcntl.LOCK_UN)
        process.terminate()
        assert process.wait(20) == 0


# What chapter 11's example does, with a user who exists, and a script of the site's own.
_SECTION = """
[daemon]
enable = True
uname = {uname}
gname = {gname}
package = site_scripts
n_proc = 2
proc_lifetime = 1
config = {{
    "dummy_test": {{
        "enable": true, "period": 120, "timeout": 300}},
    "add_main": {{
        "enable": true, "period": 240, "loop": true}},
    "evpPD2P": {{
        "enable": true, "period": 600}},
    "process_workflow_files_daemon": {{
        "enable": true, "period": 60}},
    "ours": {{
        "module": "lines", "arguments": ["--file", "{file}"], "period": 0.2, "timeout": 60, "sync": true}},
    "slow": {{
        "module": "sleep", "period": 0.1, "timeout": 60}}
    }}
"""
_LINES = """
import os

def run(context, arguments):
    option, path = arguments
    with open(path, "a") as file:
        print(option, os.getpid(), os.geteuid(), os.getegid(), file=file)
    return False
"""
_SLEEP = """
import time

def run(context, arguments):
    time.sleep(0.3)
    return False
"""


def _site(folder: Path, uname: str, gname: str) -> dict[str, str]:
    """A site's own package and its panda_server.cfg; the environment that a daemon needs."""
    package = folder / "packages" / "site_scripts"
    package.mkdir(parents=True)
    (package / "lines.py").write_text(_LINES)
    (package / "sleep.py").write_text(_SLEEP)
    config = folder / "panda_server.cfg"
    config.write_text(_SECTION.format(uname=uname, gname=gname, file=folder / "lines.txt"))
    (folder / "lines.txt").touch()
    return {"PILOTKIT_DAEMON_CONFIG": str(config), "PYTHONPATH": f"{os.getcwd()}:{package.parent}"}


def _written(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "lines.txt").read_text().splitlines()]


def test_the_documented_section_runs_with_a_sites_own_package_and_group(tmp_path: Path) -> None:
    """The user stays: another one could not read this Python, perhaps."""
    user = pwd.getpwuid(os.geteuid())
    group = grp.getgrnam("nogroup") if os.geteuid() == 0 else grp.getgrgid(os.getegid())
    with daemon(tmp_path, **_site(tmp_path, user.pw_name, group.gr_name)) as process:
        wait_until(lambda: len({pid for _, pid, _, _ in _written(tmp_path)}) > 2, "workers to be replaced")
        process.terminate()
        assert process.stderr is not None
        said = process.stderr.read().splitlines()
        assert process.wait(20) == 0
    assert {(option, int(uid), int(gid)) for option, _, uid, gid in _written(tmp_path)} == {
        ("--file", user.pw_uid, group.gr_gid)
    }
    missing = [line for line in said if "left out" in line]
    assert [line.split()[4] for line in missing] == ["dummy_test", "evpPD2P", "process_workflow_files_daemon"]
    # On a busy machine not only the one that is meant to takes longer than its period.
    late = [line for line in said if "longer than its period of" in line]
    assert any(re.search(r"the script slow took \d+\.\d s, longer than its period of 0\.1 s", line) for line in late)
    assert len(missing) + len(late) == len(said)


def test_an_unknown_user_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with daemon(tmp_path, **_site(tmp_path, "no-such-user", "no-such-group")) as process:
        assert process.stderr is not None
        assert process.stderr.read() == (
            "pilotkit daemon: The daemon cannot run as its uname and gname: "
            "getpwnam(): name not found: 'no-such-user'.\n"
        )
        assert process.wait(20) == 1


def _pilotkit(data: Path, action: str, **environment: str) -> tuple[int, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PILOTKIT_")}
    done = subprocess.run(
        [sys.executable, "-m", "server.cli.main", "daemon", action, "--data", str(data)],
        env={**own, **environment}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_it_is_started_looked_at_and_stopped_by_command(tmp_path: Path) -> None:
    assert _pilotkit(tmp_path, "status") == (3, NONE)
    code, said = _pilotkit(tmp_path, "start")
    assert code == 0, said
    pid = int((tmp_path / "daemon.pid").read_text())
    try:
        assert said == f"pilotkit: the daemon runs, pid {pid}; it writes to {tmp_path}/daemon.log\n"
        assert _pilotkit(tmp_path, "status") == (0, f"pilotkit: the daemon runs, pid {pid}\n")
        refused = f"A daemon runs here already, pid {pid}.\n"
        assert _pilotkit(tmp_path, "start") == (1, f"pilotkit: {refused}")
        with daemon(tmp_path) as second:
            assert second.stderr is not None and second.stderr.read() == f"pilotkit daemon: {refused}"
    finally:
        assert _pilotkit(tmp_path, "stop") == (0, f"pilotkit: the daemon, pid {pid}, stopped\n")
    assert _pilotkit(tmp_path, "stop") == (0, NONE)
    assert (tmp_path / "daemon.log").read_text() == ""


def test_the_pid_file_of_a_killed_daemon_says_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path) as process:
        wait_until((tmp_path / "daemon.sock").exists, "the daemon to listen")
        process.kill()
    (tmp_path / "daemon.pid").write_text(f"{os.getpid()}\n")  # as when its number has been given to another process
    assert _pilotkit(tmp_path, "status") == (3, NONE)
    assert _pilotkit(tmp_path, "stop") == (0, NONE)


def test_a_daemon_that_does_not_start_in_the_background_says_why(tmp_path: Path) -> None:
    code, said = _pilotkit(tmp_path, "start", PILOTKIT_DATABASE=f"sqlite:///{tmp_path}")
    assert code == 1
    assert "did not start; the last line of" in said and "unable to open database file" in said


def test_a_server_whose_daemon_is_switched_off_serves_without_one(tmp_path: Path) -> None:
    config = tmp_path / "panda_server.cfg"
    config.write_text("[daemon]\nenable = False\npackage = pandaserver.daemons.scripts\nconfig = {}\n")
    with running_server(tmp_path / "data", environment={"PILOTKIT_DAEMON_CONFIG": str(config)}) as server:
        assert not (server.data / "daemon.sock").exists()
        assert f"pilotkit: the daemon is switched off in {config}\n" in server.output
        with Client(server.url) as client:
            client.add_queue()
