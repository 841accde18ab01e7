"""The reporter: updates go out in order, the last one whatever happens, and what cannot go out is in the spool."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.control.dispatcher import Dispatcher, UpdateAnswer
from pilot.control.jobrun import JobRun
from pilot.control.reporter import Reporter, deliver_orphans
from pilot.control.updates import Body
from pilot.util.blot import Secrets
from pilot.util.https import HttpClient, Json, RequestFailed, RetryPolicy
from pilot.util.spool import Spool, SpooledUpdate
from tests.unit.pilot.builders import LOG, job_run
from tests.unit.pilot.webserver import Answer, Handler, WebServer

UPDATE = "/server/panda/updateJob"
OK = Answer({"StatusCode": 0, "command": "NULL"})
BUSY = Answer(b"busy", 503)
# Time in which whatever is waited for happens even on a very busy machine (s).
SOON = 30.0


class Office:
    """A reporter at work, what it has told, and a server that takes its updates."""

    def __init__(self, web: WebServer, http: HttpClient, tmp_path: Path, policy: RetryPolicy) -> None:
        self.web = web
        web.route("/server/panda/isAlive", Answer(b"alive=yes"))
        web.route(UPDATE, OK)
        self.root = tmp_path / "spool"
        self.spool = Spool(self.root)
        self.job = job_run(tmp_path / "job")
        self.sink = Dispatcher(http, web.url, policy, threading.Event())
        self.answers: list[UpdateAnswer] = []
        self.ends: list[tuple[JobRun, bool]] = []
        self.ended = threading.Event()
        self.reporter = Reporter(self.sink, self.spool, policy, self._answered, self._reported, LOG)
        self._thread = threading.Thread(target=self.reporter.run, name="updates")

    def _answered(self, run: JobRun, answer: UpdateAnswer) -> None:
        self.answers.append(answer)

    def _reported(self, run: JobRun, delivered: bool) -> None:
        self.ends.append((run, delivered))
        self.ended.set()

    def open(self) -> None:
        self._thread.start()

    def send(self, state: str, job: JobRun | None = None, **more: Json) -> None:
        run = job or self.job
        body: Body = {"jobId": run.jobid, "state": state, **more}
        self.reporter.send(run, body, is_final=state in ("finished", "failed", "holding"))

    def close(self) -> None:
        """End the reporter; all that was queued has been delivered or given up when this returns."""
        if self._thread.is_alive():
            # Heartbeats alone are never given up: the end of their job has to be known.
            self.reporter.hurry(0.0)
            self.send("failed")
        self.reporter.close()
        if self._thread.ident is not None:
            self._thread.join()

    def arrived(self) -> list[Json]:
        """States of the updates as the server saw them."""
        return [asked.json()["state"] for asked in self.web.to(UPDATE)]

    def spooled(self) -> list[str]:
        """States of the updates that are on disk."""
        return [path.name.split("_")[2].partition(".")[0] for path in sorted(self.root.glob("*/*.update.json"))]


QUICK = RetryPolicy(attempts=2, delay=0.001, delay_max=0.002, patience=0.05)
# A heartbeat that failed waits a minute, a final update hardly at all.
SLOW = RetryPolicy(attempts=2, delay=3000.0, delay_max=0.01, patience=10_000.0)
# A final update waits for hours as well, unless there is a hurry.
PATIENT = RetryPolicy(attempts=2, delay=3000.0, delay_max=3000.0, patience=10_000.0)


@pytest.fixture
def policy() -> RetryPolicy:
    return QUICK


@pytest.fixture
def office(web: WebServer, http: HttpClient, tmp_path: Path, policy: RetryPolicy) -> Iterator[Office]:
    made = Office(web, http, tmp_path, policy)
    try:
        yield made
    finally:
        made.close()
        made.spool.close()


def until(condition: object, office: Office) -> None:
    """Wait until the server has seen what the condition asks for."""
    deadline = threading.Event()
    for _ in range(int(SOON / 0.005)):
        if condition():  # type: ignore[operator]
            return
        deadline.wait(0.005)
    raise AssertionError(f"never came: {office.arrived()}, spooled {office.spooled()}")


def test_updates_arrive_in_order_and_nothing_is_left_on_disk(office: Office) -> None:
    office.open()
    for state in ("starting", "running", "finished"):
        office.send(state)
    assert office.ended.wait(SOON)
    assert office.arrived() == ["starting", "running", "finished"]
    assert office.ends == [(office.job, True)]
    assert office.spooled() == [] and not office.reporter.gave_up


def test_every_answer_is_told(office: Office) -> None:
    office.web.route(UPDATE, OK, Answer({"StatusCode": 0, "command": "tobekilled", "next_heartbeat": 60}))
    office.open()
    office.send("starting")
    office.send("finished")
    assert office.ended.wait(SOON)
    assert office.answers == [UpdateAnswer(), UpdateAnswer(("tobekilled",), 60.0)]


def test_updates_go_under_the_claim_of_their_job(office: Office) -> None:
    office.open()
    office.send("finished")
    assert office.ended.wait(SOON)
    assert office.web.to(UPDATE)[0].headers["x-pilotkit-claim"] == "c1"


def test_an_update_that_fails_keeps_its_place(office: Office) -> None:
    office.web.route(UPDATE, BUSY, BUSY, OK)
    office.open()
    for state in ("starting", "running", "finished"):
        office.send(state)
    assert office.ended.wait(SOON)
    assert office.arrived() == ["starting", "starting", "starting", "running", "finished"]


def test_a_final_update_is_on_disk_before_it_is_sent(office: Office) -> None:
    on_disk: list[list[str]] = []

    def look(handler: Handler) -> None:
        on_disk.append(office.spooled())
        body = b'{"StatusCode": 0}'
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    office.web.route(UPDATE, Answer(act=look))
    office.open()
    office.send("finished")
    assert office.ended.wait(SOON)
    assert on_disk == [["finished"]]


@pytest.mark.parametrize("policy", [SLOW])
def test_a_heartbeat_that_failed_is_on_disk(office: Office) -> None:
    office.web.route(UPDATE, BUSY)
    office.open()
    office.send("running")
    until(lambda: office.spooled() == ["running"], office)


@pytest.mark.parametrize("policy", [SLOW])
def test_heartbeats_that_pile_up_become_one_with_the_newest_figures(office: Office) -> None:
    office.web.route(UPDATE, BUSY)
    office.open()
    office.send("starting")
    until(lambda: office.arrived() == ["starting"], office)
    for second in range(100):
        office.send("running", cpuConsumptionTime=second)
    office.web.route(UPDATE, OK)
    office.send("finished")
    assert office.ended.wait(SOON)
    assert office.arrived() == ["starting", "starting", "running", "finished"]
    assert office.web.to(UPDATE)[2].json()["cpuConsumptionTime"] == 99


@pytest.mark.parametrize("policy", [SLOW])
def test_only_heartbeats_of_one_job_in_one_state_become_one(office: Office, tmp_path: Path) -> None:
    office.web.route(UPDATE, BUSY)
    other = job_run(tmp_path / "other", PandaID=999)
    office.open()
    office.send("starting")
    until(lambda: office.arrived() == ["starting"], office)
    office.send("starting")
    office.send("running")
    office.send("running", job=other)
    office.send("running")
    office.web.route(UPDATE, OK)
    office.send("finished")
    assert office.ended.wait(SOON)
    sent = [(asked.json()["jobId"], asked.json()["state"]) for asked in office.web.to(UPDATE)[1:]]
    assert sent == [
        ("254", "starting"),
        ("254", "starting"),
        ("254", "running"),
        ("999", "running"),
        ("254", "running"),
        ("254", "finished"),
    ]


@pytest.mark.parametrize("policy", [SLOW])
def test_a_final_update_ends_the_long_wait_of_a_heartbeat(office: Office) -> None:
    office.web.route(UPDATE, BUSY, OK)
    office.open()
    office.send("running")
    until(lambda: office.arrived() == ["running"], office)
    office.send("finished")
    assert office.ended.wait(SOON)
    assert office.arrived() == ["running", "running", "finished"]


@pytest.mark.parametrize("policy", [RetryPolicy(attempts=2, delay=0.001, delay_max=0.002, patience=0.0)])
def test_a_final_update_that_is_refused_ten_times_is_delivered(office: Office) -> None:
    office.web.route(UPDATE, *[BUSY] * 10, OK)
    office.open()
    office.send("finished")
    assert office.ended.wait(SOON)
    assert office.arrived() == ["finished"] * 11
    assert office.ends == [(office.job, True)]
    assert office.spooled() == []


@pytest.mark.parametrize(
    "answer", [BUSY, Answer(b""), Answer({"StatusCode": 30}), Answer(b"", 503, {"Retry-After": "86400"})]
)
def test_a_final_update_that_never_gets_through_stays_in_the_spool(office: Office, answer: Answer) -> None:
    office.web.route(UPDATE, answer)
    office.open()
    office.send("running")
    office.send("failed")
    assert office.ended.wait(SOON)
    assert office.ends == [(office.job, False)]
    assert office.spooled() == ["running", "failed"]
    assert office.reporter.gave_up


def test_a_server_that_is_gone_leaves_everything_in_the_spool(office: Office) -> None:
    office.web.close()
    office.open()
    office.send("starting")
    office.send("failed")
    assert office.ended.wait(SOON)
    assert office.ends == [(office.job, False)]
    assert office.spooled() == ["starting", "failed"]


def test_after_one_update_was_given_up_the_next_job_is_tried_once(office: Office, tmp_path: Path) -> None:
    office.web.route(UPDATE, BUSY)
    other = job_run(tmp_path / "other", PandaID=999)
    office.open()
    office.send("failed")
    assert office.ended.wait(SOON)
    office.ended.clear()
    tries = len(office.arrived())
    office.send("failed", job=other)
    assert office.ended.wait(SOON)
    assert len(office.arrived()) == tries + 1
    assert office.ends == [(office.job, False), (other, False)]


@pytest.mark.parametrize("policy", [PATIENT])
def test_a_hurry_ends_the_wait_and_a_server_that_does_not_answer_gets_one_more_try(office: Office) -> None:
    office.web.route(UPDATE, BUSY)
    office.open()
    office.send("finished")
    until(lambda: office.arrived() == ["finished"], office)
    office.reporter.hurry(5.0)  # enough for an answer, and not for another wait
    assert office.ended.wait(SOON)
    assert office.arrived() == ["finished"] * 2
    assert office.ends == [(office.job, False)]
    assert office.spooled() == ["finished"]


@pytest.mark.parametrize("policy", [PATIENT])
def test_in_a_hurry_a_server_that_answers_still_gets_everything(office: Office) -> None:
    office.reporter.hurry(SOON / 2)
    office.open()
    office.send("running")
    office.send("failed")
    assert office.ended.wait(SOON)
    assert (office.arrived(), office.spooled()) == (["running", "failed"], [])


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (Answer({"StatusCode": 60, "errorDialog": "wrong role"}), []),
        (Answer(b"bad argument", 400), []),
        (Answer(b"token expired", 403), ["finished"]),
        (Answer(b"", 401), ["finished"]),
        (Answer(b"", 404), ["finished"]),
        (Answer(b"", 302, {"Location": "/login"}), ["finished"]),
    ],
)
def test_a_refusal_ends_the_tries_and_only_a_verdict_on_the_update_takes_it_off_the_disk(
    office: Office, answer: Answer, kept: list[str]
) -> None:
    office.web.route(UPDATE, answer)
    office.open()
    office.send("finished")
    assert office.ended.wait(SOON)
    assert office.arrived() == ["finished"]
    assert office.ends == [(office.job, False)]
    assert office.spooled() == kept


def test_a_heartbeat_that_is_refused_does_not_hold_up_the_rest(office: Office) -> None:
    office.web.route(UPDATE, Answer(b"", 400), OK)
    office.open()
    office.send("running")
    office.send("finished")
    assert office.ended.wait(SOON)
    assert office.arrived() == ["running", "finished"]
    assert office.ends == [(office.job, True)]


def test_closing_delivers_what_is_queued(office: Office) -> None:
    for state in ("starting", "running", "finished"):
        office.send(state)
    office.reporter.close()
    office.open()
    assert office.ended.wait(SOON)
    assert office.arrived() == ["starting", "running", "finished"]


def test_without_a_spool_updates_still_go_out(web: WebServer, http: HttpClient, tmp_path: Path) -> None:
    web.route("/server/panda/isAlive", Answer(b"alive=yes"))
    web.route(UPDATE, BUSY, OK)
    ended = threading.Event()
    sink = Dispatcher(http, web.url, QUICK, threading.Event())
    reporter = Reporter(sink, None, QUICK, lambda run, answer: None, lambda run, delivered: ended.set(), LOG)
    thread = threading.Thread(target=reporter.run)
    thread.start()
    job = job_run(tmp_path)
    reporter.send(job, {"jobId": "254", "state": "finished"}, is_final=True)
    assert ended.wait(SOON)
    reporter.close()
    thread.join()
    assert [asked.json()["state"] for asked in web.to(UPDATE)] == ["finished"] * 2


@pytest.mark.parametrize(("status", "has_better", "delivered"), [
    (403, True, True), (401, True, True), (403, False, False), (404, True, False), (400, True, False),
])  # fmt: skip
def test_an_update_that_was_turned_away_goes_out_with_better_credentials_if_there_are_any(
    web: WebServer, http: HttpClient, tmp_path: Path, status: int, has_better: bool, delivered: bool
) -> None:
    web.route("/server/panda/isAlive", Answer(b"alive=yes"))
    web.route(UPDATE, Answer(b"who are you?", status), OK)
    ended, looked = threading.Event(), []

    def readmit() -> bool:
        looked.append(1)
        http.use("better")
        return has_better

    ends: list[bool] = []

    def reported(run: JobRun, done: bool) -> None:
        ends.append(done)
        ended.set()

    sink = Dispatcher(http, web.url, QUICK, threading.Event())
    spool = Spool(tmp_path / "spool")
    reporter = Reporter(sink, spool, QUICK, lambda run, answer: None, reported, LOG, readmit)
    thread = threading.Thread(target=reporter.run)
    thread.start()
    reporter.send(job_run(tmp_path), {"jobId": "254", "state": "finished"}, is_final=True)
    assert ended.wait(SOON)
    reporter.close()
    thread.join()
    spool.close()
    assert ends == [delivered]
    assert bool(looked) is (status in (401, 403))
    shown = ["Bearer sesame", *(["Bearer better"] if delivered else [])]
    assert [asked.headers["authorization"] for asked in web.to(UPDATE)] == shown
    # What was turned away is there for a pilot with better credentials; what was judged is not.
    left = len(list((tmp_path / "spool").glob("*/*.update.json")))
    assert left == (0 if delivered or status == 400 else 1)


# ---- what an earlier pilot left


def leave(office: Office, *states: str, server: str = "") -> None:
    """A dead pilot's spool with updates for the office's server, or another."""
    dead = Spool(office.root)
    for number, state in enumerate(states):
        dead.add(SpooledUpdate(server or office.sink.url, "old-claim", {"jobId": "77", "state": state}), number)
    dead.close()


def test_what_an_earlier_pilot_left_is_delivered_in_order_under_its_claim(office: Office) -> None:
    leave(office, "running", "finished")
    assert deliver_orphans(office.spool, office.sink, LOG) == 2
    assert office.arrived() == ["running", "finished"]
    assert {asked.headers["x-pilotkit-claim"] for asked in office.web.to(UPDATE)} == {"old-claim"}
    assert office.spooled() == []
    assert deliver_orphans(office.spool, office.sink, LOG) == 0


def test_what_was_left_for_another_server_stays_for_a_pilot_of_that_server(office: Office) -> None:
    leave(office, "finished", server="http://elsewhere:25080")
    assert deliver_orphans(office.spool, office.sink, LOG) == 0
    assert (office.arrived(), office.spooled()) == ([], ["finished"])


@pytest.mark.parametrize("answer", [BUSY, Answer(b"", 403), Answer(b"<html>")])
def test_what_cannot_be_delivered_now_is_kept_and_tried_once(office: Office, answer: Answer) -> None:
    office.web.route(UPDATE, answer)
    leave(office, "running", "finished")
    assert deliver_orphans(office.spool, office.sink, LOG) == 0
    assert (office.arrived(), office.spooled()) == (["running"], ["running", "finished"])


def test_what_the_server_judges_and_refuses_is_not_tried_for_ever(office: Office) -> None:
    office.web.route(UPDATE, Answer({"StatusCode": 60}), OK)
    leave(office, "running", "finished")
    assert deliver_orphans(office.spool, office.sink, LOG) == 1
    assert office.spooled() == []


def test_no_secret_is_in_what_is_spooled_or_left_as_a_will(tmp_path: Path) -> None:
    secrets = Secrets(["c4na7y-c4na7y"])
    spool = Spool(tmp_path / "spool")
    run = job_run(tmp_path / "job")

    def blot(body: Body) -> Body:
        return {name: secrets.blot_all(value) for name, value in body.items()}

    class Gone:
        url = "http://gone"

        def update_job(self, update: Body, claim: str) -> UpdateAnswer:
            raise RequestFailed("nobody is there", temporary=True)

    reporter = Reporter(Gone(), spool, QUICK, lambda *_: None, lambda *_: None, LOG, blot=blot)
    body: Body = {
        "jobId": run.jobid,
        "state": "running",
        "metaData": '{"a": ["c4na7y-c4na7y"]}',
        "stdout": "c4na7y-c4na7y",
    }
    reporter.write_will(run, body)
    (will,) = (tmp_path / "spool").glob("*/will_*")
    assert "c4na7y" not in will.read_text() and '{\\"a\\": [\\"***\\"]}' in will.read_text()
    reporter.send(run, {**body, "state": "failed"}, is_final=True)
    (final,) = (tmp_path / "spool").glob("*/*_failed.update.json")
    assert "c4na7y" not in final.read_text() and "***" in final.read_text()
    spool.close()
