"""Resource types: a table that operators may change, PanDA's own without one, and 'Undefined' for what fits nowhere."""

from __future__ import annotations

import pytest

from server.logic import resourcetypes
from server.logic.errors import BadField
from tests.unit.server.dispatcher import Dispatcher


def kind_of(dispatcher: Dispatcher, **job: object) -> object:
    (number,) = dispatcher.submit(dict(job))
    return dispatcher.job(number)["resource_type"]


def test_without_a_table_the_types_are_pandas_own(dispatcher: Dispatcher) -> None:
    names = [kind["resource_name"] for kind in resourcetypes.listed(dispatcher.context)]
    assert names == ["SCORE", "SCORE_HIMEM", "MCORE", "MCORE_HIMEM", "Undefined"]
    assert resourcetypes.listed(dispatcher.context)[-1] == {
        "resource_name": "Undefined", "mincore": 1, "maxcore": None, "minrampercore": None, "maxrampercore": None,
    }  # fmt: skip
    assert kind_of(dispatcher, cores=2, memory=4001) == "MCORE_HIMEM", "half a MB a core too much is too much"
    assert kind_of(dispatcher, cores=8, resource_type="GPU") == "GPU", "the submitter's own word counts"


def test_jobs_are_of_the_first_type_they_fit_and_undefined_without_one(dispatcher: Dispatcher) -> None:
    wanted = [
        {"resource_name": "SMALL", "mincore": 1, "maxcore": 1, "minrampercore": None, "maxrampercore": 1000},
        {"resource_name": "ONE", "maxcore": 1},
        {"resource_name": "FOUR", "mincore": 4, "maxcore": 4},
    ]
    assert resourcetypes.set_types(dispatcher.context, wanted) == ["SMALL", "ONE", "FOUR"]
    assert kind_of(dispatcher, memory=1000) == "SMALL"
    assert kind_of(dispatcher, memory=1001) == "ONE"
    assert kind_of(dispatcher, cores=4, memory=10**6) == "FOUR"
    assert kind_of(dispatcher, cores=2) == "Undefined"
    assert dispatcher.get_job(resource_type="Undefined")["resource_type"] == "Undefined"
    # What a server lists can be given back to it.
    assert resourcetypes.set_types(dispatcher.context, resourcetypes.listed(dispatcher.context)) == [
        "SMALL",
        "ONE",
        "FOUR",
    ]
    resourcetypes.set_types(dispatcher.context, [])
    assert kind_of(dispatcher, cores=2) == "MCORE"


@pytest.mark.parametrize(
    "bad",
    [
        "SCORE",
        {},
        {"resource_name": "a b"},
        {"resource_name": "X" * 17},
        {"resource_name": "X", "mincore": "1"},
        {"resource_name": "X", "maxcore": True},
        {"resource_name": "X", "maxcore": -1},
        {"resource_name": "X", "colour": 1},
    ],
)
def test_what_is_no_resource_type_changes_nothing(dispatcher: Dispatcher, bad: object) -> None:
    with pytest.raises(BadField):
        resourcetypes.set_types(dispatcher.context, [{"resource_name": "GOOD"}, bad])
    with pytest.raises(BadField, match="twice"):
        resourcetypes.set_types(dispatcher.context, [{"resource_name": "GOOD"}] * 2)
    assert len(resourcetypes.listed(dispatcher.context)) == 5
