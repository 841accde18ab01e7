"""The live log's thread: what it sends, what it leaves out, and that nothing can hold it up."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.common.lifecycle import PayloadEnded, PayloadStarted
from pilot.control.context import Context
from pilot.control.dispatcher import LogAnswer
from pilot.control.jobrun import JobRun
from pilot.control.livesinks import DispatcherSink, Events, HttpSink
from pilot.control.realtime import LiveLog, Record
from pilot.util.https import Credentials, HttpClient, Json, RequestFailed
from pilot.workflow.wires import LiveServer, check, live_server
from tests.unit.pilot.builders import SETTINGS, context, job_run
from tests.unit.pilot.webserver import Answer, WebServer

SOON = 30.0


class Taker:
    """A sink that remembers, and fails as long as it is told to."""

    interval = 0.0

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.failure: RequestFailed | None = None
        self.refusal = ""
        self.calls = 0
        self.closed = False
        self.happened = threading.Condition()

    def send(self, run: JobRun, records: Sequence[Record], limit: float) -> str:
        with self.happened:
            self.calls += 1
            self.happened.notify_all()
            if self.failure is not None:
                raise self.failure
            if not self.refusal:
                self.records += records
            return self.refusal

    def close(self) -> None:
        self.closed = True

    def text(self, name: str = "payload.stdout") -> str:
        return "".join(one.text for one in self.records if one.name == name)

    def wait_for(self, text: str) -> None:
        with self.happened:
            assert self.happened.wait_for(lambda: text in self.text(), SOON), self.records

    def wait_for_calls(self, number: int) -> None:
        with self.happened:
            assert self.happened.wait_for(lambda: self.calls >= number, SOON)


class Life:
    """A live log at work on one job."""

    def __init__(self, shared: Context) -> None:
        self.shared = shared
        self.sink = Taker()
        self.log = LiveLog(shared, self.sink, "the taker")
        self.run = job_run(shared.workdir / "PanDA_Pilot-254")
        self.run.workdir.mkdir()
        self.thread = threading.Thread(target=self.log.run, name="live-log")

    def start(self) -> None:
        (self.run.workdir / "payload.stdout").touch()
        self.log.notice(self.run, PayloadStarted())
        self.thread.start()

    def write(self, data: bytes, name: str = "payload.stdout") -> None:
        with (self.run.workdir / name).open("ab") as stream:
            stream.write(data)

    def end(self) -> None:
        self.log.notice(self.run, PayloadEnded(None))
        self.log.close()
        self.thread.join(SOON)
        assert not self.thread.is_alive()


def quick(**changes: object) -> object:
    return replace(SETTINGS.realtime, **{"interval": 0.01, "retry_delay_max": 0.02, **changes})  # type: ignore[arg-type]


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    settings = replace(SETTINGS, realtime=quick(files="deep/run.log, ../out"))  # type: ignore[arg-type]
    made = Life(context(tmp_path, settings=settings))
    yield made
    if made.thread.is_alive():
        made.log.close()
        made.thread.join(SOON)


def test_output_is_sent_while_it_is_written_and_to_its_last_byte(life: Life) -> None:
    life.start()
    life.write(b"one\n")
    life.sink.wait_for("one\n")
    life.write("zwei ü\nno end".encode())
    (life.run.workdir / "deep").mkdir()
    life.write(b"named\n", "deep/run.log")
    life.end()
    assert life.sink.text() == "one\nzwei ü\nno end"
    assert life.sink.text("deep/run.log") == "named\n"
    assert life.sink.closed


def test_secrets_and_control_characters_do_not_leave_the_node(life: Life) -> None:
    life.start()
    life.shared.secrets.add("known-canary-value")
    life.write(b"a known-canary-value, and get https://u:canary@h/f?token=canary now\n\x1b[31mred\x00\xff\tok\n")
    life.end()
    assert life.sink.text() == "a ***, and get https://u:***@h/f?token=*** now\n?[31mred?\ufffd\tok\n"


def test_a_sink_that_is_down_is_tried_again_and_gets_everything_in_order(life: Life) -> None:
    life.sink.failure = RequestFailed("no", temporary=True)
    life.start()
    life.write(b"one\n")
    life.sink.wait_for_calls(3)
    life.write(b"two\n")
    life.sink.failure = None
    life.sink.wait_for("two\n")
    life.end()
    assert life.sink.text() == "one\ntwo\n"


def test_a_payload_that_writes_faster_than_is_sent_has_its_newest_output_sent(tmp_path: Path) -> None:
    settings = replace(SETTINGS, realtime=quick(backlog=1000, piece=500))  # type: ignore[arg-type]
    life = Life(context(tmp_path, settings=settings))
    life.sink.failure = RequestFailed("no", temporary=True)
    life.start()
    life.write(b"first\n")
    life.sink.wait_for_calls(1)
    life.write(b"".join(b"line %d\n" % number for number in range(10000)))
    life.sink.failure = None
    life.end()
    text = life.sink.text()
    assert text.startswith("first\nline ") and text.endswith("line 9999\n") and len(text) <= 1100
    size = (life.run.workdir / "payload.stdout").stat().st_size
    assert len(text) + sum(record.dropped for record in life.sink.records) == size


def test_a_refusal_ends_the_log_of_a_job_and_is_told_with_what_was_not_sent(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    life.sink.refusal = "it is full"
    life.start()
    with caplog.at_level(logging.INFO, "pilot.test"):
        life.write(b"12345\n")
        life.sink.wait_for_calls(1)
        life.end()
    assert "its live log ends here: it is full; 6 bytes of its output were not sent" in caplog.text
    assert life.sink.calls == 1


def test_a_pilot_that_ends_waits_for_a_dead_sink_only_seconds(life: Life) -> None:
    life.sink.failure = RequestFailed("no", temporary=True)
    life.start()
    life.write(b"x\n")
    begun = time.monotonic()
    life.end()
    assert time.monotonic() - begun < SOON / 2


def test_a_payload_that_is_gone_with_its_directory_is_still_sent(life: Life) -> None:
    (life.run.workdir / "payload.stdout").write_text("short\n")
    life.log.notice(life.run, PayloadStarted())
    (life.run.workdir / "payload.stdout").unlink()
    life.thread.start()
    life.end()
    assert life.sink.text() == "short\n"


# ---- sinks


class Server:
    """What a dispatcher answers to append_log, one after the other."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.pieces: list[dict[str, Json]] = []

    def append_log(self, piece: dict[str, Json], claim: str, limit: float) -> LogAnswer:
        self.pieces.append(piece)
        answer = self.answers.pop(0)
        if isinstance(answer, RequestFailed):
            raise answer
        assert isinstance(answer, LogAnswer)
        return answer


