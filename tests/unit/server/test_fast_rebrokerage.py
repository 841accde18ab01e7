"""Fast rebrokerage: which queues have too many jobs of a share, and which of these leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from server.daemon.scripts import fast_rebrokerage
from server.db.files import JobFile
from server.db.statistics import JobCount, read_counts
from server.logic import configuration, queues, setupper, statistics
from server.logic.fastrebrokerage import Thresholds, surpluses
from server.logic.plugins import JobRow, Preparation
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE, Dispatcher, dispatcher_in

OTHER = "OTHER"
#: What jobs belong to on a server without shares.
SHARE = "Undefined"


def counts(of_queue: Mapping[tuple[str, str], int], share: str = "S") -> list[JobCount]:
    """(queue, state) -> jobs."""
    return [JobCount(queue, "user", "SCORE", status, share, n, 0) for (queue, status), n in of_queue.items()]


@pytest.mark.parametrize(
    ("of_queue", "surplus"),
    [
        ({("A", "activated"): 101}, 1),
        ({("A", "activated"): 100}, 0),
        ({("A", "activated"): 60, ("A", "assigned"): 30, ("A", "defined"): 8, ("A", "starting"): 4}, 2),
        ({("A", "activated"): 99, ("A", "pending"): 50, ("A", "throttled"): 50, ("A", "holding"): 50}, 0),
        ({("A", "activated"): 400, ("A", "running"): 100}, 100),  # three for each that runs
        ({("A", "activated"): 400, ("A", "running"): 70, ("A", "sent"): 30}, 100),
        ({("A", "activated"): 300, ("A", "running"): 100}, 0),
        ({("A", "activated"): 400, ("B", "activated"): 600, ("B", "running"): 900}, 100),  # 30 % of a thousand
        ({("A", "activated"): 200, ("B", "activated"): 600, ("B", "running"): 900}, 0),
    ],
)
def test_a_queue_has_too_many_jobs_when_each_threshold_says_so(
    of_queue: dict[tuple[str, str], int], surplus: int
) -> None:
    part = 0.3 if any(queue == "B" for queue, _ in of_queue) else 0.0
    found = surpluses(counts(of_queue), Thresholds(3, part, {"S": 100}))
    assert [(one.queue, one.number) for one in found] == ([("A", surplus)] if surplus else [])


def test_shares_are_looked_at_one_by_one_and_those_without_a_threshold_not_at_all() -> None:
    both = counts({("A", "activated"): 500}, "S") + counts({("A", "activated"): 500, ("A", "running"): 99}, "T")
    assert [one.share for one in surpluses(both, Thresholds(3, 0.3, {"S": 10}))] == ["S"]
    (first, second) = surpluses(both, Thresholds(3, 0.3, {"S": 10, "T": 10}))
    assert (first.share, first.number, second.share, second.number) == ("S", 350, "T", 203)


class ToOther:
    """A broker that knows one other queue, but not for all."""

    asked: list[tuple[object, str]] = []  # noqa: RUF012  # emptied by each test

    def other_queue(self, job: JobRow, reason: str) -> str | None:
        self.asked.append((job["PandaID"], reason))
        return None if job["workingGroup"] == "STAY" else OTHER


class Slow:
    """A setupper that is through when the test says so."""

    through = False

    def prepare(self, job: JobRow, inputs: object) -> Preparation:
        return Preparation(wait="" if self.through else "not yet")


@pytest.fixture
def brokered(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[Dispatcher]:
    """A dispatcher with a broker and a second queue; five queued jobs are enough."""
    ToOther.asked.clear()
    plugins = {"broker_plugins": f"any:{__name__}:ToOther", "setupper_plugins": f"slow:{__name__}:Slow"}
    with dispatcher_in(tmp_path, empty_database, **plugins) as made:
        queues.add_queues(made.context, {OTHER: {}})
        made.configure(f"FAST_REBRO_THRESHOLD_NQUEUE_{SHARE}", 5)
        yield made


def run(dispatcher: Dispatcher) -> None:
    """One run of the script, after the last count has become too old."""
    dispatcher.clock.now += statistics.FRESH + 1
    fast_rebrokerage.run(dispatcher.context, [])


def at_other(dispatcher: Dispatcher, *jobs: int) -> list[int]:
    return [job for job in jobs if dispatcher.job(job)["computingSite"] == OTHER]


def test_the_jobs_that_would_wait_longest_leave_until_the_queue_has_no_more_than_it_may(brokered: Dispatcher) -> None:
    low = brokered.submit(*({"priority": 10} for _ in range(4)))
    high = brokered.submit(*({"priority": 20} for _ in range(4)))
    run(brokered)
    assert at_other(brokered, *low, *high) == low[1:]
    assert brokered.get_job()["PandaID"] == high[0]
    assert brokered.get_job(queue=OTHER)["PandaID"] == low[1]
    history = brokered.job(low[3])["history"]
    assert isinstance(history, list)
    assert "8 jobs of share Undefined are queued there, and 0 run" in history[-1]["reason"]
    run(brokered)
    assert len(ToOther.asked) == 3


def test_jobs_that_run_let_a_queue_have_more_that_wait(brokered: Dispatcher) -> None:
    jobs = brokered.submit(*({"priority": priority} for priority in range(20, 8, -1)))
    for job in jobs[:2]:
        brokered.get_job()
        brokered.report(job, "running")
    run(brokered)
    assert at_other(brokered, *jobs) == jobs[-4:]  # 3 for each of the two stay


def test_jobs_that_wait_for_inputs_or_their_preparation_leave_too(brokered: Dispatcher) -> None:
    (make,) = brokered.submit({"outputs": ["a"], "workingGroup": "STAY"})
    waiting = brokered.submit(*({"inputs": ["a"]} for _ in range(4)))
    defined = brokered.submit(*({"vo": "slow"} for _ in range(3)))
    setupper.prepare_jobs(brokered.context)
    assert [brokered.status(job) for job in defined] == ["defined"] * 3
    brokered.configure(f"FAST_REBRO_THRESHOLD_NQUEUE_{SHARE}", 2)
    run(brokered)
    assert at_other(brokered, make, *waiting, *defined) == [*waiting, *defined[2:]]
    brokered.finish(int(str(brokered.get_job()["PandaID"])))
    assert brokered.get_job(queue=OTHER)["PandaID"] == waiting[0]


def test_what_a_setupper_did_for_the_queue_that_a_job_has_left_is_done_again(
    brokered: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = brokered.submit({"vo": "slow"})
    seen: list[object] = []

    def prepare(_self: Slow, row: JobRow, _inputs: list[JobFile]) -> Preparation:
        seen.append(row["computingSite"])
        if len(seen) == 1:  # the job leaves while it is being prepared
            run(brokered)
        return Preparation()

    brokered.configure(f"FAST_REBRO_THRESHOLD_NQUEUE_{SHARE}", 0)
    monkeypatch.setattr(Slow, "prepare", prepare)
    setupper.prepare_jobs(brokered.context)
    assert brokered.status(job) == "defined"
    setupper.prepare_jobs(brokered.context)
    assert (brokered.status(job), seen) == ("activated", [QUEUE, OTHER])


@pytest.mark.parametrize("change", [{"status": "paused"}, {"catchall": "x,disableReassign"}])
def test_a_queue_without_time_outs_keeps_its_jobs(brokered: Dispatcher, change: dict[str, object]) -> None:
    queues.change_queue(brokered.context, QUEUE, change)
    brokered.submit(*[{}] * 8)
    run(brokered)
    assert ToOther.asked == []


def test_one_run_asks_of_a_limited_number_of_jobs_and_of_every_queue(brokered: Dispatcher) -> None:
    jobs = brokered.submit(*[{"workingGroup": "STAY"}] * 250, *[{"queue": OTHER}] * 150)
    run(brokered)
    asked = [job for job, _ in ToOther.asked]
    assert sorted(asked) == [*jobs[150:250], *jobs[370:]]  # half of the 200, though 130 are too many; 30


def was_counted(dispatcher: Dispatcher) -> bool:
    with dispatcher.context.database.reading() as connection:
        return bool(read_counts(connection).counts)


@pytest.mark.parametrize("without", ["threshold", "broker"])
def test_nothing_is_counted_while_no_share_has_a_threshold_or_no_vo_a_broker(
    brokered: Dispatcher, without: str
) -> None:
    brokered.submit(*[{}] * 8)
    context = brokered.context
    if without == "broker":
        context = replace(context, settings=replace(context.settings, broker_plugins=""))
    else:
        configuration.remove_value(context, "watcher", f"FAST_REBRO_THRESHOLD_NQUEUE_{SHARE}")
    fast_rebrokerage.run(context, [])
    assert not was_counted(brokered)
    brokered.configure(f"FAST_REBRO_THRESHOLD_NQUEUE_{SHARE}", 5)
    run(brokered)
    assert was_counted(brokered)
