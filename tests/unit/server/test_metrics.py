"""Numbers of jobs over time."""

from __future__ import annotations

import pytest

from server.db.archive import DAY
from server.db.information import ConfigValue
from server.logic import configuration, metrics, shares
from server.logic.errors import BadField
from tests.unit.server.dispatcher import QUEUE, Dispatcher


def told(dispatcher: Dispatcher, name: str = QUEUE, hours: float = 24) -> list[dict[str, int]]:
    """The numbers by state, a time each, the newest first."""
    times: dict[object, dict[str, int]] = {}
    for one in metrics.read_metrics(dispatcher.context, "queue", name, hours, 1000):
        assert one["kind"] == "queue"
        times.setdefault(one["time"], {})[str(one["status"])] = int(str(one["n"]))
    return list(times.values())


def test_what_is_there_is_counted_and_what_ended_is_counted_once(dispatcher: Dispatcher) -> None:
    dispatcher.submit(*[{}] * 5)
    first = dispatcher.get_job()["PandaID"]
    dispatcher.finish(int(str(first)))
    assert metrics.collect_metrics(dispatcher.context) == 2
    dispatcher.clock.now += 300
    second = dispatcher.get_job()["PandaID"]
    dispatcher.report(int(str(second)), "running")
    metrics.collect_metrics(dispatcher.context)
    assert told(dispatcher) == [{"activated": 3, "running": 1}, {"activated": 4, "finished": 1}]
    assert told(dispatcher, hours=0.05) == [{"activated": 3, "running": 1}]
    assert told(dispatcher, "") == told(dispatcher)
    assert told(dispatcher, "another") == []


def test_old_numbers_are_forgotten_by_policy(dispatcher: Dispatcher) -> None:
    value = ConfigValue("pandaserver", "metrics", "KEEP_DAYS", "", "2", "", "")
    configuration.set_value(dispatcher.context, value)
    dispatcher.submit({})
    for _ in range(4):
        metrics.collect_metrics(dispatcher.context)
        dispatcher.clock.now += DAY
    assert len(told(dispatcher, hours=10_000)) == 3


def test_there_are_two_kinds(dispatcher: Dispatcher) -> None:
    with pytest.raises(BadField, match="must be queue or share, not 'pilot'"):
        metrics.read_metrics(dispatcher.context, "pilot", "", 1, 1)


def test_shares_are_there_as_they_were_counted_last(dispatcher: Dispatcher) -> None:
    shares.set_shares(dispatcher.context, {"all": {"value": 100, "prodSourceLabel": ".*"}})
    dispatcher.submit({}, {}, {})
    dispatcher.get_job()
    shares.count_jobs(dispatcher.context)
    metrics.collect_metrics(dispatcher.context)
    found = metrics.read_metrics(dispatcher.context, "share", "all", 1, 10)
    assert {one["status"]: one["n"] for one in found} == {"activated": 2, "running": 1}
