"""The event service's messages, the socket they travel on, and a payload that is run with a hook of somebody else's."""

from __future__ import annotations

import json
import logging
import os
import resource
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pilot.common.exception import ESRecoverable, MessageFailure, PilotException
from pilot.eventservice.esprocess import esmessage
from pilot.eventservice.esprocess.eshook import ESHook, Payload
from pilot.eventservice.esprocess.esmanager import ESManager
from pilot.eventservice.esprocess.esmessage import MessageServer, OutMessage, parse_out_message
from pilot.eventservice.esprocess.esprocess import ESProcess
from pilot.util.guarded import Launcher
from pilot.util.https import Json

LOG = logging.getLogger("pilot.test")
SOON = 20.0


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("/a/out.root,1-2-3-4-5,CPU:12,WALL:13", ("1-2-3-4-5", "finished", ["/a/out.root"], 12.0, 13.0, "")),
        ("a,b,Range-1,CPU: 1.5 , WALL:2", ("Range-1", "finished", ["a", "b"], 1.5, 2.0, "")),
        ("a,Range-1", ("Range-1", "finished", ["a"], 0.0, 0.0, "")),
        ("ERR_ATHENAMP_PROCESS 1-2: Failed: why", ("1-2", "failed", [], 0.0, 0.0, "ERR_ATHENAMP_PROCESS: Failed: why")),
        ("ERR_TE_FATAL 1-2: no", ("1-2", "fatal", [], 0.0, 0.0, "ERR_TE_FATAL: no")),
        ("ERR_X 1-2 : ", ("1-2", "failed", [], 0.0, 0.0, "ERR_X: ")),
    ],
)
def test_a_message_says_what_became_of_a_range(text: str, meant: tuple[str, str, list[str], float, float, str]) -> None:
    said = parse_out_message(text)
    assert (said["id"], said["status"], said["output"], said["cpu"], said["wall"], said["message"]) == meant


@pytest.mark.parametrize(
    "text", ["hello", "", ",", "a,", ",1-2", "a,b c", "ERR_X", "CPU:1,WALL:2", "1-2,CPU:1", "ERR_X : text", "\x00,\x00"]
)
def test_what_is_no_message_is_refused_with_its_words(text: str) -> None:
    with pytest.raises(MessageFailure, match="none that is known"):
        parse_out_message(text)


class Hook(ESHook):
    """Gives out some ranges and remembers what it is told. absent: how often there are none yet, at first."""

    def __init__(self, program: str = "", number: int = 3, absent: int = 0) -> None:
        self.program = program
        self.left = [{"eventRangeID": f"1-2-3-{n}-1", "startEvent": n, "lastEvent": n} for n in range(number)]
        self.absent = absent
        self.said: list[OutMessage] = []

    def get_payload(self) -> Payload:
        program = textwrap.dedent(self.program)
        return {"executable": [sys.executable, "-c", program], "output_file": "out", "error_file": "err"}

    def get_event_ranges(self, num_ranges: int = 1) -> list[dict[str, Json]]:
        if self.absent:
            self.absent -= 1
            raise ESRecoverable("the server is away")
        given, self.left = self.left[:num_ranges], self.left[num_ranges:]
        return [dict(one) for one in given]

    def handle_out_message(self, message: OutMessage) -> None:
        self.said.append(message)


@contextmanager
def serving(folder: Path, hook: ESHook) -> Iterator[str]:
    server = MessageServer(folder, hook.get_event_ranges, hook.handle_out_message, LOG, retry_delay=0.05)
    path = server.start()
    try:
        yield path
    finally:
        server.close()
        server.close()
        assert not (folder / esmessage.SOCKET).exists()


def connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(SOON)
    connection.connect(path)
    return connection


def line_of(connection: socket.socket) -> str:
    text = b""
    while not text.endswith(b"\n"):
        block = connection.recv(1)
        assert block, "the connection has ended"
        text += block
    return text.decode().strip()


def test_each_question_is_answered_with_one_range_and_then_with_no_more(tmp_path: Path) -> None:
    hook = Hook(number=2)
    with serving(tmp_path, hook) as path, connected(path) as one, connected(path) as other:
        answers = []
        for connection in (one, other, one):
            connection.sendall(b"Ready for events\n")
            answers.append(line_of(connection))
    assert [json.loads(answer)[0]["startEvent"] for answer in answers[:2]] == [0, 1]
    assert answers[2] == "No more events"


def test_a_payload_waits_while_the_source_of_ranges_is_silent(tmp_path: Path) -> None:
    with serving(tmp_path, Hook(absent=2)) as path, connected(path) as one:
        one.sendall(b"Ready for events\n")
        assert "1-2-3-0-1" in line_of(one)


def test_last_words_are_heard_after_the_payload_is_gone(tmp_path: Path) -> None:
    hook = Hook()
    with serving(tmp_path, hook) as path:
        for number in range(50):
            with connected(path) as one:
                one.sendall(b"a,1-2-3-%d-1,CPU:1,WALL:1\nhalf a mess" % number)
    assert len(hook.said) == 50


