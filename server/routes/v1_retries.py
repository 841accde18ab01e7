"""v1 methods about the rules of the retry module (chapter 20)."""

from __future__ import annotations

from server.logic import retryrules
from server.routes.registry import OPERATORS, USERS, Call, Kind, Registry, optional, required

registry = Registry()


@registry.method("retries/list", "GET", USERS)
def list_rules(call: Call) -> object:
    """The rules that say what follows failed attempts."""
    return retryrules.list_rules(call.context)


@registry.method(
    "retries/add",
    "POST",
    OPERATORS,
    required("action", Kind.TEXT, "no_retry, limit_retry, increase_memory, ..."),
    required("errorSource", Kind.TEXT, "pilot, exe, jobDispatcher, taskBuffer, ..."),
    required("errorCode", Kind.INTEGER),
    optional("errorDiag", Kind.TEXT, "a regular expression for the beginning of the error's text"),
    optional("active", Kind.FLAG, "false: only the history says what the rule would do"),
    optional("parameters", Kind.OBJECT, "of the action, {maxAttempt: 3}"),
    optional("architecture"),
    optional("release"),
    optional("workQueue", Kind.TEXT, "a prodSourceLabel"),
    optional("VO"),
    optional("description"),
)
def add_rule(call: Call) -> object:
    """Add a rule."""
    return retryrules.add_rule(call.context, call.values, call.identity)


@registry.method(
    "retries/set_active", "POST", OPERATORS, required("rule_id", Kind.INTEGER), required("active", Kind.FLAG)
)
def set_active(call: Call) -> object:
    """Switch a rule on, or to passive."""
    retryrules.set_active(call.context, call.integer("rule_id"), call.flag("active"))
    return True


@registry.method("retries/remove", "POST", OPERATORS, required("rule_id", Kind.INTEGER))
def remove_rule(call: Call) -> object:
    """Remove a rule."""
    retryrules.remove_rule(call.context, call.integer("rule_id"))
    return True
