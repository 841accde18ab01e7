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


@dataclass(frozen=True)
class BrokerSettings:
    """Section [Message_broker]."""

    host_port_list: str
    use_ssl: bool
    insecure: bool
    vhost: str
    destination: str
    commands: str
    username: str
    passcode_file: str
    cert_file: str
    key_file: str
    ca: str
    heartbeat: float
    timeout: float
    patience: float
    retry_delay: float
    retry_delay_max: float
