"""Hung payloads and those that only look so (promise U3): real payloads, real pilots, a limit of three seconds."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from tests import pilots
from tests.integration.payload.conftest import Submit, settings
from tests.integration.payload.test_memory import members
from tests.pilots import wait_until
from tests.site import QUEUE, Site

ONCE = ("-v", "1")
LIMIT = 3
# Less than a twentieth of a core is no sign of life here: a look comes every second, and a clock tick is 10 ms.
QUICK = settings(memory_check_first=0.2, memory_check=0.5, looping_check=1, looping_limit=LIMIT, looping_cpu=0.05)
# What each payload does for twice the limit. Apart from its own sign of life it shows none.
LIVELY = {
    "CPU": """
        import time
        while time.process_time() < 3:
            pass
        end = time.monotonic() + 4
        while time.monotonic() < end:
            pass
    """,
    "I/O": """
        import os, time
        zero = os.open("/dev/zero", os.O_RDONLY)
        for _ in range(14):
            os.read(zero, 10)
            time.sleep(0.5)
    """,
    "output": """
        import time
        for _ in range(14):
            print(".")
            time.sleep(0.5)
    """,
    "files": """
        import os, time
        open("progress", "w").close()
        for _ in range(14):
            os.utime("progress")
            time.sleep(0.5)
    """,
    "network": """
        import socket
        trickle = socket.create_connection(("127.0.0.1", {port}))
        for _ in range(14):
            trickle.recv(1)
    """,
}


class Trickle:
    """A server that sends a byte every half a second to each client, or nothing at all."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._clients: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept), threading.Thread(target=self._send)]
        for thread in self._threads:
            thread.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._clients.append(self._listener.accept()[0])

    def _send(self) -> None:
        while not self._over.wait(0.5):
            for client in self._clients:
                with suppress(OSError):
                    client.send(b".", socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in (self._listener, *self._clients):
            one.close()


@pytest.fixture
def trickle() -> Iterator[Trickle]:
    server = Trickle()
    yield server
    server.close()


@pytest.fixture
def silence() -> Iterator[int]:
    """The port of a server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def test_of_six_payloads_only_the_hung_one_is_ended(
    site: Site, tmp_path: Path, submit: Submit, trickle: Trickle, silence: int
) -> None:
    lively = {name: submit(program.replace("{port}", str(trickle.port))) for name, program in LIVELY.items()}
    hung = submit(f"""
        import socket
        print("before it hangs")
        open("last", "w").write("touched")
        socket.create_connection(("127.0.0.1", {silence})).recv(1)
    """)
    with ExitStack() as stack:
        running = [
            stack.enter_context(pilots.running(site.url, QUEUE, tmp_path / str(n), *ONCE, settings=QUICK))
            for n in range(len(lively) + 1)
        ]
        ends = {name: site.wait_for(jobid, timeout=60) for name, jobid in lively.items()}
        failed = site.wait_for(hung)
        for pilot in running:
            pilot.wait()
    logs = "\n".join(pilot.log() for pilot in running)
    assert {name: job["jobStatus"] for name, job in ends.items()} == dict.fromkeys(lively, "finished"), logs
    assert (failed["jobStatus"], failed["pilotErrorCode"]) == ("failed", 1150), logs
    assert f"{LIMIT} s are allowed" in str(failed["pilotErrorDiag"])
    log = members(site.stored(hung, "log")[0])["pilotlog.txt"]
    warned, ended = log.index("no sign of life for"), log.index("1150 LOOPINGJOB")
    assert warned < log.index("what its processes are doing:") < ended
    assert log.count("no sign of life for") == 1
    assert "state S" in log and "/last" not in log and " last\n" in log


def test_a_payload_that_was_stopped_and_goes_on_is_not_hung(site: Site, rundir: Path, submit: Submit) -> None:
    jobid = submit("""
        import os, time
        print("begins")
        while not os.path.exists("go"):
            open("alive", "w").close()
            time.sleep(0.2)
        print("ends")
    """)
    with pilots.running(site.url, QUEUE, rundir, *ONCE, settings=QUICK) as pilot:
        site.wait_for(jobid, "running")
        output = pilot.workdir(jobid) / "payload.stdout"
        wait_until(lambda: output.exists() and "begins" in output.read_text(), "the payload has begun")
        # All but the guard, as a batch system stops a slot's processes.
        (guard,) = psutil.Process(pilot.pid).children()
        stopped = guard.children(recursive=True)
        for process in stopped:
            os.kill(process.pid, signal.SIGSTOP)
        over = threading.Event()
        over.wait(2 * LIMIT + 1)
        for process in stopped:
            os.kill(process.pid, signal.SIGCONT)
        (pilot.workdir(jobid) / "go").touch()
        job = site.wait_for(jobid)
        pilot.wait()
    assert job["jobStatus"] == "finished", pilot.log()


@pytest.mark.parametrize("how", ["by the job", "by the queue's limit", "in shadow mode"])
def test_a_silent_payload_lives_where_nobody_wants_it_ended(site: Site, rundir: Path, submit: Submit, how: str) -> None:
    shadow = how == "in shadow mode"
    # In shadow mode long enough to be seen beyond the limit, however busy the machine is.
    program = f"import time; time.sleep({(4 if shadow else 2) * LIMIT})"
    options: tuple[str, ...] = ("--shadow",) if shadow else ()
    if how == "by the job":
        jobid = submit(program, loopingCheck=False)
    elif how == "by the queue's limit":
        jobid = submit(program)
        options = ("--queuedata-url", str(_with_limit(site, rundir)))
    else:
        jobid = submit(program)
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, *options, settings=QUICK)
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    assert ("shadow mode: it would be ended now: 1150" in pilot.log()) is shadow


def _with_limit(site: Site, rundir: Path) -> Path:
    """The queue's description with a longer limit in its catchall, as a file."""
    with urllib.request.urlopen(f"{site.url}/cache/schedconfig/{QUEUE}.all.json", timeout=30) as answer:
        queue = json.load(answer)
    queue["catchall"] = "loopinglimit=60"
    rundir.mkdir(parents=True, exist_ok=True)
    path = rundir / "queue.json"
    path.write_text(json.dumps(queue))
    return path
