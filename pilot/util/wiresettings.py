"""Settings of what goes over further wires than the dispatcher's: the live log and the message broker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RealtimeSettings:
    """Section [Realtime]; the units stand in default.cfg."""

    files: str
    logname: str
    destination: str
    interval: float
    piece: int
    backlog: int
    timeout: float
    retry_delay_max: float
    insecure: bool
