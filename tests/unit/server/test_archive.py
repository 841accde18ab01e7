"""The archive: jobs that are over leave the live tables whole, and every question by number still finds them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from sqlalchemy import func, inspect, select

from server.db import archive, tables
from server.db.archive import DAY
from server.db.information import ConfigValue
from server.logic import archiving, configuration, details, events, livelog, orders
from server.logic.context import ANYBODY, Identity, Role
from server.logic.errors import Conflict, NotAllowed, NotFound
from server.logic.parameters import APPLICATION
from tests.unit.server.dispatcher import QUEUE, START, Dispatcher

USER = Identity("somebody", frozenset({Role.USER}))


def set_policy(dispatcher: Dispatcher, **days: float) -> None:
    for key, number in days.items():
        value = ConfigValue(APPLICATION, "archive", key, "", str(number), "", "")
        configuration.set_value(dispatcher.context, value)


def ended_jobs(dispatcher: Dispatcher) -> dict[str, int]:
    """A job of each ending, with all that a job may have; and one that is queued."""
    set_policy(dispatcher, EVENTS_DAYS=0)  # nobody will merge the ranges
    outputs = {"outputs": ["a"], "events": {"number": 20, "per_range": 10}}
    finished, failed, cancelled, queued = dispatcher.submit(
        outputs,
        {"max_attempts": 2, "inputs": [{"lfn": "b", "endpoint": "DISK", "fsize": 5, "checksum": "00000001"}]},
        {},
        {},
    )
    assert dispatcher.get_job()["PandaID"] == finished
    (first, second) = events.acquire_ranges(dispatcher.context, finished, 5, "", ANYBODY)
    dispatcher.report(finished, "running", stdout="words")
    reports = [events.RangeReport(str(one["eventRangeID"]), "finished") for one in (first, second)]
    events.update_ranges(dispatcher.context, reports, "", ANYBODY)
    dispatcher.finish(finished, metaData=json.dumps({"key": "value"}), pilotLog="a log")
    for _ in range(2):
        assert dispatcher.get_job()["PandaID"] == failed
        dispatcher.fail(failed, 1305, pilotErrorDiag="it broke")
    dispatcher.kill(cancelled)
    return {"finished": finished, "failed": failed, "cancelled": cancelled, "activated": queued}


def live_rows(dispatcher: Dispatcher, ids: Sequence[int]) -> dict[str, int]:
    with dispatcher.context.database.reading() as connection:
        return {
            table.name: connection.execute(
                select(func.count()).select_from(table).where(table.c.PandaID.in_(ids))
            ).scalar_one()
            for table in (*archive.MOVED, tables.archived_jobs)
        }


def test_a_job_that_is_over_for_long_enough_is_archived_and_told_as_before(dispatcher: Dispatcher) -> None:
    ids = ended_jobs(dispatcher)
    over = [ids["finished"], ids["failed"], ids["cancelled"]]
    before = {job_id: dispatcher.job(job_id) for job_id in ids.values()}
    dispatcher.clock.now += 3 * DAY
    assert archiving.archive_jobs(dispatcher.context) == 0  # not longer than three days
    dispatcher.clock.now += 1
    assert archiving.archive_jobs(dispatcher.context) == 3
    assert archiving.archive_jobs(dispatcher.context) == 0
    assert live_rows(dispatcher, over) == {**{table.name: 0 for table in archive.MOVED}, "archived_jobs": 3}
    assert {job_id: dispatcher.job(job_id) for job_id in ids.values()} == before


def test_lists_and_states_by_number_find_archived_jobs(dispatcher: Dispatcher) -> None:
    ids = ended_jobs(dispatcher)
    wanted = [ids["failed"], ids["finished"], 77, ids["activated"], ids["cancelled"]]

    def told() -> tuple[object, ...]:
        context = dispatcher.context
        return (
            details.job_states(context, wanted),
            details.job_orders(context, wanted),
            details.list_jobs(context, ANYBODY, job_ids=wanted),
            details.list_jobs(context, ANYBODY, job_ids=wanted, limit=2),
            details.list_jobs(context, ANYBODY, job_ids=wanted, statuses=["failed", "activated"], queue=QUEUE),
            details.list_jobs(context, USER, job_ids=wanted),
        )

    before = told()
    dispatcher.clock.now += 4 * DAY
    assert archiving.archive_jobs(dispatcher.context) == 3
    assert told() == before
    assert [job["PandaID"] for job in details.list_jobs(dispatcher.context, ANYBODY)] == [ids["activated"]]


def test_whoever_still_speaks_of_an_archived_job_is_answered_as_before(dispatcher: Dispatcher) -> None:
    ids = ended_jobs(dispatcher)
    over = [ids["finished"], ids["failed"], ids["cancelled"]]

    def told() -> list[object]:
        answers: list[object] = [
            dispatcher.report(job_id, state) for job_id in over for state in ("running", "finished")
        ]
        answers += [dispatcher.report(ids["failed"], "failed", attemptNr=1)]
        answers += [dispatcher.kill(*over), dispatcher.kill(ids["finished"], identity=USER)]
        answers += [livelog.read(dispatcher.context, ids["failed"], None, 0, ANYBODY)]
        return answers

    before = told()
    assert [answer.command for answer in before[:6]] == [*["alreadydone"] * 4, *["tobekilled"] * 2]  # type: ignore[attr-defined]
    dispatcher.clock.now += 4 * DAY
    archiving.archive_jobs(dispatcher.context)
    assert told() == before
    with pytest.raises(Conflict, match="it is over, it is finished"):
        orders.set_debug_mode(dispatcher.context, ids["finished"], True, ANYBODY)
    with pytest.raises(NotAllowed):
        details.job_details(dispatcher.context, ids["finished"], USER)
    assert live_rows(dispatcher, over)["jobs"] == 0


def test_a_job_goes_to_the_day_it_ended_and_days_are_forgotten_by_policy(dispatcher: Dispatcher) -> None:
    set_policy(dispatcher, AFTER_DAYS=1, KEEP_DAYS=10)
    first = dispatcher.submit({}, {})
    dispatcher.kill(*first)
    dispatcher.clock.now += 2 * DAY
    (second,) = dispatcher.submit({})
    dispatcher.kill(second)
    dispatcher.clock.now += 2 * DAY
    assert archiving.archive_jobs(dispatcher.context) == 3
    day = int(START // DAY)
    with dispatcher.context.database.reading() as connection:
        known = connection.execute(select(tables.archived_days).order_by("day")).all()
    assert [tuple(row) for row in known] == [(day, first[0], first[1], 2), (day + 2, second, second, 1)]
    assert archiving.forget_jobs(dispatcher.context) == 0
    dispatcher.clock.now = (day + 11) * DAY
    assert archiving.forget_jobs(dispatcher.context) == 1
    with pytest.raises(NotFound):
        dispatcher.job(first[0])
    assert dispatcher.status(second) == "cancelled"
    assert details.job_orders(dispatcher.context, first[:1]) == [
        {"job_id": first[0], "status": "unknown", "attempt_number": 0, "command": "tobekilled"}
    ]


def test_a_day_of_many_jobs_is_forgotten_too(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "_FORGOTTEN", 2)
    set_policy(dispatcher, AFTER_DAYS=0, KEEP_DAYS=1)
    ids = dispatcher.submit(*[{}] * 5)
    dispatcher.kill(*ids)
    dispatcher.clock.now += 3 * DAY
    assert archiving.archive_jobs(dispatcher.context) == 5
    assert archiving.forget_jobs(dispatcher.context) == 1
    assert live_rows(dispatcher, ids)["archived_jobs"] == 0


def test_jobs_are_kept_for_ever_unless_somebody_says_otherwise(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({})
    dispatcher.kill(job)
    dispatcher.clock.now += 4 * DAY
    archiving.archive_jobs(dispatcher.context)
    dispatcher.clock.now += 36_500 * DAY
    archiving.forget_jobs(dispatcher.context)
    assert dispatcher.status(job) == "cancelled"


def test_a_transaction_that_breaks_leaves_every_job_where_it_was(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the moment: the last statement of a batch is the worst."""
    monkeypatch.setattr(archiving, "_BATCH", 2)
    ids = dispatcher.submit(*[{}] * 4)
    dispatcher.kill(*ids)
    before = [dispatcher.job(job_id) for job_id in ids]
    dispatcher.clock.now += 4 * DAY
    whole, broken = archive.archive, iter((False, True))

    def breaks(*arguments: object) -> None:
        whole(*arguments)  # type: ignore[arg-type]
        if next(broken):
            raise RuntimeError

    monkeypatch.setattr(archive, "archive", breaks)
    with pytest.raises(RuntimeError):
        archiving.archive_jobs(dispatcher.context)
    assert live_rows(dispatcher, ids) | {"files": 0, "job_texts": 0} == live_rows(dispatcher, ids[2:]) | {
        "files": 0, "job_texts": 0, "archived_jobs": 2
    }  # fmt: skip
    monkeypatch.setattr(archive, "archive", whole)
    assert archiving.archive_jobs(dispatcher.context) == 2
    assert [dispatcher.job(job_id) for job_id in ids] == before


