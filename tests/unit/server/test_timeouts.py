"""Each time-out of chapter 12.1.3, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.db.information import ConfigValue
from server.logic import configuration, queues
from server.logic.plugins import JobRow
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE, Dispatcher, dispatcher_in

HOUR = 3600
DAY = 24 * HOUR


def put_into(dispatcher: Dispatcher, job: int, status: str, **columns: object) -> None:
    """Put a job into a state as if it had just come there."""
    now = dispatcher.clock.now
    values = {"jobStatus": status, "stateChangeTime": now, "modificationTime": now, "watchTime": now, **columns}
    changes = ", ".join(f'"{name}" = {_literal(value)}' for name, value in values.items())
    with dispatcher.context.database.durable() as connection:
        connection.exec_driver_sql(f'UPDATE jobs SET {changes} WHERE "PandaID" = {job}')


def _literal(value: object) -> str:
    return "NULL" if value is None else f"'{value}'" if isinstance(value, str) else repr(value)


def stays_for(dispatcher: Dispatcher, job: int, seconds: float) -> None:
    """Check that the watcher leaves a job alone for so long, and not for longer."""
    before = dispatcher.status(job)
    begin = dispatcher.clock.now
    for moment in (0, seconds / 2, seconds - 1):
        dispatcher.clock.now = begin + moment
        dispatcher.watch()
        assert dispatcher.status(job) == before
    dispatcher.clock.now = begin + seconds + 1
    dispatcher.watch()
    assert dispatcher.status(job) != before


def error_of(dispatcher: Dispatcher, job: int) -> tuple[str, str, int]:
    """State of a job, and source and code of its error."""
    found = dispatcher.job(job)
    error = found["error"]
    assert isinstance(error, dict)
    return str(found["jobStatus"]), str(error["source"]), int(error["code"])


@pytest.mark.parametrize(
    ("status", "patience", "says"),
    [
        ("pending", HOUR, "nobody has prepared it"),
        ("defined", 4 * HOUR, "its preparation has not ended"),
        ("throttled", 7 * DAY, "nobody has released it"),
        ("activated", 7 * DAY, "no pilot has taken it"),
    ],
)
def test_a_job_that_never_starts_is_closed_and_says_why(
    dispatcher: Dispatcher, status: str, patience: int, says: str
) -> None:
    (job, use) = dispatcher.submit({"outputs": ["a"]}, {"inputs": ["a"]})
    put_into(dispatcher, job, status)
    stays_for(dispatcher, job, patience)
    assert error_of(dispatcher, job) == ("closed", "taskBuffer", 101)
    assert says in str(dispatcher.job(job)["taskBufferErrorDiag"])
    assert dispatcher.status(use) == "failed"


@pytest.mark.parametrize(
    ("status", "columns", "patience", "code"),
    [
        ("sent", {}, HOUR / 2, 102),
        ("starting", {}, 2 * HOUR, 100),
        ("running", {}, 2 * HOUR, 100),
        ("transferring", {}, 2 * HOUR, 100),
        ("holding", {}, 3 * HOUR, 103),
        ("holding", {"prodSourceLabel": "managed"}, 3 * HOUR, 103),
        ("holding", {"prodSourceLabel": "managed", "currentPriority": 799}, 2 * DAY, 103),
        ("transferring", {"reportedStatus": "finished"}, 4 * DAY, 104),
        ("transferring", {"reportedStatus": "finished", "currentPriority": 799}, 14 * DAY, 104),
        ("merging", {"reportedStatus": "finished"}, 14 * DAY, 105),
    ],
)
def test_a_job_that_is_stuck_or_silent_has_failed(
    dispatcher: Dispatcher, status: str, columns: dict[str, object], patience: float, code: int
) -> None:
    (job,) = dispatcher.submit({})
    dispatcher.get_job()
    put_into(dispatcher, job, status, **columns)
    stays_for(dispatcher, job, patience)
    assert error_of(dispatcher, job) == ("failed", "jobDispatcher", code)


@pytest.mark.parametrize(("status", "patience"), [("starting", 2 * DAY), ("running", 21 * DAY)])
def test_a_pilot_that_reports_for_ever_is_told_to_end_the_job(
    dispatcher: Dispatcher, status: str, patience: int
) -> None:
    (job,) = dispatcher.submit({"priority": 799})
    dispatcher.get_job()
    dispatcher.report(job, status)
    begin = dispatcher.clock.now
    while dispatcher.clock.now < begin + patience:
        assert dispatcher.report(job, status).command == ""
        dispatcher.watch()
        assert dispatcher.status(job) == status
        dispatcher.clock.now += HOUR
    dispatcher.report(job, status)
    dispatcher.clock.now += 1
    dispatcher.watch()
    assert error_of(dispatcher, job) == ("failed", "jobDispatcher", 105)
    assert dispatcher.report(job, status).command == "tobekilled"


def test_a_vo_may_have_time_outs_of_its_own(dispatcher: Dispatcher) -> None:
    value = ConfigValue("pandaserver", "watcher", "TIMEOUT_queued", "atlas", "1", "", None)
    configuration.set_value(dispatcher.context, value)
    of_atlas, other = dispatcher.submit({"vo": "atlas"}, {"vo": "cms"})
    dispatcher.clock.now += HOUR + 1
    dispatcher.watch()
    assert (dispatcher.status(of_atlas), dispatcher.status(other)) == ("closed", "activated")


@pytest.mark.parametrize(("priority", "days"), [(900, 1), (100, 3)])
def test_a_queue_may_say_how_long_its_transfers_take(dispatcher: Dispatcher, priority: int, days: int) -> None:
    queues.add_queues(dispatcher.context, {QUEUE: {"transtimehi": 1, "transtimelo": 3}})
    (job,) = dispatcher.submit({})
    put_into(dispatcher, job, "transferring", reportedStatus="finished", currentPriority=priority)
    stays_for(dispatcher, job, days * DAY)


@pytest.mark.parametrize(
    ("key", "status", "columns"),
    [
        ("TIMEOUT_pending", "pending", {}),
        ("TIMEOUT_defined", "defined", {}),
        ("TIMEOUT_throttled", "throttled", {}),
        ("TIMEOUT_queued", "activated", {}),
        ("TIMEOUT_sent", "sent", {}),
        ("TIMEOUT_starting", "starting", {}),
        ("TIMEOUT_running", "running", {}),
        ("TIMEOUT_holding", "holding", {"currentPriority": 1, "prodSourceLabel": "test"}),
        ("TIMEOUT_holding_urgent", "holding", {}),
        ("TIMEOUT_transferring", "transferring", {"reportedStatus": "finished", "currentPriority": 1}),
        ("TIMEOUT_transferring_urgent", "transferring", {"reportedStatus": "finished"}),
        ("TIMEOUT_merging", "merging", {}),
    ],
)
def test_operators_set_each_time_out_in_the_configuration_table(
    dispatcher: Dispatcher, key: str, status: str, columns: dict[str, object]
) -> None:
    (job,) = dispatcher.submit({})
    dispatcher.configure(key, 0.25)
    put_into(dispatcher, job, status, **columns)
    stays_for(dispatcher, job, HOUR / 4)


def test_a_time_out_that_is_shorter_than_usual_holds_for_jobs_that_come_after(dispatcher: Dispatcher) -> None:
    """The watcher's next look is taken from it, at every way into a state."""
    dispatcher.configure("TIMEOUT_queued", 0.5)
    dispatcher.configure("TIMEOUT_sent", 0.25)
    dispatcher.configure("TIMEOUT_holding_urgent", 0.125)
    queued, sent, left = dispatcher.submit({"priority": 1}, {"priority": 2}, {"priority": 3})
    assert dispatcher.get_job()["PandaID"] == left
    dispatcher.report(left, "holding")
    assert dispatcher.get_job()["PandaID"] == sent
    for seconds, job, status in ((450, left, "failed"), (900, sent, "failed"), (1800, queued, "closed")):
        dispatcher.clock.now += seconds - 1 - (dispatcher.clock.now - 1_800_000_000.0)
        dispatcher.watch()
        assert dispatcher.status(job) != status
        dispatcher.clock.now += 2
        dispatcher.watch()
        assert dispatcher.status(job) == status


