"""Worker synchronization: forgotten workers, pilots that have gone, and jobs whose worker is over."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from server.daemon.scripts import worker_synchronization
from server.db.tables import worker_jobs
from server.logic import archiving, details, dispatch, harvesters, workers
from server.logic.context import ANYBODY, Identity, Role
from server.logic.dispatch import NoJob
from server.logic.errors import NotAllowed
from server.logic.matching import JobRequest
from tests.unit.server.dispatcher import QUEUE, Dispatcher

HARVESTER = "h1"


def say(dispatcher: Dispatcher, status: str, number: int = 7, identity: Identity = ANYBODY, **more: object) -> None:
    item = {"workerID": number, "status": status, "batchID": "12.0", "diagMessage": "slot lost", **more}
    stored, complaints = workers.update_workers(dispatcher.context, HARVESTER, [item], identity)
    assert stored == [True], complaints


def pilot_says(dispatcher: Dispatcher, status: str, number: int = 7, identity: Identity = ANYBODY) -> None:
    workers.note_pilot(
        dispatcher.context,
        harvester_id=HARVESTER,
        worker_id=str(number),
        status=status,
        site="S",
        node_id="n",
        identity=identity,
    )


def synchronize(dispatcher: Dispatcher, after: float = 0.0) -> None:
    """Some seconds later, with Harvester alive."""
    dispatcher.clock.now += after
    harvesters.heartbeat(dispatcher.context, HARVESTER, {}, ANYBODY)
    worker_synchronization.run(dispatcher.context, [])


def shown(dispatcher: Dispatcher, number: int = 7) -> dict[str, Any]:
    found = workers.list_workers(dispatcher.context, harvester_id=HARVESTER, queue=None, statuses=(), limit=9)
    return next(one for one in found if one["workerID"] == str(number))


def kills(dispatcher: Dispatcher) -> list[object]:
    taken = harvesters.take_commands(dispatcher.context, HARVESTER, 99, ANYBODY)
    assert {one["command"] for one in taken} <= {"SYNC_WORKERS_KILL"}
    harvesters.acknowledge(dispatcher.context, [int(str(one["command_id"])) for one in taken], ANYBODY)
    return [one["params"] for one in taken]


def in_worker(dispatcher: Dispatcher, **job: object) -> int:
    """A job that the pilot of worker 7 runs."""
    dispatcher.submit(job)
    got = dispatcher.get_job(harvester_id=HARVESTER, worker_id="7")
    number = int(str(got["PandaID"]))
    dispatcher.report(number, "running")
    return number


def test_a_job_of_an_ended_worker_is_lost_before_its_lease_is_over(dispatcher: Dispatcher) -> None:
    say(dispatcher, "running")
    job = in_worker(dispatcher, max_attempts=2)
    assert shown(dispatcher)["pandaid_list"] == [job]
    dispatcher.clock.now += 600
    say(dispatcher, "failed", endTime=None)
    synchronize(dispatcher, 3500)
    assert dispatcher.status(job) == "running"
    synchronize(dispatcher, 101)
    (_, _, failed, again) = dispatcher.job(job)["history"][-4:]  # type: ignore[index]
    assert (failed["status"], failed["actor"], again["status"]) == ("failed", "worker_synchronization", "activated")
    assert failed["reason"] == (
        "lost heartbeat : 2027-01-15T08:00:00.000+00:00; its worker 7 of h1 (batch job 12.0) is failed: slot lost"
    )
    assert dispatcher.report(job, "finished", attemptNr=1).command == "tobekilled"


def test_a_job_that_was_heard_of_since_has_a_lease_of_its_own(dispatcher: Dispatcher) -> None:
    say(dispatcher, "running")
    job = in_worker(dispatcher)
    say(dispatcher, "finished")
    dispatcher.clock.now += 10
    dispatcher.report(job, "running", cpuConsumptionTime=1)
    synchronize(dispatcher, 3601)
    assert dispatcher.status(job) == "running"


def test_a_job_that_harvester_stages_out_or_another_worker_has_is_left_alone(dispatcher: Dispatcher) -> None:
    say(dispatcher, "running")
    staged, moved = in_worker(dispatcher), in_worker(dispatcher, max_attempts=2)
    dispatcher.report(staged, "transferring")
    dispatcher.fail(moved)
    dispatcher.get_job(harvester_id=HARVESTER, worker_id="8")
    say(dispatcher, "finished")
    synchronize(dispatcher, 3601)
    assert (dispatcher.status(staged), dispatcher.status(moved)) == ("transferring", "sent")


def test_harvester_is_told_of_workers_whose_pilot_has_gone_until_it_agrees(dispatcher: Dispatcher) -> None:
    for number in (7, 8, 9):
        say(dispatcher, "running", number)
        pilot_says(dispatcher, "started", number)
    for number in (7, 8):
        pilot_says(dispatcher, "finished", number)
    synchronize(dispatcher, 1800)
    say(dispatcher, "running")  # an update does not put it off
    assert kills(dispatcher) == []
    synchronize(dispatcher, 1801)
    assert [sorted(numbers) for numbers in kills(dispatcher)] == [[7, 8]]  # type: ignore[call-overload]
    say(dispatcher, "cancelled")
    synchronize(dispatcher, 3601)
    assert kills(dispatcher) == [[8]]


def test_a_worker_that_harvester_has_forgotten_is_missed(dispatcher: Dispatcher) -> None:
    say(dispatcher, "running")
    job = in_worker(dispatcher)
    dispatcher.clock.now += 86401
    worker_synchronization.run(dispatcher.context, [])
    assert shown(dispatcher)["status"] == "running", "Harvester itself is silent: it has forgotten nothing"
    synchronize(dispatcher, 3601)
    found = shown(dispatcher)
    assert (found["status"], found["diagMessage"]) == (
        "missed",
        "h1 has not spoken of it since 2027-01-15T08:00:00.000+00:00",
    )
    assert dispatcher.status(job) == "failed"


def test_what_nobody_looks_at_any_more_is_removed(dispatcher: Dispatcher) -> None:
    say(dispatcher, "finished", 7, pandaid_list=[1])
    pilot_says(dispatcher, "finished", 8)
    harvesters.add_dialogs(dispatcher.context, HARVESTER, [{"diagID": 1}], ANYBODY)
    harvesters.add_metrics(dispatcher.context, HARVESTER, [["2027-01-15 08:00:00", "vm", {}]], ANYBODY)
    harvesters.order(dispatcher.context, HARVESTER, "KILL_WORKERS", "", {"status": ["running"]}, ANYBODY)
    synchronize(dispatcher, 3601)
    synchronize(dispatcher, 29 * 86400)
    assert len(harvesters.list_dialogs(dispatcher.context, None, None, 9)) == 1
    synchronize(dispatcher, 86400)
    found = workers.list_workers(dispatcher.context, harvester_id=HARVESTER, queue=None, statuses=(), limit=9)
    assert found == []
    for left in (
        harvesters.list_dialogs(dispatcher.context, None, None, 9),
        harvesters.list_metrics(dispatcher.context, None, 9),
        harvesters.list_commands(dispatcher.context, None, 9),
    ):
        assert left == []


#: Pilots whose credentials are for queues, one for any, and two Harvesters.
OF_A, OF_B = (Identity(f"pilot-{queue}", frozenset({Role.PILOT}), queue=queue) for queue in ("A", "B"))
OF_ANY = Identity("pilots", frozenset({Role.PILOT}))
OWNER, STRANGER = (Identity(name, frozenset({Role.HARVESTER})) for name in ("owner", "stranger"))


def test_a_pilot_speaks_of_workers_of_its_own_queue_alone(dispatcher: Dispatcher) -> None:
    say(dispatcher, "running", identity=OWNER, computingSite="A")
    for identity, word in ((OF_B, "worker '7' of 'h1' is of another queue"), (STRANGER, "belongs to owner")):
        with pytest.raises(NotAllowed, match=word):
            pilot_says(dispatcher, "finished", identity=identity)
    assert shown(dispatcher)["pilotStatus"] is None
    for identity in (OF_A, OF_ANY, OWNER, ANYBODY):
        pilot_says(dispatcher, "started", identity=identity)
        pilot_says(dispatcher, "finished", identity=identity)
    assert shown(dispatcher)["pilotStatus"] == "finished"


def test_a_pilot_that_spoke_before_harvester_did_says_nothing_of_another_queues_worker(dispatcher: Dispatcher) -> None:
    for number in (7, 8):
        pilot_says(dispatcher, "finished", number, OF_B)
        assert shown(dispatcher, number)["computingSite"] == "B"  # whatever it calls its site
    with pytest.raises(NotAllowed):
        pilot_says(dispatcher, "started", 7, OF_A)
    for number, queue in ((7, "A"), (8, "B")):
        say(dispatcher, "running", number, computingSite=queue)
    assert [shown(dispatcher, number)["pilotStatus"] for number in (7, 8)] == [None, "finished"]
    synchronize(dispatcher, 3601)
    assert kills(dispatcher) == [[8]]
    pilot_says(dispatcher, "started", 7, OF_A)


def test_no_instance_ends_the_jobs_of_others_with_a_worker_that_it_says_has_them(dispatcher: Dispatcher) -> None:
    others, own, pushed = dispatcher.submit({}, {}, {})
    for job, identity in ((others, OF_ANY), (own, OF_ANY), (pushed, OWNER)):
        worker = {"harvester_id": HARVESTER, "worker_id": "7"} if job == own else {}
        wish = JobRequest(queue=QUEUE, label="user", **worker)
        assert not isinstance(dispatch.acquire_jobs(dispatcher.context, wish, identity, "http://s"), NoJob)
        dispatcher.report(job, "running", identity)
    dispatcher.clock.now += 60
    say(dispatcher, "failed", identity=OWNER, pandaid_list=[others, own, pushed])
    dispatcher.clock.now += 3601
    worker_synchronization.run(dispatcher.context, [])
    assert [dispatcher.status(job) for job in (others, own, pushed)] == ["running", "failed", "failed"]


def links(dispatcher: Dispatcher) -> set[tuple[str, int]]:
    with dispatcher.context.database.reading() as connection:
        query = select(worker_jobs.c.workerID, worker_jobs.c.PandaID)
        return {(worker, job) for worker, job in connection.execute(query)}


def test_a_worker_that_nobody_ever_spoke_of_is_forgotten_with_its_jobs(dispatcher: Dispatcher) -> None:
    say(dispatcher, "running")
    known = in_worker(dispatcher)
    (over, queued) = dispatcher.submit({}, {"max_attempts": 2})
    for job in (over, queued):
        dispatcher.get_job(harvester_id=HARVESTER, worker_id="9")
        dispatcher.fail(job)
    dispatcher.finish(known)
    dispatcher.clock.now += 4 * 86400
    while archiving.archive_jobs(dispatcher.context):
        pass
    assert links(dispatcher) == {("7", known), ("9", queued)}


@pytest.mark.parametrize("worker", ["", "7"])
def test_a_jobs_details_name_its_workers(dispatcher: Dispatcher, worker: str) -> None:
    dispatcher.submit({})
    job = int(str(dispatcher.get_job(harvester_id=HARVESTER, worker_id=worker)["PandaID"]))
    say(dispatcher, "running")
    named = [one["workerID"] for one in details.job_details(dispatcher.context, job, ANYBODY)["workers"]]  # type: ignore[attr-defined]
    assert named == ([worker] if worker else [])
