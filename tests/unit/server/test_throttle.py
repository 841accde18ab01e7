"""Nodes on which jobs only fail get a pause; and which failures count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from server.db.information import ConfigValue
from server.logic import configuration, nodes
from server.logic.errors import NotFound
from server.logic.explain import SENT_TIMEOUT
from server.logic.throttle import host_of
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE, Dispatcher, dispatcher_in

NODE = "slot1_1@wn1.example.org"
HOST = "wn1.example.org"
#: Blamed on the site, on the payload, on a storage, on the batch system.
SITES, PAYLOADS, STORAGES, BATCHS = 1325, 1305, 1137, 1213


@pytest.fixture
def dispatcher(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[Dispatcher]:
    with dispatcher_in(tmp_path, empty_database) as made:
        made.submit(*[{}] * 40)
        yield made


def fail_on(dispatcher: Dispatcher, number: int, *, code: int = SITES, after: float = 30, node: str = NODE) -> None:
    """Jobs that fail on a node, one after the other."""
    for _ in range(number):
        job = int(str(dispatcher.get_job(node=node)["PandaID"]))
        dispatcher.clock.now += after
        dispatcher.fail(job, code)


def notice(dispatcher: Dispatcher, wait: float = 10) -> None:
    """Let the time go by after which every process has noticed what changed."""
    dispatcher.clock.now += wait


def paused(dispatcher: Dispatcher, node: str = NODE) -> bool:
    answer = dispatcher.ask(node=node, label="nobody")  # an answer that takes no job
    return not isinstance(answer, list) and answer.reason == "throttled"


def test_a_node_whose_jobs_fail_fast_gets_a_pause_and_is_told_why_and_how_long(dispatcher: Dispatcher) -> None:
    fail_on(dispatcher, 4)
    notice(dispatcher)
    assert not paused(dispatcher)
    fail_on(dispatcher, 1)
    notice(dispatcher)
    answer = dispatcher.no_job(node=NODE)
    assert (answer.reason, answer.retry_after) == ("throttled", 890)
    assert HOST in answer.sentence
    assert "5 jobs in a row" in answer.sentence
    assert paused(dispatcher, f"slot1_2@{HOST}")
    assert not paused(dispatcher, "wn2.example.org")
    assert not paused(dispatcher, "")
    notice(dispatcher, 890)
    assert not paused(dispatcher)


def test_a_failure_after_the_pause_gives_a_longer_one_and_a_success_ends_it_all(dispatcher: Dispatcher) -> None:
    fail_on(dispatcher, 5)
    notice(dispatcher, 901)
    fail_on(dispatcher, 1)
    notice(dispatcher)
    assert dispatcher.no_job(node=NODE).retry_after == 1790
    notice(dispatcher, 1790)
    job = int(str(dispatcher.get_job(node=NODE)["PandaID"]))
    dispatcher.finish(job)
    assert nodes.list_failing_nodes(dispatcher.context) == []
    fail_on(dispatcher, 4)
    notice(dispatcher)
    assert not paused(dispatcher)


def test_the_longest_pause_has_a_limit(dispatcher: Dispatcher) -> None:
    configuration.set_value(dispatcher.context, setting("NODE_LONGEST_PAUSE", 1000))
    fail_on(dispatcher, 5)
    notice(dispatcher, 901)
    fail_on(dispatcher, 1)
    notice(dispatcher)
    assert dispatcher.no_job(node=NODE).retry_after == 990


@pytest.mark.parametrize(
    ("code", "after"),
    [(PAYLOADS, 30), (STORAGES, 30), (BATCHS, 30), (SITES, 601)],
)
def test_failures_that_are_not_the_sites_or_came_late_do_not_count(
    dispatcher: Dispatcher, code: int, after: float
) -> None:
    fail_on(dispatcher, 6, code=code, after=after)
    assert nodes.list_failing_nodes(dispatcher.context) == []


def test_failures_are_forgotten_after_a_while(dispatcher: Dispatcher) -> None:
    fail_on(dispatcher, 4)
    notice(dispatcher, 3601)
    fail_on(dispatcher, 1)
    notice(dispatcher)
    assert not paused(dispatcher)
    assert [line["failures"] for line in nodes.list_failing_nodes(dispatcher.context)] == [1]


def test_a_node_that_takes_jobs_and_is_never_heard_of_again_is_paused_too(dispatcher: Dispatcher) -> None:
    for _ in range(5):
        dispatcher.get_job(node=NODE)
    dispatcher.clock.now += 1801
    dispatcher.watch()
    assert dispatcher.job(1)["jobDispatcherErrorCode"] == SENT_TIMEOUT
    assert paused(dispatcher)


def test_jobs_that_fail_during_a_pause_do_not_make_it_longer(dispatcher: Dispatcher) -> None:
    jobs = [int(str(dispatcher.get_job(node=NODE)["PandaID"])) for _ in range(8)]
    for job in jobs:
        dispatcher.fail(job, SITES)
    notice(dispatcher)
    assert dispatcher.no_job(node=NODE).retry_after == 890


def setting(key: str, value: int) -> ConfigValue:
    return ConfigValue("pandaserver", "dispatch", key, "", str(value), "int", None)


def test_operators_may_change_the_limits_or_switch_it_off(dispatcher: Dispatcher) -> None:
    configuration.set_value(dispatcher.context, setting("NODE_FAILURES", 2))
    fail_on(dispatcher, 2)
    notice(dispatcher)
    assert paused(dispatcher)
    nodes.lift_pause(dispatcher.context, QUEUE, HOST)
    configuration.set_value(dispatcher.context, setting("NODE_FAILURES", 0))
    fail_on(dispatcher, 10)
    notice(dispatcher)
    assert not paused(dispatcher)


def test_a_pause_holds_no_longer_when_it_is_switched_off(dispatcher: Dispatcher) -> None:
    fail_on(dispatcher, 5)
    notice(dispatcher)
    assert paused(dispatcher)
    configuration.set_value(dispatcher.context, setting("NODE_FAILURES", 0))
    assert [line["throttled_until"] for line in nodes.list_failing_nodes(dispatcher.context)] == [None]
    assert dispatcher.get_job(node=NODE)


def test_operators_see_the_nodes_and_end_a_pause(dispatcher: Dispatcher) -> None:
    fail_on(dispatcher, 2, node="wn2")
    fail_on(dispatcher, 5)
    first, second = nodes.list_failing_nodes(dispatcher.context)
    assert (first["queue"], first["host"], first["failures"], second["host"]) == (QUEUE, HOST, 5, "wn2")
    assert first["throttled_until"] and not second["throttled_until"]
    notice(dispatcher)
    assert paused(dispatcher)
    nodes.lift_pause(dispatcher.context, QUEUE, HOST)
    assert dispatcher.get_job(node=NODE)
    with pytest.raises(NotFound, match="no pause"):
        nodes.lift_pause(dispatcher.context, QUEUE, HOST)


def test_another_process_notices_within_seconds(dispatcher: Dispatcher) -> None:
    other = Dispatcher(
        replace(dispatcher.context, policy=type(dispatcher.context.policy)()), dispatcher.clock, dispatcher.bell
    )
    assert not paused(other)
    fail_on(dispatcher, 5, after=0)
    assert not paused(other)
    notice(dispatcher, 5)
    assert paused(other)


def test_quiet_nodes_are_forgotten(dispatcher: Dispatcher) -> None:
    fail_on(dispatcher, 5)
    assert nodes.forget_quiet_nodes(dispatcher.context) == 0
    dispatcher.clock.now += 90_000
    assert nodes.forget_quiet_nodes(dispatcher.context) == 1
    assert nodes.list_failing_nodes(dispatcher.context) == []


@pytest.mark.parametrize("node", [HOST, NODE, f"a@b@{HOST}"])
def test_slots_of_a_machine_are_one_node(node: str) -> None:
    assert host_of(node) == HOST
