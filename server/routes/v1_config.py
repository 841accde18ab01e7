"""v1 methods about the configuration table (chapter 10)."""

from __future__ import annotations

from server.db.information import ConfigValue
from server.logic import configuration
from server.logic.names import shown
from server.logic.parameters import APPLICATION
from server.routes.decoding import BadArgument
from server.routes.registry import OPERATORS, USERS, Call, Kind, Registry, optional, required

registry = Registry()

_PLACE = (required("component"), required("key"), optional("application"), optional("vo"))


@registry.method("metaconfig/list_config", "GET", OPERATORS)
def list_config(call: Call) -> object:
    """The values of the configuration table, and the parameters that have their default."""
    return configuration.list_values(call.context)


@registry.method("metaconfig/get_config", "GET", USERS, *_PLACE)
def get_config(call: Call) -> object:
    """A value of the configuration table; null if it is not defined."""
    place = call.text("component"), call.text("key"), call.text("application", APPLICATION), call.text("vo")
    return configuration.read_value(call.context, *place)


@registry.method(
    "metaconfig/set_config",
    "POST",
    OPERATORS,
    *_PLACE,
    required("value", Kind.ANY, "a number, text or truth value"),
    optional("type", Kind.TEXT, "int, float, str or bool"),
    optional("description"),
)
def set_config(call: Call) -> object:
    """Set a value of the configuration table."""
    value = call.values["value"]
    if not isinstance(value, str | int | float):
        raise BadArgument("Type error", f"value must be a number, text or truth value, not {shown(value)}")
    wanted = ConfigValue(
        application=call.text("application", APPLICATION),
        component=call.text("component"),
        key=call.text("key"),
        vo=call.text("vo"),
        value=str(value).lower() if isinstance(value, bool) else str(value),
        type=call.text("type"),
        description=call.text("description") or None,
    )
    return configuration.set_value(call.context, wanted)._asdict()


@registry.method("metaconfig/remove_config", "POST", OPERATORS, *_PLACE)
def remove_config(call: Call) -> object:
    """Remove a value of the configuration table, so that the default holds again."""
    place = call.text("component"), call.text("key"), call.text("application", APPLICATION), call.text("vo")
    configuration.remove_value(call.context, *place)
    return True