ONE = [Record("payload.stdout", 0, "one\n")]


def sink_of(server: Server) -> DispatcherSink:
    return DispatcherSink(server)  # type: ignore[arg-type]  # all that is used of a dispatcher


def test_a_piece_whose_answer_was_lost_is_known_as_stored_by_the_length_of_the_log(tmp_path: Path) -> None:
    run = job_run(tmp_path)
    server = Server(RequestFailed("lost", temporary=True), LogAnswer("elsewhere", 80), LogAnswer("stored", 120))
    sink = sink_of(server)
    with pytest.raises(RequestFailed):
        sink.send(run, ONE, 1.0)
    assert sink.send(run, ONE, 1.0) == ""
    assert sink.send(run, ONE, 1.0) == ""
    assert [piece["position"] for piece in server.pieces] == [0, 0, 80]


def test_a_log_that_somebody_else_has_begun_is_gone_on_with(tmp_path: Path) -> None:
    run = job_run(tmp_path)
    server = Server(LogAnswer("elsewhere", 80), LogAnswer("stored", 120))
    sink = sink_of(server)
    with pytest.raises(RequestFailed) as raised:
        sink.send(run, ONE, 1.0)
    assert raised.value.temporary
    assert sink.send(run, ONE, 1.0) == "" and server.pieces[1]["position"] == 80


