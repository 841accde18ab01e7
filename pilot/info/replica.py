"""One replica of a file: where a copy of it lies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Replica:
    """ddmendpoint: the storage; pfn: the whole URL; domain: lan, wan or empty; priority: smaller is better (Rucio)."""

    ddmendpoint: str
    pfn: str
    domain: str = ""
    priority: int = 0
