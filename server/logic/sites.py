"""Sites with their queues, storages and links, and what of all that the information service said, and when."""

from __future__ import annotations

from server.db import information, network, sources
from server.db.sources import SourceEntry
from server.logic.context import Context
from server.logic.cric import QUEUES, SITES, STORAGES, address_of
from server.logic.descriptions import checked_queue
from server.logic.dispatch import iso_time
from server.logic.errors import BadField, NotFound
from server.logic.exclusions import BLACKLIST
from server.logic.names import shown
from server.logic.queues import no_queue
from server.logic.software import SOFTWARE

#: Links of one answer; all of ATLAS's sites have about 25,000.
MOST_LINKS = 50_000
#: Changes of one queue that are told.
MOST_CHANGES = 100


def list_sites(context: Context) -> list[dict[str, object]]:
    """Each site with the names of its queues and storages, and since when the information service describes it so."""
    with context.database.reading() as connection:
        queues = information.read_queues(connection)
        storages = information.read_storages(connection)
        described = sources.read_entries(connection, SITES)
    found: dict[str, dict[str, list[str]]] = {name: {} for name in described}
    for queue in queues:
        found.setdefault(str(queue.description.get("site") or queue.name), {}).setdefault("queues", []).append(
            queue.name
        )
    for name, description in storages.items():
        if site := description.get("site"):
            found.setdefault(str(site), {}).setdefault("storages", []).append(name)
    return [
        {
            "name": name,
            "state": _state(described.get(name)),
            "queues": parts.get("queues", []),
            "storages": parts.get("storages", []),
            "described": _since(described.get(name)),
        }
        for name, parts in sorted(found.items())
    ]


def read_site(context: Context, name: str) -> dict[str, object]:
    """A site: its description, and how its queues and storages are.

    Raises:
        NotFound: nobody has spoken of such a site.
    """
    with context.database.reading() as connection:
        described = sources.read_entry(connection, SITES, name)
        queues = [queue for queue in information.read_queues(connection) if queue.description.get("site") == name]
        storages = information.read_storages(connection)
        closed = sources.read_entries(connection, BLACKLIST)
        said = {source: sources.read_entries(connection, source) for source in (QUEUES, STORAGES)}
    ours = {rse: description for rse, description in storages.items() if description.get("site") == name}
    if described is None and not queues and not ours:
        raise NotFound(f"This server knows no site {shown(name)}. `pilotkit site list` shows those it knows.")
    return {
        "name": name,
        "state": _state(described),
        "described": _since(described),
        "description": described.entry if described else None,
        "queues": [
            {
                "name": queue.name,
                "status": queue.status,
                "state": queue.state,
                "closed_storages": queue.excluded or {},
                "described": _since(said[QUEUES].get(queue.name)),
            }
            for queue in queues
        ],
        "storages": [
            {
                "name": rse,
                "state": description.get("state"),
                "closed": closed[rse].entry if rse in closed else {},
                "described": _since(said[STORAGES].get(rse)),
            }
            for rse, description in ours.items()
        ],
    }


def list_sources(context: Context) -> list[dict[str, object]]:
    """How it stands with each of the information service's addresses: when it was asked, and what came of it."""
    with context.database.reading() as connection:
        states = sources.read_sources(connection)
    return [
        {
            "name": state.name,
            "address": state.address,
            "used": address_of(context, state.name) == state.address,
            "entries": state.entries,
            "checked": iso_time(state.checkedTime),
            "fetched": iso_time(state.fetchedTime),
            "failure": state.failure,
            "complaints": state.complaints.splitlines(),
        }
        for state in states
    ]


def read_network(context: Context, src: str, dst: str, key: str) -> list[dict[str, object]]:
    """The links between sites, by source, destination and key.

    Args:
        src, dst, key: only these; empty for all.

    Raises:
        BadField: there are too many.
    """
    with context.database.reading() as connection:
        links = network.read_links(connection, src=src, dst=dst, key=key, limit=MOST_LINKS + 1)
    if len(links) > MOST_LINKS:
        raise BadField("source", f"is needed: there are more than {MOST_LINKS} links between all sites")
    return [
        {"source": link.src, "destination": link.dst, "key": link.key, "value": value, "time": iso_time(time)}
        for link, (value, time) in links.items()
    ]


def queue_history(context: Context, name: str) -> dict[str, object]:
    """Where a queue's description comes from, and what has become of its status.

    Returns:
        name, described (since when the information service describes it so; None: it is described by hand), vanished
        (since when it does not any more), by_hand ({key: {here, there}} of what was set otherwise since),
        closed_storages ({RSE: why}) and history (time, status, state, actor, reason; the oldest first).

    Raises:
        NotFound: there is no such queue.
    """
    with context.database.reading() as connection:
        queue = information.read_queue(connection, name)
        said = sources.read_entry(connection, QUEUES, name)
        history = information.read_queue_history(connection, name, MOST_CHANGES)
    if queue is None:
        raise NotFound(no_queue(name))
    there = checked_queue(name, said.entry).description if said and said.vanishedTime is None else {}
    by_hand = {
        key: {"here": queue.description.get(key), "there": there[key]}
        for key in (said.entry if said and isinstance(said.entry, dict) else ())
        if key in there and queue.description.get(key) != there[key]
    }
    return {
        "name": name,
        "described": _since(said),
        "vanished": iso_time(said.vanishedTime) if said else None,
        "by_hand": by_hand,
        "closed_storages": queue.excluded or {},
        "history": [{**change, "time": iso_time(float(change["time"]))} for change in history],
    }


def read_software(context: Context, queue: str) -> dict[str, object]:
    """What software and hardware a queue publishes (chapter 12.1.1), and since when it says so.

    Raises:
        NotFound: it publishes nothing, or there is no such queue.
    """
    with context.database.reading() as connection:
        found = sources.read_entry(connection, SOFTWARE, queue)
    if found is None:
        raise NotFound(f"Nothing is known of the software of {shown(queue)}.")
    return {"name": queue, "software": found.entry, "described": _since(found)}


def _state(described: SourceEntry | None) -> str:
    state = described.entry.get("state") if described and isinstance(described.entry, dict) else None
    return state if isinstance(state, str) else ""


def _since(described: SourceEntry | None) -> str | None:
    return iso_time(described.modificationTime) if described else None
