"""updateJob from the dispatcher's side: fencing, what is kept, what the pilot is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.db.tables import jobs
from server.logic import dispatch, fields, updates
from server.logic.context import ANYBODY, Identity, Role
from server.logic.matching import JobRequest
from tests.unit.server.dispatcher import QUEUE, START, Dispatcher, good_file

_SITE_A, _SITE_B = (Identity(name, frozenset({Role.PILOT})) for name in ("site-a", "site-b"))
_OPERATOR = Identity("root", frozenset({Role.OPERATOR}))


@pytest.fixture
def job(dispatcher: Dispatcher) -> int:
    """A job in a pilot's hands."""
    dispatcher.submit({"outputs": ["a.txt"]})
    return int(str(dispatcher.get_job()["PandaID"]))


def test_a_job_lives_its_whole_life(dispatcher: Dispatcher, job: int) -> None:
    assert dispatcher.report(job, "starting").command == ""
    dispatcher.clock.now += 10
    assert dispatcher.report(job, "running", maxRSS=5).next_heartbeat == 1800
    dispatcher.clock.now += 100
    assert dispatcher.finish(job).command == ""
    done = dispatcher.job(job)
    assert done["jobStatus"] == "finished"
    assert done["startTime"] == "2027-01-15T08:00:10.000+00:00"
    assert done["endTime"] == "2027-01-15T08:01:50.000+00:00"
    assert dispatcher.states(job) == [
        (1, s) for s in ("defined", "activated", "sent", "starting", "running", "holding", "finished")
    ]
    assert dispatcher.bell.rung == ["add_main"]


def test_a_heartbeat_keeps_the_figures_and_extends_the_lease(dispatcher: Dispatcher, job: int) -> None:
    dispatcher.report(job, "running")
    dispatcher.clock.now += 1000
    answer = dispatcher.report(job, "running", maxPSS=77, cpuConsumptionTime=12, jobMetrics="nEvents=3 x=1.5 y=z")
    assert answer.lease_end is not None
    found = dispatcher.job(job)
    assert (found["maxPSS"], found["cpuConsumptionTime"]) == (77, 12)
    assert found["metrics"] == {"maxPSS": 77, "cpuConsumptionTime": 12, "nEvents": 3, "x": 1.5, "y": "z"}
    assert len(dispatcher.states(job)) == 4


@pytest.mark.parametrize("values", [{"attemptNr": 2}, {"claim_id": "somebody-elses"}])
def test_who_does_not_have_the_job_is_told_to_stop_and_changes_nothing(
    dispatcher: Dispatcher, job: int, values: dict[str, object]
) -> None:
    before = dispatcher.job(job)
    for status in ("starting", "running", "finished", "failed"):
        assert dispatcher.report(job, status, node="thief", **values).command == "tobekilled"
    assert dispatcher.job(job) == before


@pytest.mark.parametrize("status", ["starting", "running", "transferring"])
@pytest.mark.parametrize(
    "said", [{"attemptNr": 2}, {"claim_id": "somebody-elses"}, {"identity": _SITE_B}, {"batchID": "slurm.b"}]
)
def test_a_strangers_heartbeat_changes_nothing_in_any_state(
    dispatcher: Dispatcher, status: str, said: dict[str, Any]
) -> None:
    dispatcher.submit({})
    request = JobRequest(queue=QUEUE, label="user")
    (job,) = dispatch.acquire_jobs(dispatcher.context, request, _SITE_A, "http://server")
    right = {"attemptNr": 1, "claim_id": job["claim_id"], "identity": _SITE_A, "batchID": "slurm.a"}  # type: ignore[index]
    for number in range(2):  # what brings the job there, and a bare heartbeat
        assert dispatcher.report(1, status, maxRSS=number, **right).command == ""
    before = dispatcher.job(1)
    dispatcher.clock.now += 10
    assert dispatcher.report(1, status, maxRSS=7, **{**right, **said}).command == "tobekilled"
    assert dispatcher.job(1) == before
    assert before["maxRSS"] == 1
    assert dispatcher.report(1, status, maxRSS=8, **{**right, "identity": _OPERATOR, "batchID": "77"}).command == ""
    assert dispatcher.job(1)["maxRSS"] == 8


def test_the_right_claim_and_attempt_are_let_in(dispatcher: Dispatcher) -> None:
    dispatcher.submit({})
    claim = dispatcher.get_job()["claim_id"]
    assert dispatcher.report(1, "running", claim_id=claim, attemptNr=1).command == ""


def test_another_batch_job_is_a_stranger_unless_one_name_is_a_number(dispatcher: Dispatcher, job: int) -> None:
    dispatcher.report(job, "running", batchID="slurm.a")
    assert dispatcher.report(job, "running", batchID="slurm.b").command == "tobekilled"
    assert dispatcher.report(job, "running", batchID="slurm.a").command == ""
    assert dispatcher.report(job, "running", batchID="1234").command == ""


