"""The slot this pilot has on its node: when it ends, by all that tell, and the file in which a payload reads it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from pilot.common.exception import PilotException
from pilot.control.rules.slot import Deadline, Plan, SlotSettings, earliest, plan
from pilot.util import batchlimits
from pilot.util.config import PilotSettings
from pilot.util.features import Features, read_features
from pilot.util.filehandling import write_atomically
from pilot.util.guarded import Launcher
from pilot.util.workernode import NodeFacts

# The payload finds the file's path in this variable, and the file in its directory.
SLOT_VARIABLE = "PILOT_SLOT_FILE"
SLOT_FILE = "pilot_slot.json"


class Slot:
    """started: seconds since 1970; fixed: what does not change, the pilot's lifetime among it.

    Machine and job features are read again at each refresh. Any thread may ask.
    """

    def __init__(self, started: float, fixed: Sequence[Deadline], environ: Mapping[str, str]) -> None:
        self.started = started
        self._fixed = tuple(fixed)
        self._environ = environ
        self._lock = threading.Lock()
        self._features = Features()
        self._deadline = earliest(self._fixed)
        self.refresh()

    def refresh(self) -> None:
        """Read what may have changed: the end of the slot may then be another than before."""
        features = read_features(self._environ)
        announced = [Deadline(when, source) for source, when in features.ends(self.started).items()]
        deadline = earliest([*self._fixed, *announced])
        with self._lock:
            self._deadline, self._features = deadline, features

    @property
    def deadline(self) -> Deadline:
        """When the slot ends, and who says so."""
        with self._lock:
            return self._deadline

    @property
    def features(self) -> Features:
        """Machine and job features, as read last."""
        with self._lock:
            return self._features

    @property
    def total(self) -> float:
        """Seconds from the pilot's start to the end of the slot."""
        return self.deadline.when - self.started

    def left(self, now: float) -> float:
        """Seconds until the end of the slot, at least 0."""
        return max(0.0, self.deadline.when - now)

    def plan(self, settings: PilotSettings) -> Plan:
        """What happens before the end, and when."""
        wanted = SlotSettings(settings.shutdown_reserve, settings.grace_planned, settings.soft_notice)
        return plan(self.started, self.deadline.when, wanted)


def find_slot(
    *,
    started: float,
    lifetime: float,
    maxtime: float,
    environ: Mapping[str, str],
    node: NodeFacts,
    launcher: Launcher,
    workdir: Path,
    timeout: float,
    log: logging.Logger,
) -> Slot:
    """Find out when the slot ends. lifetime: the pilot's; maxtime: the queue's, 0 for none; timeout: of the batch
    system's command (all seconds)."""
    found = [Deadline(started + lifetime, "lifetime of the pilot (--lifetime)")]
    if maxtime > 0:
        found.append(Deadline(started + maxtime, "maxtime of the queue"))
    when = batchlimits.end_from_environment(environ, started) or batchlimits.end_from_condor(environ)
    if when is None:
        when = _ask(environ, node, launcher, workdir, timeout, started, log)
    if when is not None:
        found.append(Deadline(when, f"limit of the batch system ({node.batch_system or 'by its variables'})"))
    slot = Slot(started, found, environ)
    log.info("the slot ends in %.0f s: %s", slot.deadline.when - started, slot.deadline.source)
    return slot


def _ask(
    environ: Mapping[str, str],
    node: NodeFacts,
    launcher: Launcher,
    workdir: Path,
    timeout: float,
    started: float,
    log: logging.Logger,
) -> float | None:
    """Ask the batch system with its own command, which many nodes do not have."""
    command = batchlimits.query(node.batch_system, node.batch_id)
    if not command:
        return None
    try:
        output = launcher.output(command, cwd=workdir, env=environ, timeout=timeout)
    except PilotException as exc:
        log.info("the batch system cannot be asked for the slot's limit: %s", exc.diag)
        return None
    when = batchlimits.end_from_output(node.batch_system, output, started, started)
    if when is None:
        log.info("%s names no limit for this slot", " ".join(command))
    return when


def publish(workdir: Path, slot: Slot, planned: Plan) -> None:
    """Write the file for the payload. Raises OSError.

    Times are seconds since 1970: soft (the soft signal, for those who handle it), stop (TERM), kill, end. Absolute
    times stay true without anybody writing the file again and again.
    """
    contents = {
        "soft": int(planned.soft),
        "stop": int(planned.stop),
        "kill": int(planned.stop + planned.grace),
        "end": int(planned.end),
        "source": slot.deadline.source,
    }
    write_atomically(workdir / SLOT_FILE, (json.dumps(contents) + "\n").encode())