def test_nonsense_harms_only_its_sender(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hook = Hook()
    with serving(tmp_path, hook) as path, connected(path) as bad, connected(path) as good:
        bad.sendall(b"what\n\xff\xfe\x00\n\n" + b"x" * 10_000 + b"\n")
        with pytest.raises(OSError):
            for _ in range(1000):
                bad.sendall(b"y" * 65536)
        good.sendall(b"a,1-2,CPU:1,WALL:1\nReady for events\n")
        assert "1-2-3-0-1" in line_of(good)
    assert [said["id"] for said in hook.said] == ["1-2"]
    assert "none that is known: 'what'" in caplog.text
    assert "a message of more than 65536 bytes; it is cut off" in caplog.text


def test_a_payload_that_talks_nonsense_all_the_time_does_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path, Hook()) as path, connected(path) as one:
        one.sendall(b"nonsense\n" * 10_000 + b"Ready for events\n")
        assert "1-2-3-0-1" in line_of(one)
    assert len(caplog.records) == 100
    assert "none that is known: 'nonsense'; more of this is not told" in caplog.text


def test_a_payload_with_too_many_connections_leaves_the_pilot_half_of_its_descriptors(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = max(int(one.name) for one in Path("/proc/self/fd").iterdir()) + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        serving_few = serving(tmp_path, Hook(number=0))
        path = serving_few.__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with ExitStack() as stack:
        stack.push(serving_few)
        for _ in range(few // 2):
            one = stack.enter_context(connected(path))
            one.sendall(b"Ready for events\n")
            assert line_of(one) == "No more events"
        assert stack.enter_context(connected(path)).recv(1) == b""


def test_with_all_connections_that_a_payload_gets_the_pilot_can_still_start_commands(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    program = """
        import os, socket, sys, time
        kept = []
        while len(kept) < 1100:
            kept.append(socket.socket(socket.AF_UNIX))
            try:
                kept[-1].connect(sys.argv[1])
            except BlockingIOError:
                kept.pop().close()
                time.sleep(0.001)
        print("all", flush=True)
        sys.stdin.read()
    """
    try:
        with (
            serving(tmp_path, Hook()) as path,
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(program), path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as payload,
            (tmp_path / "out").open("wb") as out,
        ):
            assert payload.stdout is not None and payload.stdout.readline() == b"all\n"
            started = Launcher().start(["true"], cwd=tmp_path, env={"PATH": os.defpath}, stdout=out, stderr=out)
            assert started.wait().exit_code == 0
            payload.communicate(timeout=SOON)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_source_that_hangs_keeps_nobody_from_leaving(tmp_path: Path) -> None:
    let_go = threading.Event()
    asked = threading.Event()

    class Hanging(Hook):
        def get_event_ranges(self, num_ranges: int = 1) -> list[dict[str, Json]]:
            asked.set()
            let_go.wait(SOON)
            return []

    with serving(tmp_path, Hanging()) as path, connected(path) as one:
        one.sendall(b"Ready for events\n")
        assert asked.wait(SOON)
    let_go.set()
    for thread in threading.enumerate():
        if thread.name == "event ranges":
            thread.join(SOON)


def test_a_path_that_is_too_long_for_a_socket_is_told_as_a_name(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 150)
    deep.mkdir()
    with serving(deep, Hook()) as path:
        assert path == esmessage.SOCKET


PROGRAM = """
    import json, os, socket
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(os.environ["PILOT_EVENTRANGECHANNEL"])
    stream = channel.makefile("rw")
    while True:
        stream.write("Ready for events\\n"); stream.flush()
        answer = stream.readline().strip()
        if answer == "No more events":
            break
        for one in json.loads(answer):
            stream.write("out,%s,CPU:1,WALL:1\\n" % one["eventRangeID"])
    print("done")
"""


def test_a_hooks_payload_runs_to_its_end_and_the_hook_hears_everything(tmp_path: Path) -> None:
    hook = Hook(PROGRAM)
    outcome = ESManager(hook, tmp_path, Launcher(), LOG).run()
    assert outcome.exit_code == 0, (tmp_path / "err").read_text()
    assert (tmp_path / "out").read_text() == "done\n"
    assert [(said["id"], said["status"]) for said in hook.said] == [(f"1-2-3-{n}-1", "finished") for n in range(3)]


def test_a_hooks_payload_can_be_ended(tmp_path: Path) -> None:
    process = ESProcess(Hook("import time; time.sleep(60)"), tmp_path, Launcher(), LOG)
    process.start()
    process.stop(5.0)
    assert process.wait().signal == 15


def test_a_hook_without_a_payload_is_told_so(tmp_path: Path) -> None:
    class Empty(Hook):
        def get_payload(self) -> Payload:
            return {}

    with pytest.raises(PilotException, match="no payload with an executable"):
        ESProcess(Empty(), tmp_path, Launcher(), LOG).start()
