"""The configurator: takes over what the experiment's information service (CRIC) says of queues, storages and sites.

Each source (chapter 17 of PanDA's documents) is asked by itself, and what it said last of every name is kept. So an
answer that cannot be used changes nothing, one bad entry leaves its old one in force, and of an entry only those keys
are taken over that the source has changed: what an operator has set by hand stays until the source changes that key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence

from server.db import information, network, sources
from server.db.database import Connection
from server.db.information import Description
from server.db.jobs import batches
from server.db.sources import SourceEntry, SourceState
from server.logic import configuration
from server.logic.context import Context
from server.logic.cricforms import BadAnswer, blacklist_of, entries_of, links_of, read_json
from server.logic.descriptions import checked_queue, checked_storage
from server.logic.errors import BadField
from server.logic.exclusions import BLACKLIST, closed_storages, exclude_closed
from server.logic.fetching import Answer, Unreachable
from server.logic.queues import Story, store_queue
from server.logic.software import SOFTWARE

#: The sources' names.
SITES, STORAGES, QUEUES, NETWORK = "sites", "storages", "queues", "network"
#: The state of what was in the answers once and is not any more.
GONE = "INACTIVE"
#: That in the terms of an entry.
_GONE: Description = {"state": GONE}
ACTOR = "configurator"

#: Complaints that are kept of one answer; a source with more of them has one reason for all.
_MOST_COMPLAINTS = 100


#: Asks an address: (address, validator of the last answer) -> the answer, None if it is still the same.
Fetch = Callable[[str, str], Answer | None]


def address_of(context: Context, source: str) -> str:
    """Where a source is; empty if it is not used."""
    settings = context.settings
    return {
        SITES: settings.cric_url_sites,
        STORAGES: settings.cric_url_ddmendpoints,
        BLACKLIST: settings.cric_url_ddmblacklist,
        QUEUES: settings.cric_url_schedconfig,
        SOFTWARE: settings.cric_url_tags,
        NETWORK: settings.cric_url_cm,
    }[source]


def refresh(context: Context, source: str, fetch: Fetch) -> list[str]:
    """Ask a source, if it has an address, and take over what is new.

    Returns:
        What is to be told: complaints that were not there the last time, and what has become of queues.
    """
    address = address_of(context, source)
    if not address:
        return []
    with context.database.reading() as connection:
        before = sources.read_source(connection, source)
    if before is None or before.address != address:
        before = SourceState(source, address, "", "", 0, before.fetchedTime if before else None, 0.0, "", "")
    now = context.clock()
    news: list[str] = []
    try:
        answer = fetch(address, before.validator)
        if answer is None:
            after = before._replace(checkedTime=now, failure="")
        elif (digest := hashlib.sha256(answer.content).hexdigest()) == before.digest:
            after = before._replace(checkedTime=now, failure="", validator=answer.validator)
        else:
            number, complaints, news = _take_over(context, source, address, answer.content, now)
            text = "\n".join(_shortened(complaints))
            after = SourceState(source, address, answer.validator, digest, number, now, now, text, "")
    except Unreachable as error:
        after = before._replace(checkedTime=now, failure=f"{error}; what is known stays as it is")
    except BadAnswer as error:
        # no validator: the same answer is to be judged again, since the limit may be another then
        failure = f"{error}; what is known stays as it is"
        after = before._replace(checkedTime=now, failure=failure, validator="", digest="")
    with context.database.durable() as connection:
        sources.store_source(connection, after)
    known = (*before.complaints.splitlines(), before.failure)
    return [*news, *(line for line in (*after.complaints.splitlines(), after.failure) if line and line not in known)]


def _shortened(complaints: Sequence[str]) -> list[str]:
    if len(complaints) <= _MOST_COMPLAINTS:
        return list(complaints)
    return [*complaints[:_MOST_COMPLAINTS], f"... and {len(complaints) - _MOST_COMPLAINTS} complaints more"]


def _take_over(
    context: Context, source: str, address: str, content: bytes, now: float
) -> tuple[int, list[str], list[str]]:
    """Store what is new in an answer: the number of its entries, complaints and news."""
    answer = read_json(content)
    if source == NETWORK:
        links, complaints = links_of(answer)
        _store_links(context, links, now)
        return len(links), complaints, []
    if source == BLACKLIST:
        closed, complaints = blacklist_of(answer, address)
        _store_plain(context, source, closed, now)
        return len(closed), complaints, _exclude(context)
    entries, complaints = entries_of(answer)
    with context.database.reading() as connection:
        known = sources.read_entries(connection, source)
    _check_size(context, [name for name, entry in known.items() if entry.vanishedTime is None], entries)
    if source in (SITES, SOFTWARE):
        _store_plain(context, source, entries, now)
        if source == SOFTWARE:
            _store_hardware(context, known, entries, now)
        return len(entries), complaints, []
    complaints += _store_described(context, source, known, entries, now)
    return len(entries), complaints, _exclude(context)


def _check_size(context: Context, known: Collection[object], entries: Collection[object]) -> None:
    """Refuse an answer that lacks most of what is known: a service in trouble gives little, or nothing.

    Raises:
        BadAnswer: it is refused.
    """
    if not entries:
        raise BadAnswer("the answer has no entry that can be used")
    percent = configuration.number(context, "configurator", "LEAST_PERCENT") or 0
    there = sum(name in entries for name in known)
    if there * 100 < len(known) * percent:
        raise BadAnswer(
            f"the answer has only {there} of the {len(known)} names known, fewer than {percent:g} %; if the others are "
            "really gone, `pilotkit config set configurator LEAST_PERCENT 0` for a while"
        )


def _store_plain(context: Context, source: str, entries: Mapping[str, object], now: float) -> None:
    """Keep entries that are only looked up."""
    with context.database.reading() as connection:
        known = sources.read_entries(connection, source)
    changed = {name: entry for name, entry in entries.items() if name not in known or known[name].entry != entry}
    for names in batches(list(changed)):
        with context.database.durable() as connection:
            sources.store_entries(connection, source, {name: changed[name] for name in names}, now)
    with context.database.durable() as connection:
        sources.remove_entries(connection, source, known.keys() - entries.keys())


def _store_links(context: Context, links: Mapping[network.Link, float], now: float) -> None:
    with context.database.reading() as connection:
        known = network.read_links(connection)
    _check_size(context, known, links)
    changed = [link for link, value in links.items() if link not in known or known[link][0] != value]
    for some in batches(changed):
        with context.database.durable() as connection:
            network.store_links(connection, {link: links[link] for link in some}, now)
    for some in batches([link for link in known if link not in links]):
        with context.database.durable() as connection:
            network.remove_links(connection, some)


def _store_described(
    context: Context,
    source: str,
    known: Mapping[str, SourceEntry],
    entries: Mapping[str, dict[str, object]],
    now: float,
) -> list[str]:
    """Change queues or storages as their entries have changed; returns complaints about entries."""
    complaints: list[str] = []
    store = _store_queue if source == QUEUES else _store_storage
    new = [name for name, entry in entries.items() if _differs(known.get(name), entry)]
    for names in batches(new):
        with context.database.durable() as connection:
            closed = closed_storages(connection)
            for name in names:
                try:
                    store(connection, name, _said(known.get(name)), entries[name], closed, now)
                except BadField as error:
                    complaints.append(f"{name} cannot be used as it is now: {error}; its old entry stays")
                    continue
                sources.store_entries(connection, source, {name: entries[name]}, now)
    gone = [name for name, entry in known.items() if name not in entries and entry.vanishedTime is None]
    for names in batches(gone):
        with context.database.durable() as connection:
            closed = closed_storages(connection)
            for name in names:
                store(connection, name, {}, _GONE, closed, now)
            sources.mark_vanished(connection, source, names, now)
    return complaints


def _store_hardware(
    context: Context, known: Mapping[str, SourceEntry], entries: Mapping[str, dict[str, object]], now: float
) -> None:
    """Tell queues what hardware they have: it comes with the software, and getJob looks for it in the description."""
    said = {name: _hardware(_said(known.get(name))) for name in (*known, *entries)}
    says = {name: _hardware(entries.get(name, {})) for name in said}
    for names in batches([name for name in said if said[name] != says[name]]):
        with context.database.durable() as connection:
            closed = closed_storages(connection)
            for name in names:
                if information.read_queue(connection, name) is not None:
                    _store_queue(connection, name, said[name], says[name], closed, now)


def _hardware(entry: Description) -> Description:
    return {key: value for key, value in entry.items() if key == "architectures"}


def _differs(known: SourceEntry | None, entry: object) -> bool:
    return known is None or known.vanishedTime is not None or known.entry != entry


def _said(known: SourceEntry | None) -> Description:
    """What a source said before: of what it had dropped, only that it was gone, so that all it says is new."""
    if known is None or not isinstance(known.entry, dict):
        return {}
    return known.entry if known.vanishedTime is None else _GONE


def _store_queue(
    connection: Connection, name: str, said: Description, says: Description, closed: Mapping[str, str], now: float
) -> None:
    before = information.read_queue_to_change(connection, name)
    if before is None:
        software = sources.read_entry(connection, SOFTWARE, name)
        says = {**_hardware(_said(software)), **says}
    queue = checked_queue(name, merged(before.description if before else {}, said, says))
    reason = "not in the information service any more" if says == _GONE else "as the information service says"
    store_queue(connection, before, queue, closed, Story(now, ACTOR, reason))


def _store_storage(
    connection: Connection, name: str, said: Description, says: Description, _closed: Mapping[str, str], now: float
) -> None:
    before = information.read_storage_to_change(connection, name)
    information.store_storage(connection, name, checked_storage(name, merged(before or {}, said, says)), now)


def merged(current: Description, said: Description, says: Description) -> Description:
    """A description after a source has changed its mind: only what it says differently now is changed.

    Args:
        current: the description as it is, with what was set by hand.
        said: what the source said before.
        says: what it says now.
    """
    kept = {key: value for key, value in current.items() if key in says or key not in said}
    return {**kept, **{key: value for key, value in says.items() if key not in said or said[key] != value}}


def _exclude(context: Context) -> list[str]:
    """Tell queues which of their storages are closed; returns a sentence for each that concerns."""
    with context.database.durable() as connection:
        changed = exclude_closed(connection)
    return [
        f"queue {name} does not write to {', '.join(excluded)} now" if excluded else f"queue {name} writes to all again"
        for name, excluded in changed.items()
    ]
