"""The operators' configuration: values by application, component, key and VO (PanDA's gdpconfig table, chapter 10).

Every process keeps a copy for half a minute, so that reading a value costs no statement.
"""

from __future__ import annotations

import math

from server.db import information
from server.db.information import ConfigValue
from server.logic.context import Context
from server.logic.errors import BadField, NotFound
from server.logic.names import has_control_characters, shown
from server.logic.parameters import APPLICATION, FAMILIES, PARAMETERS, Parameter, find_parameter

#: s; a change is in force everywhere after this.
FRESH = 30
_TYPES = ("int", "float", "str", "bool")
_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no"})
#: Characters a column takes.
_LENGTHS = {"application": 64, "component": 64, "key": 64, "vo": 16, "value": 256, "description": 256}


def number(context: Context, component: str, key: str, vo: str = "") -> float | None:
    """The value of a parameter that is a number; None if it has neither a value nor a default.

    It may read the table with a connection of its own: not to be called inside of a reading or relaxed transaction.
    """
    value = _value(context, component, key, vo)
    parameter = find_parameter(component, key)
    if value is not None:
        try:
            found = float(value)
        except ValueError:  # written by another program: as good as none
            found = math.nan
        if math.isfinite(found) and found >= (parameter.least if parameter else -math.inf):
            return found
    default = parameter.default if parameter else None
    return None if default is None or isinstance(default, str) else float(default)


def _value(context: Context, component: str, key: str, vo: str) -> str | None:
    """What the table has; the VO's own value wins over the one for all (an empty VO)."""
    known = context.config
    now = context.clock()
    if known.read_time is None or not known.read_time <= now < known.read_time + FRESH:
        with context.database.reading() as connection:
            found = information.read_config(connection)
        known.values = {(one.application, one.component, one.key, one.vo): one.value for one in found}
        known.read_time = now
    own = known.values.get((APPLICATION, component, key, vo))
    return known.values.get((APPLICATION, component, key, "")) if own is None else own


def list_values(context: Context) -> list[dict[str, object]]:
    """The values in the table, then the parameters that have their default, by component and key.

    Returns:
        application, component, key, vo, value, type, description and default (None: the parameter is not known here).
    """
    with context.database.reading() as connection:
        found = information.read_config(connection)
    rows = [_shown(one) for one in found]
    there = {(one.component, one.key) for one in found if one.application == APPLICATION and not one.vo}
    for place, parameter in PARAMETERS.items():
        if place not in there:
            rows.append(_default_row(parameter))
    rows += [{**_default_row(family), "key": f"{family.key}<name>"} for family in FAMILIES]
    return sorted(rows, key=lambda row: (str(row["component"]), str(row["key"]), str(row["vo"])))


def _shown(one: ConfigValue) -> dict[str, object]:
    parameter = find_parameter(one.component, one.key) if one.application == APPLICATION else None
    description = one.description or (parameter.description if parameter else "")
    return {**one._asdict(), "description": description, "default": parameter.default if parameter else None}


def _default_row(parameter: Parameter) -> dict[str, object]:
    return {
        "application": APPLICATION,
        "component": parameter.component,
        "key": parameter.key,
        "vo": "",
        "value": None,
        "type": parameter.type,
        "description": parameter.description,
        "default": parameter.default,
    }


def read_value(context: Context, component: str, key: str, application: str = APPLICATION, vo: str = "") -> str | None:
    """A value as the table has it, the VO's own before the one for all; None if it is not defined."""
    with context.database.reading() as connection:
        found = information.read_config(connection)
    values = {(one.application, one.component, one.key, one.vo): one.value for one in found}
    return values.get((application, component, key, vo), values.get((application, component, key, "")))


def set_value(context: Context, value: ConfigValue) -> ConfigValue:
    """Store a value; an empty type is that of the parameter, or text. Returns what was stored.

    Raises:
        BadField: it is not what this parameter can be.
    """
    parameter = find_parameter(value.component, value.key) if value.application == APPLICATION else None
    kind = value.type or (parameter.type if parameter else "str")
    if kind not in _TYPES:
        raise BadField("type", f"must be one of {', '.join(_TYPES)}, not {shown(kind)}")
    if parameter is not None and kind != parameter.type and {kind, parameter.type} != {"int", "float"}:
        raise BadField("type", f"of {value.key} is {parameter.type}, not {kind}")
    if parameter is not None and value.vo and not parameter.by_vo:
        raise BadField("vo", f"cannot be given: {value.key} is the same for every VO")
    checked = value._replace(type=kind)
    for name, longest in _LENGTHS.items():
        written = getattr(checked, name) or ""
        if len(written) > longest or has_control_characters(written):
            raise BadField(name, f"must be at most {longest} characters without control characters")
        if not written and name in ("application", "component", "key"):
            raise BadField(name, "is missing")
    _check(checked, parameter)
    with context.database.durable() as connection:
        information.store_config(connection, checked)
    context.config.read_time = None
    return checked


def _check(value: ConfigValue, parameter: Parameter | None) -> None:
    """Refuse a value that is not of its type."""
    if value.type == "bool" and value.value.strip().lower() not in _TRUE | _FALSE:
        raise BadField("value", f"must be true or false, not {shown(value.value)}")
    if value.type not in ("int", "float"):
        return
    try:
        found = int(value.value) if value.type == "int" else float(value.value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        what = "a whole number" if value.type == "int" else "a number"
        raise BadField("value", f"must be {what}, not {shown(value.value)}")
    if parameter is not None and found < parameter.least:
        raise BadField("value", f"of {value.key} must be at least {parameter.least:g}")


def remove_value(context: Context, component: str, key: str, application: str = APPLICATION, vo: str = "") -> None:
    """Remove a value, so that the default holds again.

    Raises:
        NotFound: there is none.
    """
    with context.database.durable() as connection:
        if not information.remove_config(connection, application, component, key, vo):
            of_vo = f" for VO {shown(vo)}" if vo else ""
            raise NotFound(f"{application} has no value of {shown(component)} {shown(key)}{of_vo}.")
    context.config.read_time = None
