"""Clients that hang: they lose their connection, and nobody else waits for them."""

from __future__ import annotations

import re
import signal
import socket
import time
from pathlib import Path

import pytest
import requests

from tests.integration.server.clients import wait_until
from tests.servers import RunningServer, running_server

HEAD = b"POST /server/panda/getJob HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"


def at_work(server: RunningServer) -> int:
    """How many requests are being answered, the one that asks for this among them."""
    metrics = requests.get(f"{server.url}/metrics", timeout=30).text
    return int(re.search(r"^pilotkit_requests_in_progress ([0-9]+)", metrics, re.MULTILINE)[1])  # type: ignore[index]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_stops_gives_up_clients_that_hang(tmp_path: Path, number: int) -> None:
    with running_server(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port)) as hanging:
        hanging.sendall(HEAD + b"\r\n{")
        wait_until(lambda: at_work(server) == 2, "it to be at work")
        assert server.stop(number) == 0
        assert server.output == [f"pilotkit: serving {server.url}\n"]  # nobody had to be killed


@pytest.mark.parametrize("said", [HEAD, HEAD + b"\r\n{"], ids=["half a head", "half a body"])
def test_clients_that_stop_in_the_middle_of_a_request_keep_nobody_waiting_for_long(tmp_path: Path, said: bytes) -> None:
    environment = {"PILOTKIT_REQUEST_TIMEOUT": "1", "PILOTKIT_WORKERS": "1", "PILOTKIT_THREADS": "3"}
    with running_server(tmp_path, environment=environment) as server:
        hanging = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(6)]
        try:
            for connection in hanging:
                connection.sendall(said)
            began = time.monotonic()
            assert requests.get(f"{server.url}/healthz", timeout=30).ok
            assert time.monotonic() - began < 20
            for connection in hanging:
                connection.settimeout(20)
                while connection.recv(4096):  # the connection is closed, perhaps after a word
                    pass
        finally:
            for connection in hanging:
                connection.close()
        assert not any("Traceback" in line for line in server.output), server.output
