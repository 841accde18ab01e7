"""The live log: who may write it, what is stored once, and where it ends."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from server.cli.log import log as log_command
from server.logic import livelog
from server.logic.context import ANYBODY, Identity, Role
from server.logic.errors import BadField, DispatcherError, NotAllowed, NotFound
from server.logic.fields import JobReport
from server.logic.livelog import Word
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import Dispatcher, dispatcher_in

Record = dict[str, object]


def record(text: str, offset: int = 0, **more: object) -> Record:
    return {"name": "payload.stdout", "offset": offset, "text": text, **more}


class Log:
    """The live log of one job that was handed out."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.context = dispatcher.context
        dispatcher.submit({})
        job = dispatcher.get_job()
        self.job_id, self.claim = int(str(job["PandaID"])), str(job["claim_id"])
        self.attempt = int(str(job["attemptNr"]))

    def append(
        self, position: int, *records: object, identity: Identity = ANYBODY, **other: object
    ) -> livelog.Appended:
        values = {"attempt": self.attempt, "claim_id": self.claim, **other}
        report = JobReport(self.job_id, "", **values)  # type: ignore[arg-type]
        return livelog.append(self.context, report, position, records, identity)

    def later(self, *records: object) -> livelog.Appended:
        """Append where the log ends, after the interval."""
        self.dispatcher.clock.now += livelog.INTERVAL
        return self.append(self.read()[1], *records)

    def read(self, position: int = 0, **other: object) -> tuple[str, int]:
        """The text from a position on, and the next position."""
        asked = {"attempt": None, "identity": ANYBODY, **other}
        answer = livelog.read(self.context, self.job_id, position=position, **asked)  # type: ignore[arg-type]
        records, end = answer["records"], answer["position"]
        assert isinstance(records, list) and isinstance(end, int)
        return "".join(one["text"] for one in records), end


@pytest.fixture
def log(dispatcher: Dispatcher) -> Log:
    return Log(dispatcher)


def test_what_a_pilot_sends_is_read_in_order_and_from_where_the_reader_was(log: Log) -> None:
    assert log.append(0, record("one\n")).word is Word.STORED
    text, position = log.read()
    assert text == "one\n"
    assert log.later(record("zwei ü\n", 4), {**record("oh\n"), "name": "payload.stderr"}).word is Word.STORED
    assert log.read(position)[0] == "zwei ü\noh\n"
    assert log.read(position + 1)[0] == "oh\n", "a position inside a record is moved to the next"


def test_a_piece_that_is_sent_again_after_a_lost_answer_is_stored_once(log: Log) -> None:
    first = log.append(0, record("one\n"))
    again = log.append(0, record("one\n"))
    assert (again.word, again.position) == (Word.ELSEWHERE, first.position)
    assert log.read()[0] == "one\n"


def test_a_pilot_that_sends_too_often_is_told_to_wait_and_nothing_is_stored(log: Log) -> None:
    position = log.append(0, record("one\n")).position
    log.dispatcher.clock.now += livelog.INTERVAL / 2
    assert log.append(position, record("two\n")).word is Word.TOO_SOON
    log.dispatcher.clock.now += livelog.INTERVAL / 2
    assert log.append(position, record("two\n")).word is Word.STORED


def test_of_pieces_that_arrive_at_once_for_the_same_place_one_is_stored(log: Log) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: log.append(0, record(f"{number}\n")).word, range(8)))
    assert sorted(answers) == sorted([Word.STORED, *[Word.ELSEWHERE] * 7])
    assert len(log.read()[0]) == 2


def test_only_the_attempt_that_has_the_job_may_write(log: Log) -> None:
    for wrong in ({"attempt": log.attempt + 1}, {"attempt": None}, {"claim_id": ""}, {"claim_id": "another"}):
        assert log.append(0, record("x"), **wrong).word is Word.STRANGE
    log.job_id += 1
    assert log.append(0, record("x")).word is Word.STRANGE
    log.job_id -= 1
    assert log.read() == ("", 0)


def test_the_end_of_the_output_is_taken_after_the_end_of_the_job_but_not_from_a_lost_attempt(log: Log) -> None:
    log.dispatcher.finish(log.job_id)
    assert log.dispatcher.status(log.job_id) == "finished"
    assert log.append(0, record("the end\n")).word is Word.STORED
    assert livelog.read(log.context, log.job_id, None, 0, ANYBODY)["over"] is True


def test_users_read_their_own_logs_only(dispatcher: Dispatcher) -> None:
    alice, bob = (Identity(name, frozenset({Role.USER})) for name in ("alice", "bob"))
    (job_id,) = dispatcher.submit({}, identity=alice)
    assert livelog.read(dispatcher.context, job_id, None, 0, alice)["records"] == []
    with pytest.raises(NotAllowed):
        livelog.read(dispatcher.context, job_id, None, 0, bob)
    with pytest.raises(NotFound):
        livelog.read(dispatcher.context, job_id + 1, None, 0, alice)


