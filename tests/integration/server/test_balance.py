"""Web workers share the work: kept connections are spread."""

from __future__ import annotations

import contextlib
import http.client
import statistics
from pathlib import Path

import psutil

from tests.integration.server.clients import wait_until
from tests.servers import RunningServer, running_server

CLIENTS = 16
ROUNDS = 11


def web_workers(server: RunningServer) -> list[psutil.Process]:
    return [p for p in psutil.Process(server.pid).children() if "server.daemon" not in words_of(p)]


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; that of a daemon for one that is just going."""
    try:
        return list(process.cmdline())
    except psutil.Error:
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


def test_clients_that_keep_their_connections_are_spread_over_the_workers(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        assert statistics.median(spread(server)) >= CLIENTS // 4  # one worker has nearly all if nobody cares
        web_workers(server)[0].kill()
        wait_until(lambda: len(web_workers(server)) == 2, "the worker to be replaced")
        wait_until(lambda: statistics.median(spread(server)) >= CLIENTS // 4, "the new one to have its share")
