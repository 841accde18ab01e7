"""The pilot ends by its deadline whatever hangs (promise N2).

Copytools that ignore TERM, and containers that never start, are in test_signals.py and test_containers.py; disks that
fill in test_slot.py; servers that stall a transfer in tests/integration/data.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import pilots
from tests.disks import fill, small_disk
from tests.faults import Request, network
from tests.integration.payload.conftest import settings
from tests.site import QUEUE, Site

ONCE = ("-v", "1")
QUICK = settings(
    Pilot__http_connect_timeout=1, Pilot__http_timeout=2, Pilot__request_attempts=2, Pilot__retry_delay=0.05
)
# s, for a pilot that is told to give up within seconds, on a busy machine.
SOON = 45.0


@contextmanager
def silent(speak: Callable[[socket.socket, threading.Event], None] | None) -> Iterator[int]:
    """A server that takes connections and does one thing with each, or with None takes none; its port."""
    over = threading.Event()
    threads: list[threading.Thread] = []
    with socket.socket() as listening, socket.socket() as filler, socket.socket() as another:
        listening.bind(("127.0.0.1", 0))
        # Without room for those who wait, the kernel drops what else comes.
        listening.listen(0 if speak is None else 64)
        address = listening.getsockname()
        if speak is None:
            for one in (filler, another):
                one.setblocking(False)
                one.connect_ex(address)

        def serve() -> None:
            listening.settimeout(0.1)
            while not over.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                with connection:
                    assert speak is not None
                    try:
                        speak(connection, over)
                    except OSError:
                        continue

        if speak is not None:
            threads.append(threading.Thread(target=serve))
            threads[0].start()
        try:
            yield address[1]
        finally:
            over.set()
            for thread in threads:
                thread.join()


def nothing(connection: socket.socket, over: threading.Event) -> None:
    """As long as the client stays."""
    connection.settimeout(0.1)
    while not over.is_set():
        try:
            if not connection.recv(65536):
                return
        except TimeoutError:
            continue


def half_a_header(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Ty")
    nothing(connection, over)


def trickle(connection: socket.socket, over: threading.Event) -> None:
    """A body that never ends, a byte at a time, so that no single read takes long."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not over.wait(0.1):
        connection.sendall(b" ")


@pytest.mark.parametrize(
    ("speak", "scheme"),
    [(None, "http"), (nothing, "https"), (nothing, "http"), (half_a_header, "http"), (trickle, "http")],
    ids=["connect", "TLS", "answer", "header", "body"],
)
def test_a_dispatcher_that_hangs_is_left_in_time(
    rundir: Path, speak: Callable[[socket.socket, threading.Event], None] | None, scheme: str
) -> None:
    begun = time.monotonic()
    with silent(speak) as port:
        pilot = pilots.run(f"{scheme}://127.0.0.1:{port}", QUEUE, rundir, *ONCE, settings=QUICK)
    assert pilot.process.returncode == 71, pilot.log()
    assert time.monotonic() - begun < SOON


@pytest.mark.parametrize("limit", ["setup_limit", "--lifetime"])
def test_a_name_service_that_hangs_does_not_keep_the_pilot(rundir: Path, tmp_path: Path, limit: str) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("another name service for one process takes root and unshare")
    names = tmp_path / "resolv.conf"
    # Nobody listens there, and the kernel does not say so: the socket is ours.
    address = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}.{random.randrange(2, 255)}"
    names.write_text(f"nameserver {address}\noptions timeout:30 attempts:2\n")
    wrapper = tmp_path / "python"
    wrapper.write_text(
        "#!/bin/sh\nexec unshare --mount sh -c 'mount --bind "
        f'{names} /etc/resolv.conf && exec {sys.executable} "$@"\' sh "$@"\n'
    )
    wrapper.chmod(0o755)
    if subprocess.run([str(wrapper), "-c", ""], capture_output=True, check=False).returncode != 0:
        pytest.skip("no name spaces for mounts here")
    options, text = (("-l", "4"), "") if limit == "--lifetime" else ((), settings(Pilot__setup_limit=4))
    begun = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silence:
        silence.bind((address, 53))
        pilot = pilots.run(
            "https://dispatcher.pilotkit-test:25443", QUEUE, rundir, *ONCE, *options, settings=text, python=str(wrapper)
        )
    assert pilot.process.returncode not in (0, -9), pilot.log()
    assert "the set-up did not end within 4 s: leaving by force" in pilot.log() and "getaddrinfo" in pilot.log()
    assert time.monotonic() - begun < 30


