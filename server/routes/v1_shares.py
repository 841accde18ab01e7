"""v1 methods about global shares, and about nodes on which jobs only fail."""

from __future__ import annotations

from server.logic import nodes, shares
from server.routes.envelope import Reply
from server.routes.registry import OPERATORS, USERS, Call, Kind, Registry, required

registry = Registry()


@registry.method("share/list", "GET", USERS)
def list_shares(call: Call) -> object:
    """A line for each global share with its target and what its jobs use, parents before their children."""
    return shares.list_shares(call.context)


@registry.method("share/get", "GET", USERS)
def get_shares(call: Call) -> object:
    """The tree of global shares in the form in which it is set."""
    return shares.read_tree(call.context)


@registry.method("share/set", "POST", OPERATORS, required("shares", Kind.OBJECT, "{name: {value, children or a rule}}"))
def set_shares(call: Call) -> object:
    """Put a tree of global shares in the place of all others."""
    number = shares.set_shares(call.context, call.mapping("shares"))
    return Reply(number, message=f"{number} shares are set; queued jobs get theirs anew within a minute")


@registry.method("node/list_failing", "GET", OPERATORS)
def list_failing(call: Call) -> object:
    """The nodes on which jobs have failed for the site's reasons since one last finished there."""
    return nodes.list_failing_nodes(call.context)


@registry.method("node/lift_pause", "POST", OPERATORS, required("queue"), required("host"))
def lift_pause(call: Call) -> object:
    """Forget a node's failures, so that it gets jobs again."""
    nodes.lift_pause(call.context, call.text("queue"), call.text("host"))
    return Reply(True, message=f"{call.text('host')} in {call.text('queue')} gets jobs again")
