"""Clients that hang: they lose their connection, and nobody else waits for them."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
import requests

from tests.servers import running_server

HEAD = b"POST /server/panda/getJob HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"


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
