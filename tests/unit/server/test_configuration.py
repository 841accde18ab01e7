"""The configuration table: what is set, what holds without, and what is refused."""

from __future__ import annotations

import pytest

from server.db.information import ConfigValue
from server.logic import configuration
from server.logic.configuration import FRESH
from server.logic.errors import BadField, NotFound
from server.logic.parameters import PARAMETERS
from tests.unit.server.dispatcher import Dispatcher


def value(**given: str) -> ConfigValue:
    usual = {"application": "pandaserver", "component": "watcher", "key": "TIMEOUT_sent", "vo": "", "value": "1"}
    return ConfigValue(**{**usual, "type": "", "description": None, **given})  # type: ignore[arg-type]


def test_a_parameter_has_its_default_until_it_is_set_and_again_when_it_is_removed(dispatcher: Dispatcher) -> None:
    context = dispatcher.context
    assert configuration.number(context, "watcher", "TIMEOUT_sent") == 0.5
    assert configuration.set_value(context, value(value="2.5")).type == "float"
    assert configuration.number(context, "watcher", "TIMEOUT_sent") == 2.5
    assert configuration.read_value(context, "watcher", "TIMEOUT_sent") == "2.5"
    configuration.remove_value(context, "watcher", "TIMEOUT_sent")
    assert configuration.number(context, "watcher", "TIMEOUT_sent") == 0.5
    assert configuration.read_value(context, "watcher", "TIMEOUT_sent") is None
    with pytest.raises(NotFound, match="no value of 'watcher' 'TIMEOUT_sent'"):
        configuration.remove_value(context, "watcher", "TIMEOUT_sent")


def test_a_vo_may_have_a_value_of_its_own(dispatcher: Dispatcher) -> None:
    context = dispatcher.context
    for one in (value(vo="atlas", value="3"), value(value="2")):
        configuration.set_value(context, one)
    found = {vo: configuration.number(context, "watcher", "TIMEOUT_sent", vo) for vo in ("", "atlas", "cms")}
    assert found == {"": 2, "atlas": 3, "cms": 2}
    assert configuration.read_value(context, "watcher", "TIMEOUT_sent", vo="atlas") == "3"


def test_what_another_process_sets_is_in_force_after_half_a_minute(dispatcher: Dispatcher) -> None:
    context = dispatcher.context
    assert configuration.number(context, "watcher", "TIMEOUT_sent") == 0.5
    with context.database.durable() as connection:
        connection.exec_driver_sql(
            "INSERT INTO config (application, component, key, vo, value, type) "
            "VALUES ('pandaserver', 'watcher', 'TIMEOUT_sent', '', '7', 'int')"
        )
    assert configuration.number(context, "watcher", "TIMEOUT_sent") == 0.5
    dispatcher.clock.now += FRESH
    assert configuration.number(context, "watcher", "TIMEOUT_sent") == 7


@pytest.mark.parametrize("written", ["many", "nan", "-1", "inf"])
def test_nonsense_that_another_program_wrote_leaves_the_default(dispatcher: Dispatcher, written: str) -> None:
    with dispatcher.context.database.durable() as connection:
        connection.exec_driver_sql(
            "INSERT INTO config (application, component, key, vo, value, type) "
            f"VALUES ('pandaserver', 'watcher', 'TIMEOUT_sent', '', '{written}', 'str')"
        )
    assert configuration.number(dispatcher.context, "watcher", "TIMEOUT_sent") == 0.5


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"value": "soon"}, "value"),
        ({"value": "nan"}, "value"),
        ({"value": "-1"}, "value"),
        ({"value": "1.5", "type": "int"}, "value"),
        ({"type": "str"}, "type"),
        ({"type": "date"}, "type"),
        ({"key": "x", "type": "bool", "value": "perhaps"}, "value"),
        ({"key": ""}, "key"),
        ({"key": "x" * 65}, "key"),
        ({"component": "a\nb"}, "component"),
        ({"key": "x", "value": "y" * 257}, "value"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_and_nothing_is_stored(
    dispatcher: Dispatcher, given: dict[str, str], field: str
) -> None:
    with pytest.raises(BadField) as caught:
        configuration.set_value(dispatcher.context, value(**given))
    assert caught.value.field == field
    assert all(row["value"] is None for row in configuration.list_values(dispatcher.context))


def test_others_may_keep_what_we_do_not_know_in_the_table(dispatcher: Dispatcher) -> None:
    context = dispatcher.context
    for kind, written in (("str", "a b"), ("bool", "True"), ("int", "5"), ("", "free")):
        configuration.set_value(context, value(component="jedi", key=f"K{kind}", value=written, type=kind))
    assert configuration.read_value(context, "jedi", "Kstr") == "a b"
    assert configuration.number(context, "jedi", "unknown") is None
    assert configuration.read_value(context, "jedi", "unknown") is None


def test_the_list_has_what_is_set_and_every_default(dispatcher: Dispatcher) -> None:
    configuration.set_value(dispatcher.context, value(value="2"))
    configuration.set_value(dispatcher.context, value(key="HEARTBEAT_TIMEOUT_production", value="3"))
    rows = configuration.list_values(dispatcher.context)
    found = {str(row["key"]): (row["value"], row["default"]) for row in rows}
    assert found["TIMEOUT_sent"] == ("2", 0.5)
    assert found["TIMEOUT_holding"] == (None, 48)
    assert found["HEARTBEAT_TIMEOUT_production"] == ("3", None)
    assert {key for _, key in PARAMETERS} | {"HEARTBEAT_TIMEOUT_<name>"} <= found.keys()
    assert all(row["description"] for row in rows)


def test_a_vo_has_no_value_of_its_own_where_none_would_be_looked_at(dispatcher: Dispatcher) -> None:
    one = value(component="metrics", key="KEEP_DAYS", value="3", vo="atlas")
    with pytest.raises(BadField, match="the same for every VO"):
        configuration.set_value(dispatcher.context, one)
