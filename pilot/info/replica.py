"""One replica of a file: where a copy of it lies."""

from __future__ import annotations

from dataclasses import dataclass

from pilot.info.entry import Entry


@dataclass(frozen=True)
class Replica(Entry):
    """ddmendpoint: the storage; pfn: the whole URL; domain: lan, wan or empty; priority: smaller is better (Rucio)."""

    ddmendpoint: str
    pfn: str
    domain: str = ""
    priority: int = 0
