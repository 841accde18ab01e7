"""Bytes on the network: whose they are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from pilot.util.sockets import device_counters, own_network, traffic

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Both ends of a connection, of either family."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        listener = socket.create_server((request.param, 0), family=family)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener, socket.create_connection(listener.getsockname()[:2]) as client:
        server, _ = listener.accept()
        with server:
            yield client, server


def test_bytes_that_are_received_and_sent_are_counted(pair: Pair) -> None:
    client, server = pair
    before = traffic([os.getpid()])
    server.sendall(bytes(1000))
    received = 0
    while received < 1000:
        received += len(client.recv(1000))
    after = traffic([os.getpid()])
    # Both ends are ours; what the sender has sent counts once it is acknowledged.
    assert 1000 <= after - before <= 2100


def test_an_idle_connection_does_not_change_the_count(pair: Pair) -> None:
    client, server = pair
    server.sendall(b"x")
    client.recv(1)
    threading.Event().wait(0.1)
    first = traffic([os.getpid()])
    threading.Event().wait(0.3)
    assert traffic([os.getpid()]) == first


def test_the_connections_of_others_do_not_count(pair: Pair) -> None:
    client, server = pair
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as idle:
        child = subprocess.Popen(["sleep", "300"], pass_fds=[idle.fileno()])
    try:
        before = traffic([child.pid])
        server.sendall(bytes(5000))
        client.recv(5000)
        assert traffic([child.pid]) == before < 5000
    finally:
        child.kill()
        child.wait()


def test_processes_that_are_gone_have_no_traffic() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert traffic([child.pid]) == 0
    assert not own_network(child.pid)
    assert device_counters(child.pid) == (0, 0, 0, 0)


def test_a_process_in_a_network_namespace_of_its_own_is_asked_for_its_devices() -> None:
    program = """
import socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
print("ready", flush=True)
sys.stdin.readline()
server.sendall(bytes(1000))
client.recv(1000)
print("done", flush=True)
sys.stdin.readline()
"""
    command = ["unshare", "--net", sys.executable, "-c", program]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        if child.stdout.readline() != "ready\n":
            pytest.skip("no network namespace can be made here: that needs root and iproute2")
        assert own_network(child.pid)
        before = traffic([child.pid])
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "done\n"
        assert traffic([child.pid]) - before >= 2000
        received, sent, _, _ = device_counters(child.pid)
        assert received == sent >= 1000
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_the_node_s_own_devices_are_not_a_payload_s() -> None:
    assert not own_network(os.getpid())
    assert len(device_counters(os.getpid())) == 4
