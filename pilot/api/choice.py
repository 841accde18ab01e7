"""Which place to read a file from or write it to, and with which copytool: pure functions, each with its reason.

Reading goes round the replicas first: the best protocol of each replica, then the second best of each, and all of it
again with the next copytool, since a storage that is down is down for all its protocols. Writing goes through all ways
into the preferred storage before the next storage is taken, because where an output lies matters to those who look
for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from pilot.info.replica import Replica
from pilot.util.blot import without_secrets

LAN, WAN = "lan", "wan"


@dataclass(frozen=True)
class Way:
    """One URL of a file in one storage, and whether that storage is near (lan) or far (wan)."""

    endpoint: str
    surl: str
    domain: str = ""

    @property
    def scheme(self) -> str:
        """The scheme of the URL; a bare path is a local file."""
        return self.surl.partition("://")[0] if "://" in self.surl else "file"


@dataclass(frozen=True)
class Place:
    """One place to read a file from or write it to, and the copytool that can. why: for the log."""

    endpoint: str
    surl: str
    copytool: str
    why: str = ""


def domain_of(endpoint: str, near: Sequence[str]) -> str:
    """The queue's own storages are near, all others are far."""
    return LAN if endpoint in near else WAN


def sort_replicas(replicas: Sequence[Replica], near: Sequence[str]) -> list[Replica]:
    """Replicas, best first: in the order of the queue's storages, then lan before wan, then by priority.

    near: the queue's storages for the activity. The order that was given decides where nothing else does.
    """
    rank = {endpoint: number for number, endpoint in reversed(list(enumerate(near)))}

    def key(replica: Replica) -> tuple[int, bool, int]:
        domain = replica.domain or domain_of(replica.ddmendpoint, near)
        return rank.get(replica.ddmendpoint, len(near)), domain != LAN, replica.priority

    return sorted(replicas, key=key)


def ways_of_replicas(replicas: Sequence[Replica], near: Sequence[str]) -> list[list[Way]]:
    """Sorted replicas as ways, a list for each storage: several replicas in one storage are its protocols."""
    found: dict[str, list[Way]] = {}
    for replica in sort_replicas(replicas, near):
        domain = replica.domain or domain_of(replica.ddmendpoint, near)
        found.setdefault(replica.ddmendpoint, []).append(Way(replica.ddmendpoint, replica.pfn, domain))
    return list(found.values())


def places_to_read(
    ways: Sequence[Sequence[Way]], tools: Sequence[str], schemes: Mapping[str, Sequence[str]]
) -> list[Place]:
    """Places in the order in which they are tried: copytool, then protocol, then replica, the last changing first.

    ways: for each replica its ways, best first. schemes: by copytool those that it speaks.
    """
    found = []
    for tool in tools:
        spoken = [[way for way in replica if way.scheme in schemes[tool]] for replica in ways]
        for number, round_ in enumerate(zip_longest(*spoken), 1):
            found += [_place(way, tool, number) for way in round_ if way is not None]
    return found


def places_to_write(
    ways: Sequence[Sequence[Way]], tools: Sequence[str], schemes: Mapping[str, Sequence[str]]
) -> list[Place]:
    """The same for writing: storage, then copytool, then protocol, the last changing first."""
    found = []
    for storage in ways:
        for tool in tools:
            spoken = [way for way in storage if way.scheme in schemes[tool]]
            found += [_place(way, tool, number) for number, way in enumerate(spoken, 1)]
    return found


def _place(way: Way, tool: str, number: int) -> Place:
    return Place(way.endpoint, way.surl, tool, f"{way.domain or 'given'}, protocol {number} ({way.scheme}) for {tool}")


def trace(lfn: str, places: Sequence[Place]) -> str:
    """The choice for the log: every place in its order, with the reason."""
    listed = "\n".join(
        f"  {number}. {place.endpoint or '(no storage)'}: {without_secrets(place.surl)} [{place.why}]"
        for number, place in enumerate(places, 1)
    )
    return f"places for {lfn}, best first:\n{listed}"
