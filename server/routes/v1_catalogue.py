"""v1 methods about sites, their links, and where descriptions of queues come from."""

from __future__ import annotations

from server.logic import sites
from server.routes.registry import ANY_ROLE, OPERATORS, USERS, Call, Registry, optional, required

registry = Registry()


@registry.method("site/list", "GET", ANY_ROLE)
def list_sites(call: Call) -> object:
    """All sites with the names of their queues and storages."""
    return sites.list_sites(call.context)


@registry.method("site/get", "GET", ANY_ROLE, required("name"))
def get_site(call: Call) -> object:
    """A site with its description, queues and storages."""
    return sites.read_site(call.context, call.text("name"))


@registry.method("site/list_sources", "GET", OPERATORS)
def list_sources(call: Call) -> object:
    """How it stands with each address of the information service."""
    return sites.list_sources(call.context)


@registry.method(
    "site/get_network",
    "GET",
    ANY_ROLE,
    optional("source", description="only from this site"),
    optional("destination", description="only to this site"),
    optional("key", description="only this number, for instance closeness"),
)
def get_network(call: Call) -> object:
    """The links between sites: source, destination, key, value and the time it got this value."""
    return sites.read_network(call.context, call.text("source"), call.text("destination"), call.text("key"))


@registry.method("queue/get_history", "GET", USERS, required("name"))
def get_history(call: Call) -> object:
    """Where a queue's description comes from, and the changes of its status."""
    return sites.queue_history(call.context, call.text("name"))


@registry.method("queue/get_software", "GET", ANY_ROLE, required("name"))
def get_software(call: Call) -> object:
    """The software and hardware that a queue publishes."""
    return sites.read_software(call.context, call.text("name"))
