"""The tree of global shares (chapter 14 of PanDA's documents): which job belongs where, and whose turn it is.

Pure: neither database nor clock. A share's target is a part of its parent's, by its value among its siblings' values.
Turns are decided from the top: of siblings the one that uses the smallest part of its target comes first, with all that
is below it. So what a share leaves unused goes to its siblings before it goes to anybody else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from server.db.jobs import Values
from server.db.shares import Share
from server.db.tables import NO_SHARE

#: A share of this name is served before all others, whatever it uses (client.md section 3).
FIRST_SHARE = "Test"


@dataclass(frozen=True)
class Facts:
    """What tagging looks at; the fields are the columns of a rule."""

    prodSourceLabel: str
    workingGroup: str
    campaign: str
    processingType: str
    transPath: str
    resource_type: str


_FACTS = tuple(Facts.__dataclass_fields__)


def facts_of(job: Values, definition: Mapping[str, object]) -> Facts:
    """What tagging looks at.

    Args:
        job: columns of `jobs`.
        definition: what else a pilot is given; empty if no rule looks at it.
    """
    columns = {name: str(job[name] or "") for name in ("prodSourceLabel", "workingGroup", "processingType")}
    return Facts(
        **columns,
        campaign=str(definition.get("campaign") or ""),
        transPath=str(definition.get("transformation") or ""),
        resource_type=str(job["resource_type"] or ""),
    )


@dataclass
class Node:
    """A share in the tree.

    Attributes:
        target: its part of everything, between 0 and 1.
    """

    share: Share
    target: float
    depth: int
    children: list[Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The share's name."""
        return self.share.name


class ShareTree:
    """All shares of a server."""

    def __init__(self, shares: Sequence[Share]) -> None:
        """shares: in the order they were given in, parents that exist, names that are there once."""
        self._by_parent: dict[str | None, list[Share]] = {}
        for share in shares:
            self._by_parent.setdefault(share.parent, []).append(share)
        self.roots = self._nodes(None, 1.0, 0)
        self.leaves = [node for node in self.walk() if not node.children]
        self._rules = [(node.name, _compiled(node.share)) for node in self.leaves]
        #: Whether a rule looks at what only a job's definition tells.
        self.reads_definitions = any(leaf.share.campaign or leaf.share.transPath for leaf in self.leaves)

    def _nodes(self, parent: str | None, target: float, depth: int) -> list[Node]:
        siblings = self._by_parent.get(parent, [])
        whole = sum(share.value for share in siblings)
        nodes = [Node(share, target * share.value / whole if whole else 0.0, depth) for share in siblings]
        for node in nodes:
            node.children = self._nodes(node.name, node.target, depth + 1)
        return nodes

    def __bool__(self) -> bool:
        """Whether there are shares."""
        return bool(self.roots)

    def walk(self) -> Iterator[Node]:
        """Every share, parents before their children."""
        return _below(self.roots)

    def share_of(self, facts: Facts) -> str:
        """The share a job belongs to: the first without children whose whole rule fits, or NO_SHARE."""
        for name, rule in self._rules:
            if rule and all(pattern.fullmatch(getattr(facts, column)) for column, pattern in rule):
                return name
        return NO_SHARE

    def ranking(self, usage: Mapping[str, float]) -> list[str]:
        """The shares without children in the order in which they are served.

        Args:
            usage: what the jobs of each share use, in whatever unit.
        """
        ranking: list[str] = []
        _rank(self.roots, usage, ranking)
        if FIRST_SHARE in ranking:
            ranking.remove(FIRST_SHARE)
            ranking.insert(0, FIRST_SHARE)
        return ranking


def _below(nodes: Sequence[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        yield from _below(node.children)


def used(node: Node, usage: Mapping[str, float]) -> float:
    """What a share uses, with all that is below it."""
    return usage.get(node.name, 0.0) + sum(used(child, usage) for child in node.children)


def _rank(siblings: Sequence[Node], usage: Mapping[str, float], ranking: list[str]) -> None:
    def order(node: Node) -> tuple[float, float]:
        return (used(node, usage) / node.target if node.target else float("inf"), -node.target)

    for node in sorted(siblings, key=order):
        if node.children:
            _rank(node.children, usage, ranking)
        else:
            ranking.append(node.name)


def _compiled(share: Share) -> list[tuple[str, re.Pattern[str]]]:
    patterns = ((column, getattr(share, column)) for column in _FACTS)
    return [(column, _pattern(text)) for column, text in patterns if text]


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)