def test_every_table_with_rows_of_a_job_is_archived_with_it_or_has_a_reason_to_stay() -> None:
    # Names stay taken for ever; who comes from whom is asked from either end; which jobs a worker had goes with it.
    stay = {"catalogue", "job_relations", "worker_jobs"}
    of_jobs = {table.name for table in tables.metadata.tables.values() if "PandaID" in table.c}
    assert of_jobs == stay | {table.name for table in (*archive.MOVED, *archive.DROPPED)} | {"archived_jobs"}


def test_jobs_that_are_over_are_found_by_an_index_alone(dispatcher: Dispatcher) -> None:
    old = select(tables.jobs.c.PandaID).where(archive.IS_OVER, tables.jobs.c.stateChangeTime < 5.0)
    statement = old.order_by(tables.jobs.c.stateChangeTime).limit(5)
    with dispatcher.context.database.reading() as connection:
        is_sqlite = connection.dialect.name == "sqlite"
        text = str(statement.compile(connection.engine, compile_kwargs={"literal_binds": True}))
        if not is_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' if is_sqlite else ''}{text}").all()
    words = " ".join(str(part) for row in plan for part in row)
    assert "jobs_over" in words
    assert "TEMP B-TREE" not in words and "Sort" not in words


@pytest.mark.postgresql
def test_on_postgresql_a_day_is_a_partition_made_ahead_and_a_job_is_looked_for_in_its_day_alone(
    dispatcher: Dispatcher,
) -> None:
    if dispatcher.context.database.is_sqlite:
        return
    ids = dispatcher.submit({}, {})
    dispatcher.kill(ids[0])
    dispatcher.clock.now += 4 * DAY
    dispatcher.kill(ids[1])
    archiving.archive_jobs(dispatcher.context)
    dispatcher.clock.now += 4 * DAY
    archiving.archive_jobs(dispatcher.context)
    with dispatcher.context.database.reading() as connection:
        days = [name for name in inspect(connection).get_table_names() if name.startswith("archived_jobs_")]
        plan = connection.exec_driver_sql(
            f'EXPLAIN SELECT * FROM archived_jobs WHERE day IN ({int(START // DAY)}) AND "PandaID" = {ids[0]}'
        ).all()
    assert len(days) == 4 + 4 + 1 + 2
    assert sum("archived_jobs_" in line for (line,) in plan) == 1