def test_an_unknown_job_is_to_be_killed(dispatcher: Dispatcher) -> None:
    assert dispatcher.report(99, "running").command == "tobekilled"


def test_a_state_no_pilot_can_report_does_nothing(dispatcher: Dispatcher, job: int) -> None:
    before = dispatcher.job(job)
    assert not dispatcher.report(job, "activated").known_state
    assert not dispatcher.report(job, "nonsense").known_state
    assert dispatcher.job(job) == before


def test_late_heartbeats_change_nothing(dispatcher: Dispatcher, job: int) -> None:
    dispatcher.report(job, "running")
    dispatcher.report(job, "finished", xml=json.dumps({"a.txt": good_file()}))
    before = dispatcher.job(job)
    for status in ("starting", "running", "transferring"):
        assert dispatcher.report(job, status, node="late").command == ""
    assert dispatcher.report(job, "failed", node="late").command == "alreadydone"
    assert dispatcher.job(job) == before
    dispatcher.add()
    assert dispatcher.status(job) == "finished"
    assert dispatcher.report(job, "finished").command == "alreadydone"


def test_the_job_report_is_kept_once_and_not_for_failed_jobs(dispatcher: Dispatcher, job: int) -> None:
    dispatcher.report(job, "running", metaData="first")
    dispatcher.finish(job, metaData="second")
    texts = dispatcher.job(job)["texts"]
    assert texts == [{"attemptNr": 1, "kind": "metaData", "text": "first"}]
    dispatcher.submit({})
    failed = int(str(dispatcher.get_job()["PandaID"]))
    dispatcher.fail(failed, metaData="x", pilotLog="the end")
    assert dispatcher.job(failed)["texts"] == [{"attemptNr": 1, "kind": "pilotLog", "text": "the end"}]


def test_the_table_of_transfers_in_a_job_report_is_kept_for_failed_jobs_too(dispatcher: Dispatcher, job: int) -> None:
    table = [{"lfn": "a.root", "kind": "stalled", "seconds": 1.5, "deep": {"a": 1}, "text": "\ud800"}, "no row"]
    dispatcher.fail(job, metaData=json.dumps({"pilotkit": {"transfers": table}}))
    found = dispatcher.job(job)
    assert (
        found["transfers"] == [{"lfn": "a.root", "kind": "stalled", "seconds": 1.5, "text": "?", "attemptNr": 1}]
        and found["texts"] == []
    )


def test_the_autopsy_in_a_job_report_is_kept_for_every_attempt_that_failed(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"max_attempts": 2})
    for attempt in (1, 2):
        dispatcher.get_job()
        autopsy = {
            "code": 1305, "text": f"{attempt}\ud800", "strange": {"a": 1}, "evidence": ["seen", 5, {}],
            "timeline": [{"phase": "payload", "ms": 2.5}, "no row"],
        }  # fmt: skip
        dispatcher.fail(job, metaData=json.dumps({"pilotkit": {"autopsy": autopsy}}))
    timeline = [{"phase": "payload", "ms": 2.5}]
    assert dispatcher.job(job)["autopsies"] == [
        {"code": 1305, "text": f"{n}?", "evidence": ["seen"], "timeline": timeline, "attemptNr": n} for n in (1, 2)
    ]


@pytest.mark.parametrize(
    "report",
    ['"pilotkit"', '{"pilotkit": 5}', '{"pilotkit": {"transfers": 5, "autopsy": []}}', '{"pilotkit": ', '["pilotkit"]',
     '{"pilotkit": ' + "[" * 100_000],
)  # fmt: skip
def test_a_job_report_without_a_table_harms_nobody(dispatcher: Dispatcher, job: int, report: str) -> None:
    dispatcher.finish(job, metaData=report)
    found = dispatcher.job(job)
    assert (found["transfers"], found["autopsies"]) == ([], [])


def test_a_failure_is_explained_with_blame_and_advice(dispatcher: Dispatcher, job: int) -> None:
    dispatcher.report(job, "running")
    dispatcher.fail(job, 1305, transExitCode=1, pilotErrorDiag="it said: no")
    error = dispatcher.job(job)["error"]
    assert isinstance(error, dict)
    assert (error["source"], error["code"], error["blame"], error["diag"]) == ("pilot", 1305, "payload", "it said: no")
    assert error["advice"]
    assert dispatcher.job(job)["transExitCode"] == 1


def test_holding_from_the_pilot_waits_for_its_verdict(dispatcher: Dispatcher, job: int) -> None:
    dispatcher.report(job, "running")
    dispatcher.report(job, "holding")
    dispatcher.add()
    assert dispatcher.status(job) == "holding"
    dispatcher.finish(job)
    assert dispatcher.status(job) == "finished"