@pytest.mark.parametrize(("result", "words"), [("full", "no more"), ("tobekilled", "no longer"), ("odd", "'odd'")])
def test_what_the_dispatcher_does_not_want_is_not_sent_again(tmp_path: Path, result: str, words: str) -> None:
    assert words in sink_of(Server(LogAnswer(result, 5))).send(job_run(tmp_path), ONE, 1.0)


def test_a_log_server_gets_an_event_for_each_line_and_neither_token_nor_proxy(tmp_path: Path, web: WebServer) -> None:
    shared, run = context(tmp_path), job_run(tmp_path)
    web.route("/tag", Answer(b"fail", 503), Answer(b"ok"))
    sink = HttpSink(HttpClient(Credentials(), 2, 5, "pilotkit/test", web.url), f"{web.url}/tag", Events(shared, "mine"))
    records = [Record("payload.stdout", 10, "one\r\n\ntwo ü\n", 10), Record("payload.stderr", 0, "", 7)]
    try:
        with pytest.raises(RequestFailed) as raised:
            sink.send(run, records, 5.0)
        assert raised.value.temporary
        assert sink.send(run, records, 5.0) == ""
        assert sink.send(run, [Record("payload.stdout", 0, "\n")], 5.0) == ""
    finally:
        sink.close()
    first, again = web.to("/tag")
    assert first.body == again.body and "authorization" not in again.headers
    events = json.loads(again.body)
    assert [(one["file"], one["message"]) for one in events] == [
        ("payload.stdout", "[10 bytes were left out here]"),
        ("payload.stdout", "one"),
        ("payload.stdout", "two ü"),
        ("payload.stderr", "[7 bytes were left out here]"),
    ]
    assert [one["sequence"] for one in events] == [1, 2, 3, 4]
    assert events[0]["logname"] == "mine" and events[0]["PandaID"] == run.jobid and events[0]["@timestamp"]


# ---- the option


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", LiveServer()),
        ("logstash;http://h:8080", LiveServer("http://h:8080")),
        ("logstash;https://h;8080", LiveServer("https://h:8080")),
        ("fluentd;http://h:9880/panda.log", LiveServer("http://h:9880/panda.log")),
        ("http://h/x", LiveServer("http://h/x")),
        ("Logstash;http://[::1];80", LiveServer("http://[::1]:80")),
        ("stomp;stomp+ssl://h:61614/topic/a", LiveServer("stomp+ssl://h:61614/topic/a", True)),
        ("activemq;stomp://h", LiveServer("stomp://h", True)),
    ],
)
def test_a_server_is_given_as_type_url_and_port(text: str, expected: LiveServer) -> None:
    assert live_server(text) == expected


@pytest.mark.parametrize(
    "text",
    ["x", "logstash", "logstash;h:80", "logstash;ftp://h", "nobody;http://h", "stomp;http://h", "logstash;stomp://h",
     "logstash;http://h;http", "logstash;http://h:99999", "logstash;http://h;1;2", ";;", "logstash;http://[x"],
)  # fmt: skip
def test_what_is_no_server_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="--realtime-logging-server: "):
        live_server(text)


def test_a_password_in_the_option_is_not_shown() -> None:
    assert "canary" not in str(live_server("http://user:canary@h/x"))
    with pytest.raises(ValueError) as raised:
        live_server("nobody;http://user:canary@h")
    assert "canary" not in str(raised.value)


def test_output_crosses_a_network_only_secured(tmp_path: Path) -> None:
    option = ("--use-realtime-logging", "--realtime-logging-server", "http://192.0.2.1/x")
    shared = context(tmp_path, *option)
    with pytest.raises(ValueError, match="not secured"):
        check(shared.args, SETTINGS)
    check(shared.args, replace(SETTINGS, realtime=replace(SETTINGS.realtime, insecure=True)))
    check(replace(shared.args, realtime_logging_server="https://192.0.2.1/x"), SETTINGS)
    check(replace(shared.args, realtime_logging_server="http://127.0.0.1/x"), SETTINGS)
    with pytest.raises(ValueError, match="without a dispatcher"):
        check(replace(shared.args, realtime_logging_server="", job="file"), SETTINGS)
