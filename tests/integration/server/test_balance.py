"""Web workers share the work: kept connections are spread, each worker has a CPU, and no request waits for long."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import statistics
import threading
import time
from pathlib import Path

import psutil
import pytest
import requests

from tests.integration.server.clients import wait_until
from tests.servers import RunningServer, running_server

CLIENTS = 16
ROUNDS = 11
CPUS = os.sched_getaffinity(0)


def web_workers(server: RunningServer) -> list[psutil.Process]:
    return [p for p in psutil.Process(server.pid).children() if "server.daemon" not in words_of(p)]


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; that of a daemon for one that is just going."""
    with contextlib.suppress(psutil.Error):
        if words := process.cmdline():
            return words
    return ["server.daemon"]


def connections_of(server: RunningServer) -> list[int]:
    """How many clients each web worker has."""
    return [
        sum(c.laddr.port == server.port and c.status == psutil.CONN_ESTABLISHED for c in p.net_connections())
        for p in web_workers(server)
    ]


def spread(server: RunningServer) -> list[int]:
    """The number of clients of the worker that has the fewest, for several times many that keep their connections."""
    fewest = []
    for _ in range(ROUNDS):
        with contextlib.ExitStack() as stack:
            for _ in range(CLIENTS):
                client = stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)))
                client.request("GET", "/healthz")
                assert client.getresponse().read()
            counts = connections_of(server)
            assert sum(counts) == CLIENTS and len(counts) == 2
            fewest.append(min(counts))
        wait_until(lambda: sum(connections_of(server)) == 0, "the connections to be closed")
    return fewest


def both_have_their_share(server: RunningServer) -> bool:
    """Whether that is so at one of three looks: 7 or 8 of 16; if nobody cares, one has 0 to 5 (the median)."""
    wait_until(lambda: max(spread(server)) > 0, "both workers to take clients")
    return max(statistics.median(spread(server)) for _ in range(3)) >= CLIENTS // 2 - 2


def test_clients_that_keep_their_connections_are_spread_over_the_workers(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        assert both_have_their_share(server)
        victim = web_workers(server)[0]
        victim.kill()
        wait_until(lambda: victim not in web_workers(server), "it to go")
        wait_until(lambda: len(web_workers(server)) == 2, "the worker to be replaced")
        assert both_have_their_share(server)


def affinities(processes: list[psutil.Process]) -> list[list[int]]:
    return sorted(p.cpu_affinity() for p in processes)


def wait_for_affinities(server: RunningServer, expected: list[list[int]]) -> None:
    wait_until(lambda: affinities(web_workers(server)) == expected, "CPUs to be taken")


def test_as_many_workers_as_cpus_have_one_each_and_a_new_worker_has_that_of_the_dead(tmp_path: Path) -> None:
    with running_server(tmp_path, environment={"PILOTKIT_WORKERS": str(len(CPUS))}) as server:
        one_each = [[cpu] for cpu in sorted(CPUS)]
        wait_for_affinities(server, one_each)
        victim = web_workers(server)[0]
        victim.kill()
        wait_until(lambda: victim.pid not in [p.pid for p in web_workers(server)], "it to go")
        wait_for_affinities(server, one_each)
        master = psutil.Process(server.pid)
        others = [p for p in master.children(recursive=True) if "server.daemon" in words_of(p)]
        assert others and all(set(p.cpu_affinity()) == CPUS for p in (master, *others))


@pytest.mark.parametrize(
    ("variable", "value"), [("PILOTKIT_PIN_WORKERS", "0"), ("PILOTKIT_WORKERS", str(2 * len(CPUS) + 1))]
)
def test_workers_run_where_the_kernel_likes_otherwise(tmp_path: Path, variable: str, value: str) -> None:
    if len(CPUS) == 1:
        pytest.skip("there is one CPU to run on")
    with running_server(tmp_path, environment={variable: value}) as server:
        assert all(set(p.cpu_affinity()) == CPUS for p in web_workers(server))


def hang(server: RunningServer, stack: contextlib.ExitStack) -> None:
    """Send a request without the end of its body."""
    client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
    head = "POST /server/panda/updateJob HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())


def test_a_request_that_hangs_keeps_nobody_for_long(tmp_path: Path) -> None:
    with (
        running_server(tmp_path, environment={"PILOTKIT_WORKERS": str(len(CPUS))}) as server,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(4 * len(CPUS)):  # half of all threads
            hang(server, stack)
        for _ in range(100):
            assert requests.get(f"{server.url}/server/panda/isAlive", timeout=20).text == "alive=yes"


def test_more_kept_connections_than_threads_do_not_keep_new_clients_out(tmp_path: Path) -> None:
    environment = {"PILOTKIT_WORKERS": "1", "PILOTKIT_THREADS": "2", "PILOTKIT_EVENT_CLIENTS": "1"}
    with running_server(tmp_path, environment=environment) as server, contextlib.ExitStack() as stack:
        busy = [Busy(server, stack) for _ in range(4)]
        wait_until(lambda: all(client.answers for client in busy), "all to be answered")
        assert requests.get(f"{server.url}/server/panda/isAlive", timeout=20).text == "alive=yes"
        assert all(client.answers < client.REQUESTS for client in busy)


class Busy:
    """A client that sends all its requests at once, on one connection: there is always another one."""

    REQUESTS = 3000

    def __init__(self, server: RunningServer, stack: contextlib.ExitStack) -> None:
        self.answers = 0
        self._connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
        for target in (self._send, self._receive):
            thread = threading.Thread(target=target)
            thread.start()
            stack.callback(thread.join)
        stack.callback(self._connection.shutdown, socket.SHUT_RDWR)

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.sendall(b"GET /server/panda/isAlive HTTP/1.1\r\nHost: x\r\n\r\n" * self.REQUESTS)

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while got := self._connection.recv(65536):
                self.answers += got.count(b"alive=yes")


def test_a_worker_without_a_free_thread_leaves_new_clients_to_others(tmp_path: Path) -> None:
    """Those that start later, too, or have had no CPU for a while."""
    environment = {"PILOTKIT_WORKERS": "2", "PILOTKIT_THREADS": "2", "PILOTKIT_EVENT_CLIENTS": "1"}
    with running_server(tmp_path, environment=environment) as server, contextlib.ExitStack() as stack:
        wait_until(lambda: len(web_workers(server)) == 2, "both workers")
        _, other = web_workers(server)
        other.suspend()
        stack.callback(other.resume)
        for _ in range(2):
            hang(server, stack)
        wait_until(lambda: sum(connections_of(server)) == 2, "all threads to have something to do")
        late = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(3)]
        for client in late:
            client.settimeout(20)
            client.sendall(b"GET /server/panda/isAlive HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        time.sleep(0.5)  # it would have taken them by now
        other.resume()
        for client in late:
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