def test_a_log_stops_at_its_limit(tmp_path: Path, empty_database: EmptyDatabase) -> None:
    with dispatcher_in(tmp_path, empty_database, live_log_limit=300) as small:
        log = Log(small)
        assert log.append(0, record("x" * 150)).word is Word.STORED
        assert log.later(record("x" * 150)).word is Word.FULL
        assert log.read()[0] == "x" * 150


def test_of_a_piece_that_the_disk_does_not_take_nothing_is_left(log: Log) -> None:
    log.append(0, record("good"))
    before, limits = log.read()[1], resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before + 100, limits[1]))
    try:
        with pytest.raises(DispatcherError, match="cannot be stored here"):
            log.later(record("x" * 200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert log.read() == ("good", before)
    assert log.later(record(", and on")).word is Word.STORED
    assert log.read()[0] == "good, and on"


@pytest.mark.parametrize(
    "bad",
    [
        "text",
        None,
        {"name": "", "text": "x"},
        {"name": "a\nb", "text": "x"},
        {"name": "n" * 256, "text": "x"},
        {"name": 1, "text": "x"},
        {"name": "n", "text": None},
        {"name": "n", "text": "x", "offset": -1},
        {"name": "n", "text": "x", "offset": True},
        {"name": "n", "text": "x", "dropped": 2**60},
        {"name": "n", "text": "x" * livelog.PIECE_LIMIT},
    ],
)
def test_what_is_no_record_is_refused_and_nothing_is_stored(log: Log, bad: object) -> None:
    with pytest.raises(BadField):
        log.append(0, record("good\n"), bad)
    with pytest.raises(BadField):
        log.append(0, *[record("x")] * 101)
    assert log.read() == ("", 0)


def test_names_of_files_are_no_names_of_ours(log: Log, tmp_path: Path) -> None:
    log.append(0, {**record("x"), "name": "../../../../tmp/evil"})
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.suffix == ".jsonl"]
    assert files == [Path("livelog") / f"{log.job_id}-{log.attempt}.jsonl"]


def test_old_logs_are_removed(log: Log) -> None:
    log.append(0, record("x"))
    log.dispatcher.clock.now += 6 * 86400
    assert livelog.sweep(log.context) == 0
    log.dispatcher.clock.now += 2 * 86400
    assert livelog.sweep(log.context) == 1
    assert log.read() == ("", 0)


# ---- the command line


class Server:
    """Answers job/get_log one after the other."""

    def __init__(self, *answers: dict[str, object]) -> None:
        self.answers = list(answers)
        self.asked: list[object] = []

    def get(self, _method: str, parameters: dict[str, object]) -> object:
        self.asked.append(parameters)
        return self.answers.pop(0)


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Server]]:
    from contextlib import contextmanager

    servers: list[Server] = []

    @contextmanager
    def server() -> Iterator[Server]:
        yield servers[0]

    monkeypatch.setattr("server.cli.log.server", server)
    monkeypatch.setattr("server.cli.log.PAUSE", 0.0)
    yield servers


def answer(position: int, *records: Record, over: bool = False) -> dict[str, object]:
    return {"attempt": 1, "status": "running", "over": over, "records": list(records), "position": position}


def test_a_log_is_shown_by_file_without_orders_to_the_terminal(asking: list[Server]) -> None:
    err = {**record("bad\n", dropped=70), "name": "payload.stderr"}
    asking.append(Server(answer(9, record("a\x1b[2Jb\r\nc\n"), err), answer(9)))
    said = CliRunner().invoke(log_command, ["17"])
    assert (
        said.output
        == "==> payload.stdout <==\na?[2Jb\nc\n\n==> payload.stderr <==\n[70 bytes were left out here]\nbad\n"
    )


def test_a_log_is_followed_until_the_job_is_over_and_a_moment_longer(asking: list[Server]) -> None:
    server = Server(
        answer(5, record("one\n")), answer(5), answer(5, over=True), answer(9, record("end\n"), over=True),
        answer(9, over=True), answer(9, over=True),
    )  # fmt: skip
    asking.append(server)
    said = CliRunner().invoke(log_command, ["17", "--follow", "--name", "payload.stdout"])
    assert said.output == "one\nend\n" and not server.answers


def test_records_are_json_for_programs_and_a_job_without_a_log_is_told(asking: list[Server]) -> None:
    asking.append(Server(answer(5, record("é")), answer(5)))
    said = CliRunner().invoke(log_command, ["17", "--json"])
    assert json.loads(said.output) == record("é")
    asking[0] = Server(answer(0))
    assert "has no live log" in CliRunner().invoke(log_command, ["17"]).output
