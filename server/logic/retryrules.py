"""The rules of the retry module, as operators write them (chapter 20)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from server.db import retries
from server.db.retries import Rule
from server.db.tables import ERROR_SOURCES
from server.logic.context import Context, Identity
from server.logic.errors import BadField, NotFound
from server.logic.names import has_control_characters, shown
from server.logic.retries import ACTIONS, PARAMETERS

#: Where an error may come from; "payload" is what people call `exe` (chapter 20.2), `trans` is its exit code.
SOURCES = (*ERROR_SOURCES, "trans")
_ALIASES = {"payload": "exe", "job dispatcher": "jobDispatcher", "task buffer": "taskBuffer"}
#: Characters of the columns.
_LENGTHS = {"errorDiag": 256, "architecture": 256, "release": 64, "workQueue": 64, "VO": 16, "description": 256}


def list_rules(context: Context) -> list[dict[str, object]]:
    """All rules, the oldest first."""
    with context.database.reading() as connection:
        return [rule._asdict() for rule in retries.read_rules(connection)]


def add_rule(context: Context, given: Mapping[str, object], identity: Identity) -> dict[str, object]:
    """Store a rule; returns it with its number.

    Args:
        given: action, errorSource and errorCode; as wanted errorDiag (an expression), active, parameters, architecture,
            release, workQueue, VO, description. What is left out of the scope is for all.

    Raises:
        BadField: one of them cannot be used.
    """
    action = str(given.get("action", ""))
    if action not in ACTIONS:
        raise BadField("action", f"must be one of {', '.join(ACTIONS)}, not {shown(action)}")
    source = str(given.get("errorSource", ""))
    source = _ALIASES.get(source, source.removesuffix("ErrorCode"))
    if source not in SOURCES:
        raise BadField("errorSource", f"must be one of {', '.join(SOURCES)}, not {shown(source)}")
    code = given.get("errorCode")
    if isinstance(code, bool) or not isinstance(code, int) or not 0 < abs(code) < 2**31:
        raise BadField("errorCode", f"must be a whole number other than 0, not {shown(code)}")
    texts = {name: _text(given, name) for name in _LENGTHS}
    try:
        re.compile(texts["errorDiag"], re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadField("errorDiag", f"is no regular expression: {error}") from None
    active = given.get("active", True)
    if not isinstance(active, bool):
        raise BadField("active", f"must be true or false, not {shown(active)}")
    rule = Rule(
        ruleID=0,
        action=action,
        errorSource=source,
        errorCode=abs(code),
        active=active,
        parameters=_parameters(action, given.get("parameters")),
        creator=identity.name or "operator",
        modificationTime=context.clock(),
        **texts,
    )
    with context.database.durable() as connection:
        return retries.add_rule(connection, rule)._asdict()


def set_active(context: Context, rule_id: int, active: bool) -> None:
    """Switch a rule on, or to passive.

    Raises:
        NotFound: there is none of this number.
    """
    with context.database.durable() as connection:
        if not retries.set_active(connection, rule_id, active, context.clock()):
            raise _unknown(rule_id)


def remove_rule(context: Context, rule_id: int) -> None:
    """Remove a rule.

    Raises:
        NotFound: there is none of this number.
    """
    with context.database.durable() as connection:
        if not retries.remove_rule(connection, rule_id):
            raise _unknown(rule_id)


def _unknown(rule_id: int) -> NotFound:
    return NotFound(f"There is no retry rule {rule_id}; `pilotkit retries list` shows those there are.")


def _text(given: Mapping[str, object], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str) or len(value) > _LENGTHS[name] or has_control_characters(value):
        raise BadField(name, f"must be at most {_LENGTHS[name]} characters without control characters")
    return value


def _parameters(action: str, given: object) -> dict[str, float]:
    """The checked parameters of an action; what has a default may be left out."""
    values = {} if given is None else given
    if not isinstance(values, dict):
        raise BadField("parameters", f"must be an object like {{'maxAttempt': 3}}, not {shown(values)}")
    name, default, least, most = PARAMETERS.get(action, ("", 0, 0, 0))
    strange = next((key for key in values if key != name), None)
    if strange is not None:
        wanted = f"it has {name!r}" if name else "it has none"
        raise BadField("parameters", f"of {action} cannot have {shown(strange)}; {wanted}")
    if not values:
        if default is None:
            raise BadField("parameters", f"of {action} must have {name!r}")
        return {}
    value = values[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BadField("parameters", f"{name} of {action} must be between {least:g} and {most:g}, not {shown(value)}")
    return {name: value}
