"""The numbers of jobs in the list of queues: right at once where there are few, cheap where there are many."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, event, insert

from server.db import locks
from server.db import statistics as counting
from server.db.statistics import JobCount
from server.db.tables import job_statistics
from server.logic import statistics
from server.logic.dispatch import iso_time
from tests.unit.server.dispatcher import QUEUE, Dispatcher


def jobs_of(dispatcher: Dispatcher) -> object:
    (queue,) = statistics.list_queues(dispatcher.context)
    assert queue["name"] == QUEUE
    return queue["jobs"]


def test_few_jobs_are_counted_for_each_who_asks(dispatcher: Dispatcher) -> None:
    assert jobs_of(dispatcher) == {}
    first, _ = dispatcher.submit({}, {})
    assert jobs_of(dispatcher) == {"activated": 2}
    dispatcher.kill(first)
    assert jobs_of(dispatcher) == {"activated": 1, "cancelled": 1}
    assert statistics.by_queue(dispatcher.context) == {QUEUE: {"activated": 1}}, "Harvester asks for what is not over"


def test_a_job_that_is_over_is_counted_for_an_hour(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({})
    dispatcher.kill(job)
    dispatcher.clock.now += statistics.ENDED - 1
    assert jobs_of(dispatcher) == {"cancelled": 1}
    dispatcher.clock.now += 2
    assert jobs_of(dispatcher) == {}


@pytest.mark.parametrize(("number", "age"), [(999, 0), (30_000, 30), (10**6, 120)])
def test_the_more_jobs_there_are_the_older_a_count_may_be_and_many_are_left_to_the_daemon(
    dispatcher: Dispatcher, number: int, age: int
) -> None:
    jobs_of(dispatcher)
    known = JobCount(QUEUE, "user", "SCORE", "running", "", number, 0)
    with dispatcher.context.database.durable() as connection:
        connection.execute(insert(job_statistics), [known._asdict()])
    dispatcher.submit({})
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    if age:
        dispatcher.clock.now += age - 1
        event.listen(Engine, "before_cursor_execute", note)
        try:
            (queue,) = statistics.list_queues(dispatcher.context)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        assert (queue["jobs"], queue["counted"]) == ({"running": number}, "2027-01-15T08:00:00.000+00:00")
        assert len(statements) >= 3
        assert not [text for text in statements if "FROM jobs" in text or "UPDATE" in text], statements
        dispatcher.clock.now += 1
    assert jobs_of(dispatcher) == {"activated": 1}


def test_a_count_that_somebody_makes_makes_the_one_before_no_newer(dispatcher: Dispatcher) -> None:
    dispatcher.submit({})
    jobs_of(dispatcher)
    before = dispatcher.clock.now
    dispatcher.clock.now += 3600
    dispatcher.submit({})
    with dispatcher.context.database.durable() as connection:  # whoever counts takes long, or has died over it
        assert locks.take_turn(connection, "job_statistics", "somebody", 60, 300, dispatcher.clock.now) == 0
    for _ in range(2):
        (queue,) = statistics.list_queues(dispatcher.context)
        assert (queue["jobs"], queue["counted"]) == ({"activated": 1}, iso_time(before))
    dispatcher.clock.now += 301
    assert jobs_of(dispatcher) == {"activated": 2}


def test_what_ended_lately_is_found_by_its_index(dispatcher: Dispatcher) -> None:
    with dispatcher.context.database.reading() as connection:
        is_sqlite = connection.dialect.name == "sqlite"
        literal = counting._ENDED.params(since=5.0).compile(
            dialect=connection.dialect, compile_kwargs={"literal_binds": True}
        )
        if not is_sqlite:  # its tables are empty, where reading all of them in the order of the groups is cheapest
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_indexscan = off")
        plan = connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' if is_sqlite else ''}{literal}").all()
    assert "jobs_over" in " ".join(str(part) for row in plan for part in row), plan
