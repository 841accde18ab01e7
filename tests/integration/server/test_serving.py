"""Starting and stopping: ports, signals, kill -9, credentials, and gunicorn without our own serving."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import requests

from tests.integration.server.clients import QUEUE, Client, wait_until
from tests.servers import RunningServer, running_server, start_server

#: A server whose first client has it stopped, at a certain moment.
SIGNALLED_IN_SUBMIT = """
import concurrent.futures, os, signal, sys, time
from server.serving import serve
from server.settings import Settings

def submit(pool, *_):
    with pool._shutdown_lock:
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(60)

concurrent.futures.ThreadPoolExecutor.submit = submit
sys.exit(serve(Settings.from_environment()))
"""


def family(server: RunningServer) -> list[psutil.Process]:
    return [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]


def gone(processes: list[psutil.Process]) -> None:
    wait_until(
        lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes), "them to go", 20
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_with_everything_it_started(tmp_path: Path, number: int) -> None:
    server = start_server(tmp_path)
    with Client(server.url) as client, client.session.get(f"{server.url}/events", stream=True, timeout=30) as followed:
        assert followed.raw.read(1)
        client.add_queue()
        members = family(server)
        assert len(members) >= 6  # master, two web workers, daemon and its two workers
        assert server.stop(number) == 0
    gone(members)
    assert server.output == [f"pilotkit: serving {server.url}\n"]
    assert not (tmp_path / "daemon.sock").exists()


def test_a_signal_while_a_request_is_handed_to_a_thread_ends_it_as_well(tmp_path: Path) -> None:
    """Then the main thread holds a lock of the threads', which gunicorn's own handler waits for in vain."""
    with running_server(tmp_path, program=[sys.executable, "-c", SIGNALLED_IN_SUBMIT]) as server:
        members = family(server)
        with socket.create_connection(("127.0.0.1", server.port), timeout=30):
            gone(members)
        assert server.stop() == 0
        assert server.output == [f"pilotkit: serving {server.url}\n"]


def test_a_request_sent_when_it_says_so_is_answered(tmp_path: Path) -> None:
    for _ in range(2):
        with running_server(tmp_path) as server:
            assert requests.get(f"{server.url}/server/panda/isAlive", timeout=30).text == "alive=yes"


def test_after_kill_9_nothing_is_left_and_the_port_can_be_had_again_at_once(tmp_path: Path) -> None:
    server = start_server(tmp_path)
    with Client(server.url) as client:
        client.add_queue()
        (job,) = client.submit({"outputs": ["a"]})
        definition = client.get_job()
        client.update(job, "running")
    members = family(server)
    server.kill()
    again = server.restart()
    try:
        gone(members)
        assert server.output == [f"pilotkit: serving {server.url}\n"]
        assert again.url == server.url
        with Client(again.url) as client:
            assert client.status(job) == "running"
            assert client.update(job, "running", claim_id=definition["claim_id"])["command"] == "NULL"
            client.finish(definition)
            client.wait_for(job, "finished")
    finally:
        again.stop()


def test_a_killed_web_worker_or_daemon_is_replaced(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, Client(server.url) as client:
        client.add_queue()
        for victim in psutil.Process(server.pid).children():
            victim.kill()
        wait_until(lambda: alive(server.url), "the server to answer")
        (job,) = client.submit({"outputs": ["a"]})
        client.finish(client.get_job())
        client.wait_for(job, "finished")
        assert any("daemon died" in line for line in server.output)


def alive(url: str) -> bool:
    try:
        return requests.get(f"{url}/api/v1/system/is_alive", timeout=5).ok
    except requests.RequestException:
        return False


def test_a_taken_port_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"cannot listen on 127.0.0.1:{port}"):
            start_server(tmp_path, port=port)


def test_a_data_directory_in_use_is_refused_and_the_first_server_is_not_disturbed(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, Client(server.url) as client:
        client.add_queue()
        with pytest.raises(RuntimeError, match=f"refused: The data directory {tmp_path} is in use by pid {server.pid}"):
            start_server(tmp_path)
        for victim in psutil.Process(server.pid).children():
            victim.kill()  # whatever of the first server starts again, the lock stays
        wait_until(lambda: alive(server.url), "the server to answer")
        with pytest.raises(RuntimeError, match="is in use"):
            start_server(tmp_path)
        (job,) = client.submit({"outputs": ["a"]})
        client.finish(client.get_job())
        client.wait_for(job, "finished")


def test_a_database_that_cannot_be_reached_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "pilotkit.db").write_text("no database\n" * 1000)
    with pytest.raises(RuntimeError, match=r"refused: The database .* cannot be used: file is not a database"):
        start_server(tmp_path)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_others_reach_is_refused_without_tokens(tmp_path: Path, host: str) -> None:
    with pytest.raises(RuntimeError, match="refused: The server would be open to everybody"):
        start_server(tmp_path, environment={"PILOTKIT_HOST": host})


def test_with_tokens_it_listens_where_it_is_told_and_knows_who_calls(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text(
        json.dumps(
            {
                "token-of-a-pilot": {"name": "site", "roles": ["pilot"]},
                "token-of-another": {"name": "elsewhere", "roles": ["pilot"]},
                "token-of-a-user": {"name": "alice", "roles": ["user"]},
                "token-of-the-boss": {"name": "boss", "roles": ["operator"]},
            }
        )
    )
    environment = {"PILOTKIT_HOST": "0.0.0.0", "PILOTKIT_TOKENS": str(tokens)}
    with running_server(tmp_path / "data", environment=environment) as server:
        url = f"http://127.0.0.1:{server.port}"
        with (
            Client(url, "token-of-a-pilot") as pilot,
            Client(url, "token-of-another") as thief,
            Client(url, "token-of-a-user") as user,
            Client(url, "token-of-the-boss") as boss,
        ):
            boss.add_queue()
            (job,) = user.submit({"outputs": ["a"]})
            definition = pilot.get_job()
            assert thief.update(job, "failed")["command"] == "tobekilled"
            assert pilot.update(job, "running")["command"] == "NULL"
            assert user.status(job) == "running"
            assert not pilot.v1("job/list")["success"]
            assert not user.v1("queue/add", {"queues": {"X": {}}})["success"]
            pilot.finish(definition)
            user.wait_for(job, "finished")
        body = {"siteName": QUEUE}
        for headers in ({}, {"Authorization": "Bearer wrong-token"}, {"Authorization": "Basic eDp5"}):
            answer = requests.post(f"{url}/server/panda/getJob", json=body, headers=headers, timeout=30)
            assert answer.status_code == 403
        for path in ("/server/panda/isAlive", "/api/v1/system/is_alive", f"/cache/schedconfig/{QUEUE}.all.json"):
            assert requests.get(url + path, timeout=30).status_code == 200, path
        assert not any("token-of" in line for line in server.output)


def test_plain_gunicorn_serves_it_too_and_several_processes_may_start_at_once(tmp_path: Path) -> None:
    """No daemon here: jobs are handed out and reports are kept for when one is started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        port = listener.getsockname()[1]
        environment = {**os.environ, "PILOTKIT_DATA": str(tmp_path / "data"), "PYTHONPATH": os.getcwd()}
        command = ["-m", "gunicorn", "-b", f"fd://{number}", "-w", "3", "--log-level", "warning", "--no-control-socket"]
        process = subprocess.Popen(
            [sys.executable, *command, "server.app:create_app()"], env=environment, pass_fds=[number]
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: alive(url), "gunicorn to answer")
            with Client(url) as client:
                client.add_queue()
                (job,) = client.submit({"outputs": ["a"]})
                client.finish(client.get_job())
                assert client.status(job) == "holding"
        finally:
            process.terminate()
            assert process.wait(20) == 0
    with running_server(tmp_path / "data") as server, Client(server.url) as client:
        client.wait_for(job, "finished")


def test_a_data_directory_with_a_very_long_name_works(tmp_path: Path) -> None:
    with running_server(tmp_path / ("d" * 150)) as server, Client(server.url) as client:
        client.add_queue()
        (job,) = client.submit({"outputs": ["a"]})
        client.finish(client.get_job())
        client.wait_for(job, "finished")


def test_the_address_in_definitions_is_the_one_the_pilot_used_or_the_public_one(tmp_path: Path) -> None:
    with running_server(tmp_path / "a") as server, Client(server.url) as client:
        client.add_queue()
        client.submit({})
        assert client.get_job()["transformation"].startswith(f"{server.url}/trf/user/")
    environment = {"PILOTKIT_PUBLIC_URL": "https://panda.example.org:25443/"}
    with running_server(tmp_path / "b", environment=environment) as server, Client(server.url) as client:
        client.add_queue()
        client.submit({})
        assert client.get_job()["transformation"].startswith("https://panda.example.org:25443/trf/user/")
