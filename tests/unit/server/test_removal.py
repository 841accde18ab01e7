"""Queues and storages that go: not while somebody needs them, unless it is meant."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from server.db import information, sources
from server.logic import details, queues, removal
from server.logic.context import ANYBODY, Identity, Role
from server.logic.errors import BadJob, Conflict, NotAllowed, NotFound
from tests.unit.server.dispatcher import QUEUE, Dispatcher


def names(dispatcher: Dispatcher) -> tuple[list[str], list[str]]:
    context = dispatcher.context
    return list(queues.read_queues(context)), list(queues.read_storages(context))


def remove(dispatcher: Dispatcher, *, force: bool = False) -> int:
    return removal.remove_queue(dispatcher.context, QUEUE, ANYBODY, force=force)


def test_a_queue_without_jobs_goes_and_its_history_stays(dispatcher: Dispatcher) -> None:
    (over,) = dispatcher.submit({})
    dispatcher.kill(over)
    assert remove(dispatcher) == 0
    assert names(dispatcher)[0] == []
    assert dispatcher.job(over)["computingSite"] == QUEUE
    with dispatcher.context.database.reading() as connection:
        last = information.read_queue_history(connection, QUEUE, 9)[-1]
    assert (last["status"], last["actor"]) == ("removed", "operator")
    with pytest.raises(BadJob, match="no queue"):
        dispatcher.submit({})
    with pytest.raises(NotFound):
        remove(dispatcher)
    queues.add_queues(dispatcher.context, {QUEUE: {}})
    assert dispatcher.submit({})


def test_a_queue_with_jobs_stays_unless_they_are_to_be_killed(dispatcher: Dispatcher) -> None:
    waits, runs, chained = dispatcher.submit({"priority": 1}, {"priority": 2000}, {"inputs": ["nobody.makes"]})
    assert dispatcher.get_job()["PandaID"] == runs
    with pytest.raises(Conflict, match=rf"has jobs that are not over \(3, the newest is {chained}\)"):
        remove(dispatcher)
    assert (names(dispatcher)[0], dispatcher.status(waits)) == ([QUEUE], "activated")
    assert remove(dispatcher, force=True) == 3
    assert [dispatcher.status(job) for job in (waits, runs, chained)] == ["cancelled"] * 3
    assert dispatcher.report(runs, "running").command == "tobekilled"
    assert names(dispatcher)[0] == []


def test_jobs_whose_result_is_being_recorded_keep_their_queue(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({})
    dispatcher.get_job()
    dispatcher.report(job, "finished", xml="{}")
    with pytest.raises(Conflict, match="try again"):
        remove(dispatcher, force=True)
    dispatcher.add()
    assert remove(dispatcher) == 0


def test_a_storage_goes_when_no_queue_names_it(dispatcher: Dispatcher) -> None:
    context = dispatcher.context
    queues.add_storages(context, {"DISK": {"state": "ACTIVE"}, "TAPE": {}})
    removal.remove_storage(context, "TAPE")
    with pytest.raises(Conflict, match=f"named by the queues {QUEUE} "):
        removal.remove_storage(context, "DISK")
    assert names(dispatcher)[1] == ["DISK"]
    removal.remove_storage(context, "DISK", force=True)
    assert names(dispatcher)[1] == []
    with pytest.raises(NotFound, match="no storage 'DISK'"):
        removal.remove_storage(context, "DISK")


@pytest.mark.parametrize(
    ("source", "name", "take_out"),
    [
        ("queues", QUEUE, lambda one: remove(one, force=True)),
        ("storages", "DISK", lambda one: removal.remove_storage(one.context, "DISK", force=True)),
    ],
)
def test_what_the_information_service_describes_stays_until_it_does_not(
    dispatcher: Dispatcher, source: str, name: str, take_out: Callable[[Dispatcher], object]
) -> None:
    queues.add_storages(dispatcher.context, {"DISK": {}})
    with dispatcher.context.database.durable() as connection:
        sources.store_entries(connection, source, {name: {}}, dispatcher.clock.now)
    with pytest.raises(Conflict, match="information service"):
        take_out(dispatcher)
    with dispatcher.context.database.durable() as connection:
        sources.mark_vanished(connection, source, [name], dispatcher.clock.now)
    take_out(dispatcher)
    with dispatcher.context.database.reading() as connection:
        assert sources.read_entry(connection, source, name) is None


def test_jobs_are_listed_by_task_and_user(dispatcher: Dispatcher) -> None:
    alice, root = Identity("alice", frozenset({Role.USER})), Identity("root", frozenset({Role.OPERATOR}))
    (mine,) = dispatcher.submit({"taskID": 7}, identity=alice)
    other, untasked = dispatcher.submit({"taskID": 7, "user": "bob"}, {"user": "bob"})

    def listed(identity: Identity = root, **conditions: object) -> list[object]:
        return [job["PandaID"] for job in details.list_jobs(dispatcher.context, identity, **conditions)]  # type: ignore[arg-type]

    assert listed(task_id=7) == [other, mine]
    assert listed(task_id=7, user="bob") == [other]
    assert listed(user="bob") == [untasked, other]
    assert listed(task_id=8) == []
    assert listed(alice, task_id=7) == listed(alice, user="alice") == [mine]
    with pytest.raises(NotAllowed, match="bob"):
        listed(alice, user="bob")


def test_the_jobs_of_a_task_are_found_by_their_index(dispatcher: Dispatcher) -> None:
    with dispatcher.context.database.reading() as connection:
        is_sqlite = connection.dialect.name == "sqlite"
        if not is_sqlite:  # its tables are empty, where any way is as good
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        text = 'SELECT * FROM jobs WHERE "taskID" = 7 AND "taskID" > 0 ORDER BY "PandaID" DESC LIMIT 5'
        plan = connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' if is_sqlite else ''}{text}").all()
    words = " ".join(str(part) for row in plan for part in row)
    assert "jobs_of_task" in words and "TEMP B-TREE" not in words and "Sort" not in words, words
