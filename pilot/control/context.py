"""What all controllers of one pilot share: settings, facts and tools."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pilot.arguments import Arguments
from pilot.control.eventsource import EventSource
from pilot.control.keeper import Keeper
from pilot.control.slot import Slot
from pilot.control.updates import Identity
from pilot.copytool.common import KeyPairs
from pilot.info.infoservice import InfoService
from pilot.util.blot import Secrets
from pilot.util.config import Settings
from pilot.util.container import Runtime
from pilot.util.guarded import Launcher
from pilot.util.plugins import Plugins
from pilot.util.recorder import Recorder
from pilot.util.workernode import NodeFacts


@dataclass(frozen=True)
class Context:
    """Made once by the workflow; nothing in it is replaced later.

    environ: the environment as the pilot found it. rundir: where the pilot was started (spool, kill file, caches);
    workdir: its own directory in there. stopping: set when no new job may be begun. fetch: downloads a URL
    (with retries) and returns its body, raising PilotException. base_urls: below which transformations may lie.
    started: epoch seconds of the pilot's start. slot: how long the pilot may stay. keeper: of the pilot's proxy and
    tokens. recorder: takes what is decided and measured. key_pair: asks the dispatcher for a pair of keys by their
    names; None without a dispatcher. events: the dispatcher's event service; None without a dispatcher. runtime: the
    node's container runtime, if there is one. secrets: what the pilot knows by value and lets nobody read.
    """

    args: Arguments
    settings: Settings
    environ: Mapping[str, str]
    rundir: Path
    workdir: Path
    node: NodeFacts
    identity: Identity
    infosys: InfoService
    plugins: Plugins
    launcher: Launcher
    base_urls: tuple[str, ...]
    started: float
    slot: Slot
    stopping: threading.Event
    fetch: Callable[[str], bytes]
    keeper: Keeper
    log: logging.Logger
    recorder: Recorder
    key_pair: KeyPairs | None = None
    events: EventSource | None = None
    runtime: Runtime | None = None
    secrets: Secrets = field(default_factory=Secrets)

    @property
    def pilotlog(self) -> Path:
        """The pilot's own log file."""
        return self.workdir / self.settings.pilot.pilotlog
