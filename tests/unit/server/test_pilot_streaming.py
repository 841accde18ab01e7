"""Unified pilot streaming: workers wanted from jobs and from what Harvester has, and the commands that say so."""

from __future__ import annotations

from typing import Any

import pytest

from server.db.information import ConfigValue
from server.logic import configuration, harvesters, queues, shares, workers
from server.logic.context import ANYBODY
from server.logic.pilotstreaming import Kind, Policy, new_workers, stream
from tests.unit.server.dispatcher import QUEUE, Dispatcher

SCORE, MCORE, USER = ("managed", "SCORE"), ("managed", "MCORE"), ("user", "SCORE")
HARVESTER = "h1"


@pytest.mark.parametrize(
    ("running", "waiting", "queued", "wanted"),
    [
        (0, {}, [], {"managed": {"SCORE": 1}}),
        (0, {SCORE: 1}, [], {}),
        (100, {}, [], {"managed": {"SCORE": 1}}),
        (0, {}, [(MCORE, 500)], {"managed": {"MCORE": 1}}),
        (10, {}, [(SCORE, 500)], {"managed": {"SCORE": 5}}),
        (11, {SCORE: 2}, [(SCORE, 500)], {"managed": {"SCORE": 4}}),
        (10, {SCORE: 5}, [(SCORE, 500)], {}),
        (10, {SCORE: 9}, [(SCORE, 500)], {}),
        (10, {}, [(SCORE, 3)], {"managed": {"SCORE": 3}}),
        (10, {}, [(MCORE, 2), (USER, 1), (SCORE, 500)], {"managed": {"MCORE": 2, "SCORE": 2}, "user": {"SCORE": 1}}),
        (10, {MCORE: 2}, [(MCORE, 2), (USER, 1)], {"user": {"SCORE": 1}}),
        (10_000, {}, [(SCORE, 9000)], {"managed": {"SCORE": 1000}}),
        (10, {SCORE: 3}, [(SCORE, 2), (USER, 1), (SCORE, 500)], {"managed": {"SCORE": 1}, "user": {"SCORE": 1}}),
    ],
)
def test_new_workers_follow_what_runs_what_waits_and_what_there_is_to_do(
    running: int, waiting: dict[Kind, int], queued: list[tuple[Kind, int]], wanted: dict[str, dict[str, int]]
) -> None:
    assert new_workers(running, waiting, queued, Policy()) == wanted


@pytest.fixture
def streamed(dispatcher: Dispatcher) -> Dispatcher:
    """A dispatcher whose queue is streamed, with one instance that has said what it has."""
    ups = {"workflow": "pull_ups", "capability": "ucore", "harvester": HARVESTER}
    queues.add_queues(dispatcher.context, {QUEUE: ups, "OTHER": {}})
    report(dispatcher, {})
    return dispatcher


def report(dispatcher: Dispatcher, counts: dict[str, Any], harvester_id: str = HARVESTER) -> None:
    workers.report_statistics(dispatcher.context, harvester_id, QUEUE, counts, ANYBODY)


def ordered(dispatcher: Dispatcher, harvester_id: str = HARVESTER) -> dict[str, Any]:
    """The commands of a round, by their words."""
    stream(dispatcher.context)
    taken = harvesters.take_commands(dispatcher.context, harvester_id, 99, ANYBODY)
    return {str(one["command"]): one["params"] for one in taken}


REPORT, SET = f"REPORT_WORKER_STATS:{QUEUE}", f"SET_N_WORKERS_JOBTYPE:{QUEUE}"


def test_a_queue_that_is_streamed_gets_workers_for_its_jobs_and_no_other(streamed: Dispatcher) -> None:
    assert ordered(streamed) == {REPORT: None, SET: {"managed": {"SCORE": 1}}}
    low, high = {"label": "managed", "priority": 10}, {"label": "user", "cores": 8, "priority": 900}
    streamed.submit(*([low] * 5), *([high] * 2), {"queue": "OTHER"})
    report(streamed, {"managed": {"SCORE": {"running": 8, "submitted": 1, "failed": 70}}})
    streamed.clock.now += 61
    assert ordered(streamed) == {REPORT: None, SET: {"user": {"MCORE": 2}, "managed": {"SCORE": 1}}}


def test_workers_are_for_the_jobs_whose_shares_turn_it_is(streamed: Dispatcher) -> None:
    tree = {"Big": {"value": 90, "prodSourceLabel": "user"}, "Small": {"value": 10, "prodSourceLabel": "managed"}}
    shares.set_shares(streamed.context, tree)
    streamed.submit(*([{"label": "managed", "priority": 5000}] * 3), *([{"label": "user"}] * 3))
    streamed.get_job(label="managed")
    shares.count_jobs(streamed.context)
    streamed.clock.now += 61
    report(streamed, {"managed": {"SCORE": {"running": 8}}})
    assert ordered(streamed)[SET] == {"user": {"SCORE": 3}, "managed": {"SCORE": 1}}


@pytest.mark.parametrize("change", [{"status": "offline"}, {"status": "paused"}, {"state": "DISABLED"},
                                    {"workflow": "push"}, {"capability": "score"}])  # fmt: skip
def test_a_queue_that_is_closed_or_not_streamed_gets_none(streamed: Dispatcher, change: dict[str, object]) -> None:
    queues.change_queue(streamed.context, QUEUE, change)
    assert ordered(streamed) == {}


def test_who_has_not_said_what_it_has_is_asked_first(streamed: Dispatcher) -> None:
    queues.change_queue(streamed.context, QUEUE, {"harvester": "h2"})
    harvesters.heartbeat(streamed.context, "h2", {}, ANYBODY)
    assert ordered(streamed, "h2") == {REPORT: None}
    streamed.clock.now += 3601
    assert ordered(streamed, "h2") == {}, "it is not there any more"


def test_several_instances_of_a_queue_are_filled_evenly(streamed: Dispatcher) -> None:
    queues.change_queue(streamed.context, QUEUE, {"harvester": ""})
    streamed.submit(*([{"label": "managed"}] * 50))
    report(streamed, {"managed": {"SCORE": {"running": 20, "submitted": 4}}})
    report(streamed, {"managed": {"SCORE": {"running": 20, "submitted": 1}}}, "h2")
    assert ordered(streamed) == {REPORT: None}
    assert ordered(streamed, "h2")[SET] == {"managed": {"SCORE": 15}}


def test_operators_set_how_many_wait(streamed: Dispatcher) -> None:
    streamed.submit(*([{"label": "managed"}] * 50))
    report(streamed, {"managed": {"SCORE": {"running": 20}}})
    for key, value in (("WAITING_PER_RUNNING", "2"), ("MAX_NEW_WORKERS", "30")):
        wish = ConfigValue("pandaserver", "pilotstreaming", key, "", value, "", None)
        configuration.set_value(streamed.context, wish)
    streamed.clock.now += 60
    assert ordered(streamed)[SET] == {"managed": {"SCORE": 30}}
