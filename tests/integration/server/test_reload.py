"""SIGHUP: the server becomes a new one with today's code and settings, and no request is lost meanwhile."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from tests.integration.server.clients import Client, wait_until
from tests.servers import RunningServer, running_server


class Load:
    """Clients that ask without a pause, each with a connection kept alive or a new one for each request."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answered = 0
        self.lost: list[str] = []
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask for the time of a block."""
        clients = [threading.Thread(target=self._ask, args=(kept,)) for kept in (True, False, True, False)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            self._stop.set()
            for client in clients:
                client.join()

    def _ask(self, kept: bool) -> None:
        session = requests.Session()
        with session:
            while not self._stop.is_set():
                try:
                    headers = {} if kept else {"Connection": "close"}
                    body = {"jobId": "1", "state": "running"}
                    answer = session.post(f"{self.url}/server/panda/updateJob", json=body, headers=headers, timeout=30)
                    if answer.json() != {"StatusCode": 0, "command": "tobekilled"}:
                        self.lost.append(answer.text)
                    self.answered += 1
                except (requests.RequestException, ValueError) as error:
                    self.lost.append(repr(error))


def served(server: RunningServer) -> int:
    """How often it has said that it serves."""
    return sum(line.startswith("pilotkit: serving ") for line in server.output)


def web_workers(server: RunningServer) -> set[int]:
    """The pids of its web workers."""
    return {p.pid for p in psutil.Process(server.pid).children() if is_web_worker(p)}


def is_web_worker(process: psutil.Process) -> bool:
    try:
        return "server.daemon" not in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def reloaded(server: RunningServer) -> None:
    """Send the signal, and wait until the new server answers and the old one's workers have gone."""
    before, times = web_workers(server), served(server)
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: served(server) > times, "the new server", 60)
    wait_until(lambda: not web_workers(server) & before, "the old workers to go", 60)


def test_no_request_is_lost_while_a_server_is_reloaded_again_and_again(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        load = Load(server.url)
        with load.running():
            for _ in range(2):
                answered = load.answered
                reloaded(server)
                wait_until(lambda before=answered: load.answered > before + 20, "answers")  # type: ignore[misc]
        assert load.lost == []
        assert len(web_workers(server)) == 2
        os.kill(server.pid, signal.SIGHUP)  # two at once are as good as one
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: served(server) >= 4, "the new server", 60)
        with Client(server.url) as client:
            client.add_queue()
            (job,) = client.submit({"outputs": ["a"]})
            client.finish(client.get_job())
            client.wait_for(job, "finished")  # by the daemon, which is a new one
        family = psutil.Process(server.pid).children(recursive=True)
        assert server.stop() == 0
        assert not any(map(lives, family))


def test_new_settings_and_new_code_are_taken_and_what_cannot_start_is_left_out(tmp_path: Path) -> None:
    settings, code = tmp_path / "pilotkit.env", tmp_path / "program.py"
    settings.write_text("# ours\nPILOTKIT_RETRY_AFTER=17\n")
    program = "import sys\nfrom server.serving import serve\nfrom server.settings import Settings, ConfigurationError\n"
    program += "try:\n    sys.exit(serve(Settings.from_environment()))\nexcept ConfigurationError as error:\n"
    program += "    sys.exit(str(error))\n"
    code.write_text(program)
    environment = {"PILOTKIT_SETTINGS_FILE": str(settings)}
    with (
        running_server(tmp_path / "data", environment=environment, program=[sys.executable, str(code)]) as server,
        Client(server.url) as client,
    ):
        client.add_queue()

        def retry_after() -> object:
            return client.panda("getJob", {"siteName": "TEST_QUEUE"})["retry_after"]

        assert retry_after() == 17
        settings.write_text('PILOTKIT_RETRY_AFTER="19"\n')
        reloaded(server)
        assert retry_after() == 19
        settings.write_text("PILOTKIT_RETRY_AFTER=soon\n")
        complain(server, lambda: os.kill(server.pid, signal.SIGHUP), "must be a whole number, not 'soon'")
        settings.write_text("PILOTKIT_RETRY_AFTER=23\n")
        code.write_text("import nothing_of_that_name\n")
        complain(server, lambda: os.kill(server.pid, signal.SIGHUP), "No module named 'nothing_of_that_name'")
        assert retry_after() == 19
        code.write_text(program.replace("import sys\n", "import sys\nprint('of today', flush=True)\n", 1))
        reloaded(server)
        assert retry_after() == 23 and "of today\n" in server.output


def complain(server: RunningServer, do: Callable[[], None], text: str) -> None:
    """Do something, and see the server say so and go on."""
    workers = web_workers(server)
    do()
    wait_until(lambda: any(text in line for line in server.output), f"the words {text}", 60)
    assert web_workers(server) == workers


def test_old_workers_do_not_outlive_a_server_that_is_killed_after_a_reload(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        reloaded(server)
        family = psutil.Process(server.pid).children(recursive=True)
        server.kill()
        wait_until(lambda: not any(map(lives, family)), "them to go", 20)


def test_a_stop_in_the_middle_of_requests_answers_those_that_have_begun(tmp_path: Path) -> None:
    """Of those that had not begun the clients are told by a connection that is refused or closed, as it must be."""
    with running_server(tmp_path) as server:
        load = Load(server.url)
        with load.running():
            wait_until(lambda: load.answered > 50, "answers")
            assert server.stop() == 0
            time.sleep(0.2)  # what was under way has its answer or its error by then
        halves = [text for text in load.lost if "ConnectionError" not in text]
        assert halves == []
