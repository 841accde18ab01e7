"""What happens around updates: inputs, the adder's verdict, time-outs, attempts, kills."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.db import jobs
from server.db.database import Connection, Taken
from server.db.files import Name
from server.db.jobs import LiveJob
from server.logic import activation, adder, events, finishing, orders, queues
from server.logic.context import ANYBODY, Context, Identity, Role
from server.logic.endings import Ending
from server.logic.events import RangeReport
from tests.unit.server.dispatcher import QUEUE, START, Dispatcher, good_file


def run(dispatcher: Dispatcher) -> int:
    """Take the next job and start it."""
    job = int(str(dispatcher.get_job()["PandaID"]))
    dispatcher.report(job, "running")
    return job


# ---- the activator


def test_a_chain_runs_in_order_and_inputs_are_described_by_their_maker(dispatcher: Dispatcher) -> None:
    make, use = dispatcher.submit({"outputs": ["x.root"]}, {"inputs": ["user.user:x.root"]})
    assert dispatcher.status(use) == "assigned"
    assert run(dispatcher) == make
    replica = good_file()
    dispatcher.report(make, "finished", xml=json.dumps({"x.root": replica}))
    assert dispatcher.status(use) == "assigned"
    dispatcher.add()
    assert dispatcher.status(use) == "activated"
    job = dispatcher.get_job()
    assert job["inFiles"] == "x.root"
    assert (job["GUID"], job["fsize"], job["checksum"], job["ddmEndPointIn"]) == (
        replica["guid"],
        "6",
        "ad:084b021f",
        "DISK",
    )


def test_a_job_with_several_makers_waits_for_all(dispatcher: Dispatcher) -> None:
    a, b, use = dispatcher.submit({"outputs": ["a"]}, {"outputs": ["b"]}, {"inputs": ["a", "b"]})
    run(dispatcher)
    dispatcher.finish(a)
    assert dispatcher.status(use) == "assigned"
    run(dispatcher)
    dispatcher.finish(b)
    assert dispatcher.status(use) == "activated"


def test_an_input_may_be_promised_by_a_later_submission(dispatcher: Dispatcher) -> None:
    (use,) = dispatcher.submit({"inputs": ["later.txt"]})
    assert dispatcher.job(use)["waiting_for"] == [{"scope": "user.user", "lfn": "later.txt", "PandaID": None}]
    (make,) = dispatcher.submit({"outputs": ["later.txt"]})
    run(dispatcher)
    dispatcher.finish(make)
    assert dispatcher.status(use) == "activated"


def test_an_input_that_is_there_is_no_reason_to_wait(dispatcher: Dispatcher) -> None:
    (make,) = dispatcher.submit({"outputs": ["x"]})
    run(dispatcher)
    dispatcher.finish(make)
    (use,) = dispatcher.submit({"inputs": ["x"]})
    assert dispatcher.status(use) == "activated"


def test_a_failed_maker_takes_the_whole_chain_with_it_and_each_job_says_why(dispatcher: Dispatcher) -> None:
    first, second, third = dispatcher.submit(
        {"outputs": ["a"]}, {"inputs": ["a"], "outputs": ["b"]}, {"inputs": ["b"], "outputs": ["c"]}
    )
    run(dispatcher)
    dispatcher.fail(first)
    for job, maker, name in ((second, first, "a"), (third, second, "b")):
        found = dispatcher.job(job)
        assert found["jobStatus"] == "failed"
        error = found["error"]
        assert isinstance(error, dict)
        assert (error["source"], error["code"]) == ("taskBuffer", 110)
        assert f"user.user:{name}" in str(error["diag"])
        assert f"job {maker}" in str(error["diag"])
    (late,) = dispatcher.submit({"inputs": ["c"]})
    assert dispatcher.status(late) == "failed"


def test_what_a_crash_interrupted_is_found_by_the_periodic_activator(dispatcher: Dispatcher) -> None:
    make, use, lost = dispatcher.submit({"outputs": ["a", "b"]}, {"inputs": ["a"]}, {"inputs": ["b"]})
    run(dispatcher)
    with dispatcher.context.database.durable() as connection:  # as if the adder had died before it told anybody
        connection.exec_driver_sql("UPDATE catalogue SET status = 'ready' WHERE lfn = 'a'")
        connection.exec_driver_sql("UPDATE catalogue SET status = 'lost' WHERE lfn = 'b'")
    assert activation.settle_overdue(dispatcher.context) == 2
    assert (dispatcher.status(use), dispatcher.status(lost)) == ("activated", "failed")
    assert activation.settle_overdue(dispatcher.context) == 0
    assert dispatcher.status(make) == "running"


def test_an_activation_that_was_interrupted_is_finished(dispatcher: Dispatcher) -> None:
    (use,) = dispatcher.submit({"inputs": ["a"]})
    with dispatcher.context.database.durable() as connection:
        connection.exec_driver_sql("UPDATE files SET status = 'ready' WHERE type = 'input'")
    assert activation.settle_overdue(dispatcher.context) == 1
    assert dispatcher.get_job()["PandaID"] == use


# ---- the adder


@pytest.mark.parametrize(
    ("report", "code", "says"),
    [
        ({}, 201, "a.txt is missing"),
        ("not json", 200, "not JSON"),
        ([1], 200, "no JSON object"),
        ({"a.txt": "there"}, 202, "no object"),
        ({"a.txt": {**good_file(), "guid": "x"}}, 202, "no GUID"),
        ({"a.txt": {**good_file(), "fsize": -1}}, 202, "no file size"),
        ({"a.txt": {**good_file(), "fsize": None}}, 202, "no file size"),
        ({"a.txt": {**good_file(), "adler32": "xyz"}}, 202, "neither an adler32"),
        ({"a.txt": {**good_file(), "adler32": None}}, 202, "neither an adler32"),
    ],
)
def test_a_finished_job_with_a_bad_report_has_failed_and_says_why(
    dispatcher: Dispatcher, report: object, code: int, says: str
) -> None:
    (job,) = dispatcher.submit({"outputs": ["a.txt"]})
    run(dispatcher)
    dispatcher.report(job, "finished", xml=report if isinstance(report, str) else json.dumps(report))
    dispatcher.add()
    found = dispatcher.job(job)
    assert found["jobStatus"] == "failed"
    assert found["ddmErrorCode"] == code
    assert says in str(found["ddmErrorDiag"])
    assert {f["status"] for f in dispatcher.files(job)} == {"failed"}


def test_sizes_may_be_text_and_checksums_md5(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"outputs": ["a.txt"]})
    run(dispatcher)
    described = {"guid": good_file()["guid"], "fsize": "12", "md5": "D41D8CD98F00B204E9800998ECF8427E"}
    dispatcher.report(job, "finished", xml=json.dumps({"a.txt": described}))
    dispatcher.add()
    (output,) = [f for f in dispatcher.files(job) if f["type"] == "output"]
    assert (output["status"], output["fsize"], output["checksum"]) == (
        "ready",
        12,
        "md:d41d8cd98f00b204e9800998ecf8427e",
    )


def test_an_output_may_be_missing_if_the_job_said_so(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"outputs": [{"local": "maybe.txt", "optional": True}]})
    assert dispatcher.get_job()["allowNoOutput"] == "maybe.txt"
    dispatcher.report(job, "finished", xml="{}")
    dispatcher.add()
    assert dispatcher.status(job) == "finished"
    (use,) = dispatcher.submit({"inputs": ["maybe.txt"]})
    assert dispatcher.status(use) == "failed"


def test_the_log_of_a_failed_job_is_kept_and_its_outputs_are_not(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"outputs": ["a.txt"]})
    run(dispatcher)
    names = [str(f["lfn"]) for f in dispatcher.files(job)]
    dispatcher.fail(job, xml=json.dumps({name: good_file() for name in names}))
    assert {f["type"]: f["status"] for f in dispatcher.files(job)} == {"output": "failed", "log": "ready"}
    (use,) = dispatcher.submit({"inputs": ["a.txt"]})
    assert dispatcher.status(use) == "failed"


# ---- the watcher


def test_a_silent_pilot_loses_its_job_after_the_lease(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({})
    run(dispatcher)
    dispatcher.clock.now = START + 7000
    dispatcher.report(job, "running")
    dispatcher.clock.now = START + 7300
    dispatcher.watch()
    assert dispatcher.status(job) == "running"
    dispatcher.clock.now = START + 7000 + 7201
    dispatcher.watch()
    found = dispatcher.job(job)
    assert (found["jobStatus"], found["jobDispatcherErrorCode"]) == ("failed", 100)
    assert str(found["jobDispatcherErrorDiag"]).startswith("lost heartbeat : 2027-01-15 09:56:40")
    assert dispatcher.report(job, "running").command == "tobekilled"
    assert dispatcher.report(job, "finished").command == "tobekilled"
    assert dispatcher.status(job) == "failed"


def test_a_job_that_was_sent_and_never_heard_of_is_lost_after_half_an_hour(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({})
    dispatcher.get_job()
    dispatcher.clock.now += 1799
    dispatcher.watch()
    assert dispatcher.status(job) == "sent"
    dispatcher.clock.now += 2
    dispatcher.watch()
    assert dispatcher.job(job)["jobDispatcherErrorCode"] == 102


@pytest.mark.parametrize(
    ("form", "report", "patience", "error"),
    [
        ({}, {}, 10800, 103),
        ({"label": "managed", "priority": 900}, {}, 10800, 103),
        ({"label": "managed", "priority": 100}, {}, 172800, 103),
        ({}, {"exeErrorCode": 5}, 10800, 101),
    ],
)
def test_a_job_left_holding_is_given_up_in_its_time(
    dispatcher: Dispatcher, form: dict[str, object], report: dict[str, object], patience: int, error: int
) -> None:
    (job,) = dispatcher.submit(form)
    dispatcher.get_job(label="unified")
    dispatcher.report(job, "holding", **report)
    dispatcher.clock.now += patience - 1
    dispatcher.watch()
    assert dispatcher.status(job) == "holding"
    dispatcher.clock.now += 2
    dispatcher.watch()
    assert dispatcher.job(job)["jobDispatcherErrorCode"] == error


def test_a_job_whose_report_waits_for_the_adder_is_not_given_up(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({})
    run(dispatcher)
    dispatcher.report(job, "finished", xml="{}")
    dispatcher.clock.now += 10**6
    dispatcher.watch()
    assert dispatcher.status(job) == "holding"
    dispatcher.add()
    assert dispatcher.status(job) == "finished"


def test_a_job_that_waits_for_a_file_nobody_makes_fails_after_half_a_day(dispatcher: Dispatcher) -> None:
    (maker,) = dispatcher.submit({"outputs": ["slow"]})
    lonely, patient, late = dispatcher.submit({"inputs": ["typo"]}, {"inputs": ["slow"]}, {"inputs": ["late"]})
    (chained,) = dispatcher.submit({"inputs": ["late2"], "outputs": ["late"]})
    dispatcher.clock.now += 43199
    dispatcher.watch()
    assert dispatcher.status(lonely) == "assigned"
    dispatcher.submit({"outputs": ["late2"]})
    dispatcher.clock.now += 2
    dispatcher.watch()
    failed = dispatcher.job(lonely)
    assert failed["jobStatus"] == "failed"
    assert isinstance(failed["error"], dict)
    assert (failed["error"]["source"], failed["error"]["code"]) == ("taskBuffer", 111)
    assert "user.user:typo does not exist" in failed["error"]["diag"]
    assert [dispatcher.status(job) for job in (patient, late, chained)] == ["assigned"] * 3
    assert run(dispatcher) == maker
    dispatcher.finish(maker)
    assert dispatcher.status(patient) == "activated"


@pytest.mark.parametrize("changes", [{"status": "paused"}, {"catchall": "x,disableReassign"}])
def test_time_outs_can_be_switched_off_for_a_queue(dispatcher: Dispatcher, changes: dict[str, object]) -> None:
    (job,) = dispatcher.submit({})
    run(dispatcher)
    queues.change_queue(dispatcher.context, QUEUE, changes)
    dispatcher.clock.now += 10**6
    dispatcher.watch()
    assert dispatcher.status(job) == "running"
    queues.change_queue(dispatcher.context, QUEUE, {"status": "online", "catchall": ""})
    dispatcher.clock.now += 1000
    dispatcher.watch()
    assert dispatcher.status(job) == "failed"


# ---- attempts


def test_a_lost_job_with_attempts_left_is_queued_again_and_its_old_pilot_is_fenced_off(dispatcher: Dispatcher) -> None:
    make, use = dispatcher.submit({"max_attempts": 2, "outputs": ["a"]}, {"inputs": ["a"]})
    old = dispatcher.get_job(request_id="r1")
    dispatcher.report(make, "running", node="old", maxRSS=5, claim_id=old["claim_id"])
    dispatcher.clock.now += 7300
    dispatcher.watch()
    assert dispatcher.states(make)[-2:] == [(1, "failed"), (2, "activated")]
    late = {"claim_id": old["claim_id"], "attemptNr": 1}
    assert dispatcher.report(make, "running", **late).command == "tobekilled"
    new = dispatcher.get_job(request_id="r1")
    assert (new["PandaID"], new["attemptNr"]) == (make, 2)
    assert new["claim_id"] != old["claim_id"]
    assert (new["outFiles"], new["logFile"]) == (f"a,{old['logFile']}.2", f"{old['logFile']}.2")
    assert dispatcher.report(make, "finished", **late).command == "tobekilled"
    assert dispatcher.job(make)["maxRSS"] is None
    assert dispatcher.status(use) == "assigned"
    dispatcher.report(make, "running")
    dispatcher.report(make, "finished", xml=json.dumps({"a": good_file(), f"{old['logFile']}.2": good_file()}))
    dispatcher.add()
    assert (dispatcher.status(make), dispatcher.status(use)) == ("finished", "activated")
    assert dispatcher.job(make)["error"] is None
    logs = [(f["attemptNr"], f["status"]) for f in dispatcher.files(make) if f["type"] == "log"]
    assert logs == [(1, "lost"), (2, "ready")]


def test_a_failed_attempt_is_repeated_as_often_as_the_job_allows(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"max_attempts": 3, "outputs": ["a"]})
    for attempt in (1, 2, 3):
        assert dispatcher.get_job()["attemptNr"] == attempt
        dispatcher.fail(job)
    assert dispatcher.status(job) == "failed"
    assert dispatcher.job(job)["pilotErrorCode"] == 1305


def test_an_output_of_somebody_else_may_have_the_name_of_the_next_attempts_log(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"max_attempts": 3, "priority": 2000})
    (log,) = (str(f["lfn"]) for f in dispatcher.files(job) if f["type"] == "log")
    (other,) = dispatcher.submit({"outputs": [f"{log}.2"]})
    for attempt in (1, 2):
        assert dispatcher.get_job()["attemptNr"] == attempt
        dispatcher.fail(job)
    assert dispatcher.get_job()["PandaID"] == job
    dispatcher.finish(job)
    assert dispatcher.get_job()["PandaID"] == other
    dispatcher.finish(other)
    assert (dispatcher.status(job), dispatcher.status(other)) == ("finished", "finished")


def test_a_report_that_cannot_be_dealt_with_keeps_nobody_waiting(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = dispatcher.submit({"priority": 2000}, {})
    for job in (bad, good):
        assert dispatcher.get_job()["PandaID"] == job
        dispatcher.report(job, "failed", pilotErrorCode=1305)
    end_attempt = adder.end_attempt

    def broken(context: Context, connection: Connection, job: LiveJob, ending: Ending) -> list[Name] | None:
        if job.PandaID == bad:
            raise Taken("by somebody else")
        return end_attempt(context, connection, job, ending)

    monkeypatch.setattr(adder, "end_attempt", broken)
    dispatcher.add()
    assert (dispatcher.status(bad), dispatcher.status(good)) == ("holding", "failed")
    monkeypatch.undo()
    dispatcher.add()
    assert dispatcher.status(bad) == "failed"


def test_a_preempted_attempt_is_not_charged(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"max_attempts": 2})
    for code in (1201, 1379, 1213):
        dispatcher.get_job()
        dispatcher.fail(job, code)
    assert dispatcher.status(job) == "activated"
    assert dispatcher.get_job()["attemptNr"] == 4
    dispatcher.fail(job)
    dispatcher.get_job()
    dispatcher.fail(job)
    assert dispatcher.status(job) == "failed"


def test_a_report_of_an_attempt_that_was_given_up_is_thrown_away(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"max_attempts": 2})
    run(dispatcher)
    dispatcher.report(job, "finished", xml="{}")
    with dispatcher.context.database.durable() as connection:
        connection.exec_driver_sql('UPDATE jobs SET "attemptNr" = 2, "jobStatus" = \'activated\'')
    dispatcher.add()
    assert dispatcher.status(job) == "activated"
    with dispatcher.context.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM output_reports").scalar() == 0


# ---- kills


def test_a_job_nobody_has_is_cancelled_at_once_with_all_that_waited_for_it(dispatcher: Dispatcher) -> None:
    queued, waiting, use = dispatcher.submit({"outputs": ["a"]}, {"inputs": ["never"]}, {"inputs": ["a"]})
    results = dispatcher.kill(queued, waiting)
    assert [result.killed for result in results] == [True, True]
    assert [dispatcher.status(job) for job in (queued, waiting, use)] == ["cancelled", "cancelled", "failed"]
    assert dispatcher.no_job().reason == "nothing_queued"
    error = dispatcher.job(queued)["error"]
    assert isinstance(error, dict)
    assert (error["source"], error["code"], error["blame"]) == ("taskBuffer", 100, "user")


def test_a_job_left_holding_can_be_killed_and_one_with_a_verdict_cannot(dispatcher: Dispatcher) -> None:
    left, decided, waiting = dispatcher.submit({"outputs": ["a"]}, {"outputs": ["b"]}, {"inputs": ["a"]})
    for _ in range(2):
        run(dispatcher)
    dispatcher.report(left, "holding")
    dispatcher.report(decided, "finished")
    results = dispatcher.kill(left, decided)
    assert [result.killed for result in results] == [True, False]
    assert (dispatcher.status(left), dispatcher.status(waiting)) == ("cancelled", "failed")
    assert dispatcher.report(left, "finished").command == "tobekilled"
    assert dispatcher.status(decided) == "holding"


def test_a_kill_order_is_repeated_until_the_job_is_over(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"max_attempts": 5})
    run(dispatcher)
    assert dispatcher.kill(job)[0].killed
    for _ in range(5):
        assert dispatcher.report(job, "running").command == "tobekilled"
    assert dispatcher.fail(job, 1144).command == ""
    assert dispatcher.status(job) == "failed"
    assert dispatcher.job(job)["killedBy"] == "operator"
    assert not dispatcher.kill(job)[0].killed


def test_a_killed_job_whose_pilot_is_silent_is_not_run_again(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"max_attempts": 5})
    run(dispatcher)
    dispatcher.kill(job)
    dispatcher.clock.now += 7300
    dispatcher.watch()
    assert dispatcher.status(job) == "failed"


def test_a_kill_that_meets_a_claim_is_an_order_for_the_one_who_has_the_job(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({})
    with ThreadPoolExecutor(1) as other:
        with dispatcher.context.database.durable() as connection:
            seen = jobs.read_live(connection, job)
            assert seen is not None and jobs.change_job(connection, seen, {"jobStatus": "sent", "claimID": "c"})
            killing = other.submit(dispatcher.kill, job)
            # As long as this transaction is not over, nothing can be decided.
            with pytest.raises(TimeoutError):
                killing.result(0.3)
        (result,) = killing.result(60)
    assert result.killed
    assert (dispatcher.status(job), dispatcher.job(job)["commandToPilot"]) == ("sent", "tobekilled")


@pytest.mark.parametrize(
    "decide",
    [
        lambda context, job: orders.set_debug_mode(context, job, True, ANYBODY),
        lambda context, job: finishing.settle_transfers(context, job, {}, ""),
        lambda context, job: events.acquire_ranges(context, job, 1, "", ANYBODY),
        lambda context, job: events.update_ranges(context, [RangeReport(f"0-{job}-0-1-1", "finished")], "", ANYBODY),
    ],
    ids=["order", "transfer", "ranges given", "ranges reported"],
)
def test_a_decision_about_a_job_waits_for_whoever_changes_it(
    dispatcher: Dispatcher, decide: Callable[[Context, int], object]
) -> None:
    (job,) = dispatcher.submit({})
    with ThreadPoolExecutor(1) as other:
        with dispatcher.context.database.durable() as connection:
            assert jobs.lock_live(connection, job) is not None
            deciding = other.submit(decide, dispatcher.context, job)
            with pytest.raises(TimeoutError):
                deciding.result(0.3)
        deciding.result(60)


def test_users_kill_their_own_jobs_only(dispatcher: Dispatcher) -> None:
    alice, bob = (Identity(name, frozenset({Role.USER})) for name in ("alice", "bob"))
    (job,) = dispatcher.submit({}, identity=alice)
    (result,) = dispatcher.kill(job, identity=bob)
    assert not result.killed
    assert "alice" in result.text
    assert dispatcher.status(job) == "activated"
    assert dispatcher.kill(job, 99, identity=alice)[0].killed
    assert "no such job" in dispatcher.kill(99)[0].text
