"""The servers of tests start on a port of their own, end with their block, and say why they did not start."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tests.components import missing, running_daemon

SERVE = "import http.server, sys; http.server.test(port=int(sys.argv[1]), bind='127.0.0.1')"


def test_a_server_listens_for_the_time_of_a_block_and_then_no_more(tmp_path: Path) -> None:
    with running_daemon("little", lambda port: [sys.executable, "-c", SERVE, str(port)], tmp_path) as port:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def test_a_server_that_does_not_start_is_told_with_what_it_said(tmp_path: Path) -> None:
    words = ["/bin/sh", "-c", "echo out; echo err >&2; echo more > other.log; exit 1"]
    with pytest.raises(RuntimeError) as raised, running_daemon("broken", lambda _port: words, tmp_path):
        pytest.fail("it did not start")
    said = str(raised.value)
    assert said.startswith("the broken server did not start:\n") and "out\nerr\n" in said and "more\n" in said


def test_a_port_that_a_stranger_took_is_given_up_for_another(tmp_path: Path) -> None:
    strangers: list[socket.socket] = []

    def command(port: int) -> list[str]:
        if not strangers:
            strangers.append(socket.create_server(("127.0.0.1", port)))
        return [sys.executable, "-c", SERVE, str(port)]

    with running_daemon("late", command, tmp_path) as port:
        assert port != strangers[0].getsockname()[1]
    strangers[0].close()


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_what_is_not_installed_skips_a_test_and_fails_continuous_integration(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match=r"xrdcp not installed .*apt-get install xrootd-client"):
        missing("xrdcp", "Debian: apt-get install xrootd-client")
