"""What getJob needs to know that changes seldom: whose turn it is, and which nodes have a pause.

It is in the database, and read again every few seconds by each process, so that it costs a getJob nothing. What runs of
each share is counted by the daemon; between two counts a process adds what it has handed out itself, so that not
all pilots that come at once get jobs of the same share. If it is forgotten nothing is lost but that.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.db import nodes, shares
from server.db.database import Connection
from server.db.nodes import Pause
from server.db.tables import NO_SHARE
from server.logic.sharetree import ShareTree

#: s after which it is read again: how long a change by an operator may go unnoticed.
_LIFETIME = 2.0
#: Part of what runs that may be handed out before the order of shares is worked out anew: with few jobs each counts.
_TOLERANCE = 0.001


@dataclass
class Policy:
    """What was read.

    Attributes:
        counted, total: HS06 of the jobs of each share, and of all, when they were counted.
        pauses: (queue, host) -> the pause that a node has.
        handed: HS06 of the jobs of each share that this process has handed out since they were counted.
        turns: the shares in the order in which they are served; empty until somebody asks.
        unseen: HS06 handed out since `turns` was made.
    """

    read: float
    tree: ShareTree
    counted: Mapping[str, float]
    total: float
    counted_time: float
    pauses: Mapping[tuple[str, str], Pause]
    handed: dict[str, float] = field(default_factory=dict)
    turns: Sequence[str] = ()
    unseen: float = 0.0


class PolicyKeeper:
    """A process's view of it. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._policy: Policy | None = None
        self._handed: list[tuple[float, str, float]] = []

    def current(self, connection: Connection, now: float) -> Policy:
        """What is known, read again if that was too long ago."""
        policy = self._policy
        if policy is None or not 0 <= now - policy.read < _LIFETIME:
            fresh = _read(connection, now)
            with self._lock:
                self._handed = [item for item in self._handed if item[0] >= fresh.counted_time]
                for _, share, power in self._handed:
                    fresh.handed[share] = fresh.handed.get(share, 0.0) + power
                self._policy = policy = fresh
        return policy

    def forget(self) -> None:
        """Have it read again at once: this process has just changed it."""
        self._policy = None

    def note_claim(self, policy: Policy, share: str, power: float, now: float) -> None:
        """Note that a job of a share has been handed out.

        Args:
            power: HS06 of its cores.
        """
        if not policy.tree:
            return
        with self._lock:
            self._handed.append((now, share, power))
            policy.handed[share] = policy.handed.get(share, 0.0) + power
            policy.unseen += power


def ranking(policy: Policy, processes: int) -> Sequence[str]:
    """The shares without children in the order in which they are served; what belongs to none comes last.

    Args:
        processes: how many hand out jobs as this one does, for an idea of what the others have done.
    """
    if not policy.turns or policy.unseen * processes > _TOLERANCE * policy.total:
        usage = dict(policy.counted)
        for share, power in list(policy.handed.items()):
            usage[share] = usage.get(share, 0.0) + power * processes
        policy.unseen = 0.0
        policy.turns = (*policy.tree.ranking(usage), NO_SHARE)
    return policy.turns


def _read(connection: Connection, now: float) -> Policy:
    tree = ShareTree(shares.read_shares(connection))
    usage = shares.read_usage(connection)
    return Policy(
        read=now,
        tree=tree,
        counted={share.gshare: share.hs06 for share in usage},
        total=sum(share.hs06 for share in usage),
        counted_time=max((share.countedTime for share in usage), default=0.0),
        pauses=nodes.read_pauses(connection, now),
    )
