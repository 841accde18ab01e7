"""Merge jobs that end at the same moment, and kills that come between: the merged job ends once, and none is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier

import pytest

from server.db import jobs
from server.logic import adder
from server.logic.finishing import take_merged
from tests.unit.server.dispatcher import Dispatcher, good_file

NAMES = ("panda.um.a", "panda.um.b")
#: s anything may take here; far more than it needs.
PATIENCE = 60
#: Pairs of merge jobs that run against each other: enough for either to be first now and then.
ROUNDS = 6


def stored(dispatcher: Dispatcher, job: int) -> None:
    """The pilot of a job reports all its files; the adder has not looked yet."""
    assert dispatcher.get_job()["PandaID"] == job
    names = [str(file["lfn"]) for file in dispatcher.files(job)]
    dispatcher.report(job, "finished", xml=json.dumps({name: good_file() for name in names}))


def merging(dispatcher: Dispatcher, prefix: str = "") -> tuple[int, int, int]:
    """A job that is merging, and two merge jobs of one of its outputs each, whose reports wait for the adder."""
    names = [f"{name}{prefix}" for name in NAMES]
    (maker,) = dispatcher.submit({"outputs": names})
    stored(dispatcher, maker)
    dispatcher.add()
    assert dispatcher.status(maker) == "merging"
    first, second = dispatcher.submit(
        *({"inputs": [name], "outputs": [f"{name}.merged"[9:]], "processingType": "pmerge"} for name in names)
    )
    for job in (first, second):
        stored(dispatcher, job)
    return maker, first, second


def history_of(dispatcher: Dispatcher, job: int) -> list[str]:
    return [status for _, status in dispatcher.states(job)]


def together(*tasks: Callable[[], object]) -> None:
    """Run tasks at the same moment, and raise what they raised."""
    start = Barrier(len(tasks))

    def run(task: Callable[[], object]) -> None:
        start.wait(PATIENCE)
        task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        running: list[Future[None]] = [pool.submit(run, task) for task in tasks]
        for one in running:
            one.result(PATIENCE)


def test_the_second_of_two_merge_jobs_waits_for_the_first_and_sees_what_it_did(dispatcher: Dispatcher) -> None:
    maker, first, second = merging(dispatcher)

    def take(merge_job: int) -> None:
        with dispatcher.context.database.durable() as connection:
            take_merged(dispatcher.context, connection, merge_job)

    with ThreadPoolExecutor(1) as other:
        with dispatcher.context.database.durable() as connection:
            assert take_merged(dispatcher.context, connection, first) == []
            taking = other.submit(take, second)
            with pytest.raises(TimeoutError):
                taking.result(0.3)
        taking.result(PATIENCE)
    assert history_of(dispatcher, maker)[-2:] == ["merging", "finished"]


def test_a_kill_waits_for_the_last_merge_job_and_comes_too_late(dispatcher: Dispatcher) -> None:
    maker, first, second = merging(dispatcher)
    with ThreadPoolExecutor(1) as other:
        with dispatcher.context.database.durable() as connection:
            for job in (first, second):
                take_merged(dispatcher.context, connection, job)
            killing = other.submit(dispatcher.kill, maker)
            with pytest.raises(TimeoutError):
                killing.result(0.3)
        (result,) = killing.result(PATIENCE)
    assert (result.killed, "already finished" in result.text) == (False, True)
    dispatcher.add()
    assert [dispatcher.status(job) for job in (maker, first, second)] == ["finished"] * 3


def test_merge_jobs_that_end_after_a_kill_finish_and_leave_the_killed_job_as_it_is(dispatcher: Dispatcher) -> None:
    maker, first, second = merging(dispatcher)
    with ThreadPoolExecutor(1) as other:
        with dispatcher.context.database.durable() as connection:
            job = jobs.lock_live(connection, maker)
            assert job is not None and jobs.change_job(connection, job, {"jobStatus": "cancelled"})
            adding = other.submit(dispatcher.add)
            with pytest.raises(TimeoutError):
                adding.result(0.3)
        adding.result(PATIENCE)
    assert [dispatcher.status(one) for one in (maker, first, second)] == ["cancelled", "finished", "finished"]


@pytest.mark.parametrize("killed", [False, True])
def test_merge_jobs_that_end_at_once_end_the_merged_job_once(dispatcher: Dispatcher, killed: bool) -> None:
    for number in range(ROUNDS):
        maker, first, second = merging(dispatcher, str(number))
        tasks: list[Callable[[], object]] = [lambda: adder.add_outputs(dispatcher.context)] * 3
        if killed:
            tasks.append(lambda job=maker: dispatcher.kill(job))  # type: ignore[misc]
        together(*tasks)
        dispatcher.add()  # a report that two adders wanted was left to one of them
        assert [dispatcher.status(job) for job in (first, second)] == ["finished"] * 2
        (end,) = [status for status in history_of(dispatcher, maker) if status in ("finished", "cancelled")]
        assert dispatcher.status(maker) == end
        assert killed or end == "finished"