def test_a_server_that_falls_silent_does_not_keep_a_pilot_that_has_to_leave(site: Site, rundir: Path) -> None:
    (jobid,) = site.submit({"command": "exec sleep 300"})
    silence, over = threading.Event(), threading.Event()

    def rule(request: Request) -> object:
        if request.call in ("update_job", "update_worker_status") and silence.is_set():
            over.wait(60)
        return None

    with network(site.url, rule) as net:
        try:
            hasty, worker = settings(Pilot__heartbeat=1), {"HARVESTER_ID": "h", "HARVESTER_WORKER_ID": "42"}
            with pilots.running(net.url, QUEUE, rundir, *ONCE, settings=hasty, env=worker) as pilot:
                site.wait_for(jobid, "running")
                silence.set()
                before = len(net.requests)
                pilots.wait_until(lambda: len(net.requests) > before, "a heartbeat hangs")
                begun = time.monotonic()
                pilot.signal(signal.SIGTERM)
                # The log is out at once; then the server gets five seconds for each of two updates.
                pilots.wait_until(lambda: list(site.storage.rglob(f"{jobid}.*.log.tgz")), "the log is stored")
                assert time.monotonic() - begun < 20
                assert pilot.wait() == 79, pilot.log()
                assert time.monotonic() - begun < SOON
        finally:
            over.set()
    (spooled,) = (rundir / "pilotkit-spool").rglob("*failed*.json")
    assert json.loads(spooled.read_text())["body"]["pilotErrorCode"] == 1201
    pilots.run(site.url, QUEUE, rundir, *ONCE)
    site.call("job/kill", {"job_ids": [jobid]})


def test_a_pipe_that_nobody_reads_does_not_keep_the_pilot(site: Site, rundir: Path) -> None:
    jobs = site.submit(*({"command": "true"} for _ in range(6)))
    rundir.mkdir()
    command = [sys.executable, str(pilots.ROOT / "pilot.py"), "-q", QUEUE, "--url", site.url, "-j", "user", "-v", "1"]
    read_end, write_end = os.pipe()
    # Full from the beginning.
    os.set_blocking(write_end, False)
    while True:
        try:
            os.write(write_end, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(write_end, True)
    try:
        process = subprocess.Popen(
            [*command, "-d", "--cleanup=False"],
            cwd=rundir, env=pilots.environment(), stdin=subprocess.DEVNULL, stdout=write_end, stderr=write_end,
        )  # fmt: skip
        try:
            assert process.wait(pilots.LIMIT) == 0
        finally:
            process.kill()
            process.wait()
    finally:
        os.close(read_end)
        os.close(write_end)
    assert [site.wait_for(jobid)["jobStatus"] for jobid in jobs] == ["finished"] * len(jobs)
    (log,) = rundir.glob("pilotkit-*/pilotlog.txt")
    assert "pilot ends with exit code 0" in log.read_text()


def test_on_a_full_disk_no_job_is_taken_and_what_others_have_there_stays(site: Site) -> None:
    (jobid,) = site.submit({"command": "true"})
    with small_disk(40) as disk:
        # One of another user, one of another node, and one that is no pilot's.
        rundir = disk / "run"
        for name, uid in (("pilotkit-12-abcdef", 65534), ("pilotkit-13-abcdef", 0), ("somebody-elses", 0)):
            (rundir / name).mkdir(parents=True)
            owner = {"host": "elsewhere", "boot": "y", "uid": uid, "pid": 1, "start": 1}
            (rundir / name / "owner.json").write_text(json.dumps(owner))
            os.chown(rundir / name, uid, uid)
        with pilots.running(site.url, QUEUE, rundir, *ONCE) as pilot:
            assert pilot.wait() == 69, pilot.log()
        assert "bytes are free on the work disk, 2147483648 are needed to start a job" in pilot.log()
        fill(disk)
        with pilots.running(site.url, QUEUE, rundir, *ONCE) as pilot:
            assert pilot.wait() == 69, pilot.log()
        assert len(list(rundir.glob("*/owner.json"))) == 3
    assert site.status(jobid) == "activated"
    site.call("job/kill", {"job_ids": [jobid]})
