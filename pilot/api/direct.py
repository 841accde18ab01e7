"""Direct access (remote I/O): whether a payload reads an input where it lies, and at which address. Pure functions.

Queue, job, file and replica all have to allow it; the first that does not is the reason in the log. Nobody is asked for
the network's sake: near replicas come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilot.api.choice import LAN, WAN, Way
from pilot.info.filespec import FileSpec
from pilot.info.queuedata import QueueData

# Schemes that programs of the field read remotely: from storage of the own site, and from that of others.
LOCAL_SCHEMES = ("root", "dcache", "dcap", "file", "https", "davs")
REMOTE_SCHEMES = ("root", "https")


@dataclass(frozen=True)
class Access:
    """way: where the payload reads the file, or None when it is copied; why: for the log."""

    way: Way | None
    why: str


def refusals(queue: QueueData) -> dict[str, str]:
    """For near (lan) and far (wan) storage why a queue does not allow direct access to it; empty where it does."""
    said = {
        LAN: {"direct_access_lan": queue.direct_access_lan, "allow_lan": queue.allow_lan},
        WAN: {"direct_access_wan": queue.direct_access_wan, "allow_wan": queue.allow_wan},
    }
    return {
        domain: " and ".join(f"{name} is off" for name, on in switches.items() if not on)
        for domain, switches in said.items()
    }


def pick(ways: Sequence[Sequence[Way]], schemes: Sequence[str] | None, domain: str | None) -> Way | None:
    """The first way with one of the schemes (None: any) in a domain (None: any). ways: a list for each replica."""
    for way in (way for replica in ways for way in replica):
        if (domain is None or (way.domain or LAN) == domain) and (schemes is None or way.scheme in schemes):
            return way
    return None


def decide(
    spec: FileSpec,
    ways: Sequence[Sequence[Way]],
    queue: QueueData,
    local_schemes: Sequence[str] = LOCAL_SCHEMES,
    remote_schemes: Sequence[str] = REMOTE_SCHEMES,
) -> Access:
    """Whether a file is read where it lies. ways: for each of its replicas the ways to it, best first."""
    refused = refusals(queue)
    if all(refused.values()):
        return Access(None, f"queue {queue.name}: {'; '.join(refused.values())}")
    why = spec.why_copied()
    if why:
        return Access(None, why)
    missing = []
    for domain, schemes in ((LAN, local_schemes), (WAN, remote_schemes)):
        if refused[domain]:
            missing.append(f"{domain}: {refused[domain]}")
            continue
        way = pick(ways, schemes, domain)
        if way is not None:
            return Access(way, f"{domain}, {way.scheme}, as queue, job and file allow")
        missing.append(f"{domain}: no replica by {', '.join(schemes)}")
    return Access(None, "; ".join(missing))
