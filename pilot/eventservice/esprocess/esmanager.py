"""Runs a hook's payload from beginning to end."""

from __future__ import annotations

import logging
from pathlib import Path

from pilot.eventservice.esprocess.eshook import ESHook
from pilot.eventservice.esprocess.esprocess import ESProcess
from pilot.util.guarded import Launcher, Outcome


class ESManager:
    """hook: payload, event ranges and ear. workdir: where the payload runs. launcher: with which it is started."""

    def __init__(self, hook: ESHook, workdir: Path, launcher: Launcher, log: logging.Logger | None = None) -> None:
        self._process = ESProcess(hook, workdir, launcher, log)

    def run(self) -> Outcome:
        """Run the payload and wait for its end. Raises PilotException as ESProcess does."""
        self._process.start()
        return self._process.wait()