# ---- to another queue


class Elsewhere:
    """A broker that sends urgent jobs to a queue of the test's."""

    def other_queue(self, job: JobRow, reason: str) -> str | None:
        assert "since" in reason
        if job["workingGroup"] == "BROKEN":
            raise RuntimeError("the broker is broken")
        return {"OTHER": "OTHER", "NONE": None, "LOST": "NO_SUCH_QUEUE"}[str(job["workingGroup"])]


@pytest.fixture
def brokered(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[Dispatcher]:
    """A dispatcher with a broker and a second queue."""
    with dispatcher_in(tmp_path, empty_database, broker_plugins=f"any:{__name__}:Elsewhere") as made:
        queues.add_queues(made.context, {"OTHER": {}})
        yield made


def test_a_job_that_no_pilot_takes_goes_to_the_queue_that_the_broker_knows(brokered: Dispatcher) -> None:
    groups = ("BROKEN", "OTHER", "NONE", "LOST")
    broken, leaving, staying, lost = brokered.submit(*({"workingGroup": name} for name in groups))
    brokered.clock.now += 2 * DAY + 1
    brokered.watch()
    stay = (broken, staying, lost)
    assert brokered.job(leaving)["computingSite"] == "OTHER"
    assert {brokered.job(job)["computingSite"] for job in stay} == {QUEUE}
    assert brokered.get_job(queue="OTHER")["PandaID"] == leaving
    history = brokered.job(leaving)["history"]
    assert isinstance(history, list)
    moved = [change for change in history if change["actor"] == "broker"]
    assert len(moved) == 1
    assert "sent from TEST_QUEUE to OTHER: activated since 2027-01-15" in moved[0]["reason"]


def test_a_job_whose_inputs_do_not_come_goes_too_and_is_queued_there(brokered: Dispatcher) -> None:
    (make,) = brokered.submit({"outputs": ["a"], "workingGroup": "NONE"})
    (use,) = brokered.submit({"inputs": ["a"], "workingGroup": "OTHER"})
    brokered.clock.now += 12 * HOUR + 1
    brokered.watch()
    assert (brokered.status(use), brokered.job(use)["computingSite"]) == ("assigned", "OTHER")
    assert brokered.get_job()["PandaID"] == make
    brokered.finish(make)
    assert brokered.get_job(queue="OTHER")["PandaID"] == use


def test_urgent_jobs_leave_a_queue_that_starts_nothing_after_four_hours(brokered: Dispatcher) -> None:
    calm, urgent = ({"workingGroup": "OTHER", "priority": priority} for priority in (799, 800))
    first, second, running = brokered.submit(calm, urgent, {"priority": 5000, "workingGroup": "NONE"})
    brokered.clock.now += 3 * HOUR
    assert brokered.get_job()["PandaID"] == running
    brokered.report(running, "running")
    brokered.clock.now += HOUR + 1
    brokered.watch()
    assert brokered.job(second)["computingSite"] == QUEUE  # a job has started an hour ago
    brokered.clock.now += HOUR + 600
    brokered.report(running, "running")
    brokered.watch()
    assert [brokered.job(job)["computingSite"] for job in (first, second)] == [QUEUE, "OTHER"]


def keep_starting(dispatcher: Dispatcher, hours: int, *jobs: int) -> None:
    """Pilots that go on saying that their jobs are starting, each hour."""
    for _ in range(hours):
        dispatcher.clock.now += HOUR
        for job in jobs:
            dispatcher.report(job, "starting")
        dispatcher.watch()


def test_urgent_jobs_are_not_starting_for_more_than_four_hours_where_no_payload_starts(dispatcher: Dispatcher) -> None:
    urgent, calm = dispatcher.submit({"priority": 800}, {"priority": 799})
    for job in (urgent, calm):
        dispatcher.get_job()
        dispatcher.report(job, "starting")
    keep_starting(dispatcher, 3, urgent, calm)
    (later,) = dispatcher.submit({})
    dispatcher.get_job()  # handed out like the others: nothing has begun yet
    keep_starting(dispatcher, 2, urgent, calm, later)
    assert (dispatcher.status(urgent), dispatcher.status(calm)) == ("failed", "starting")
    assert error_of(dispatcher, urgent) == ("failed", "jobDispatcher", 105)
    assert "in a queue where no payload starts" in str(dispatcher.job(urgent)["jobDispatcherErrorDiag"])


def test_urgent_jobs_are_starting_as_long_as_others_where_payloads_do_start(dispatcher: Dispatcher) -> None:
    urgent, running = dispatcher.submit({"priority": 801}, {"priority": 800})
    for job in (urgent, running):
        dispatcher.get_job()
        dispatcher.report(job, "starting")
    keep_starting(dispatcher, 3, urgent, running)
    dispatcher.report(running, "running")
    keep_starting(dispatcher, 2, urgent, running)
    assert dispatcher.status(urgent) == "starting"  # a payload has begun two hours ago
    keep_starting(dispatcher, 1, urgent, running)
    assert dispatcher.status(urgent) == "failed"


def test_a_job_that_falls_silent_after_its_time_was_put_off_is_lost_and_not_stuck(dispatcher: Dispatcher) -> None:
    urgent, running = dispatcher.submit({"priority": 801}, {"priority": 800})
    for job in (urgent, running):
        dispatcher.get_job()
        dispatcher.report(job, "starting")
    keep_starting(dispatcher, 3, urgent, running)
    dispatcher.report(running, "running")
    keep_starting(dispatcher, 1, urgent)
    dispatcher.clock.now += 2 * HOUR + 600
    (later,) = dispatcher.submit({})
    dispatcher.get_job()
    dispatcher.report(later, "running")
    dispatcher.watch()
    assert error_of(dispatcher, urgent) == ("failed", "jobDispatcher", 100)