@pytest.mark.parametrize("code", [1137, -1137])
def test_holding_with_an_error_is_a_failure_since_nobody_recovers_outputs(
    dispatcher: Dispatcher, job: int, code: int
) -> None:
    (waiting,) = dispatcher.submit({"inputs": ["a.txt"]})
    dispatcher.report(job, "running")
    answer = dispatcher.report(job, "holding", pilotErrorCode=code, pilotErrorDiag="the storage is full")
    assert (answer.command, answer.next_heartbeat) == ("", None)
    assert dispatcher.bell.rung == ["add_main"]
    dispatcher.add()
    done = dispatcher.job(job)
    assert (done["jobStatus"], done["pilotErrorCode"]) == ("failed", 1137)
    assert isinstance(done["error"], dict)
    assert done["error"]["diag"] == "the storage is full"
    assert dispatcher.status(waiting) == "failed"
    assert dispatcher.report(job, "failed", pilotErrorCode=1137).command == "alreadydone"


def test_an_error_that_comes_while_the_job_is_holding_is_its_verdict_too(dispatcher: Dispatcher, job: int) -> None:
    dispatcher.report(job, "holding")
    dispatcher.report(job, "holding", pilotErrorCode=-1137)
    dispatcher.add()
    assert dispatcher.status(job) == "failed"


def test_a_job_whose_outputs_could_not_be_stored_is_tried_again(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"outputs": ["b.txt"], "max_attempts": 2})
    dispatcher.get_job()
    dispatcher.report(job, "holding", pilotErrorCode=-1137)
    dispatcher.add()
    assert (dispatcher.status(job), dispatcher.job(job)["attemptNr"]) == ("activated", 2)


def test_times_a_pilot_reports_at_the_end_are_kept(dispatcher: Dispatcher, job: int) -> None:
    dispatcher.clock.now += 10
    dispatcher.report(job, "running", startTime=START + 7)
    assert dispatcher.job(job)["startTime"] == "2027-01-15T08:00:07.000+00:00"
    dispatcher.finish(job, startTime=START + 5, endTime=START + 50)
    done = dispatcher.job(job)
    assert done["startTime"] == "2027-01-15T08:00:05.000+00:00"
    assert done["endTime"] == "2027-01-15T08:00:50.000+00:00"


def test_whole_seconds_of_a_pilot_never_lie_before_the_claim(dispatcher: Dispatcher) -> None:
    dispatcher.clock.now += 0.7
    (job,) = dispatcher.submit({"outputs": ["b.txt"], "priority": 2000})
    assert dispatcher.get_job()["PandaID"] == job
    dispatcher.clock.now += 0.1
    dispatcher.report(job, "running", startTime=START)
    assert dispatcher.job(job)["startTime"] == "2027-01-15T08:00:00.700+00:00"
    dispatcher.finish(job, startTime=START, endTime=START)
    done = dispatcher.job(job)
    assert done["creationTime"] == done["startTime"] == done["endTime"] == "2027-01-15T08:00:00.700+00:00"


def test_an_end_before_the_start_is_moved_to_the_start(dispatcher: Dispatcher, job: int) -> None:
    dispatcher.report(job, "running", startTime=START + 7)
    dispatcher.finish(job, endTime=START + 2)
    done = dispatcher.job(job)
    assert done["startTime"] == done["endTime"] == "2027-01-15T08:00:07.000+00:00"


def test_debug_and_orders_travel_together(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"debug": True})
    job = int(str(dispatcher.get_job()["PandaID"]))
    assert dispatcher.report(job, "running").command == "debug"
    dispatcher.kill(job)
    assert dispatcher.report(job, "running").command == "debug,tobekilled"


def test_two_reports_at_the_same_moment_both_count(dispatcher: Dispatcher, job: int) -> None:
    """The second read the job before the first changed it: it is tried again on the new state."""
    context = dispatcher.context
    late = fields.collect(job, "running", {"node": "n"}, fields.LEGACY)
    original = updates.jobs.read_live
    calls = []

    def read_and_be_overtaken(connection: object, job_id: int) -> object:
        found = original(connection, job_id)  # type: ignore[arg-type]
        calls.append(found)
        if len(calls) == 1:
            updates.jobs.read_live = original
            dispatcher.report(job, "starting")
        return found

    updates.jobs.read_live = read_and_be_overtaken  # type: ignore[assignment]
    try:
        updates.update_job(context, late, ANYBODY)
    finally:
        updates.jobs.read_live = original
    assert [state for _, state in dispatcher.states(job)][-2:] == ["starting", "running"]


def test_a_heartbeat_changes_no_column_that_is_in_an_index() -> None:
    """PostgreSQL would write to every index of the table then, and leave as much behind to be cleaned up."""
    written = {field.column for field in fields.FIELDS} | {"modificationTime"}
    indexed = {column.name for index in jobs.indexes for column in index.columns}
    conditions = " ".join(str(index.dialect_options["postgresql"]["where"]) for index in jobs.indexes)
    assert written & indexed == set()
    assert [name for name in written if f'"{name}"' in conditions] == []
