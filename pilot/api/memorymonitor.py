"""A site's own memory monitor, prmon, beside a payload (chapter 7.3.2 of PanDA's documents).

It writes the two files that pilot.util.memoryfiles knows. Without one on the path the pilot writes them itself.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from pilot.api.services import Services
from pilot.common.exception import NotDefined
from pilot.util.guarded import GuardedProcess, Launcher
from pilot.util.memoryfiles import OUTPUT, SUMMARY, Summary, read_summary

# A monitor that was told to stop writes its summary at once; one that does not is ended after this (s).
_GRACE = 2.0
# What the monitor says of itself goes here, in the job's directory.
_SAID = "memory_monitor_log.txt"


class MemoryMonitoring(Services):
    """One run of the monitor. pid: root of the payload's process tree; workdir: the job's directory."""

    def __init__(self, *, pid: int = 0, workdir: str = "", user: str = "", cmd: str = "prmon", interval: int = 60):
        """Take what to watch. interval: seconds between samples. user is accepted as documented, and not needed."""
        super().__init__()
        self.pid, self.workdir, self.user = pid, workdir, user
        self._cmd, self._interval = cmd, interval
        self._process: GuardedProcess | None = None

    @staticmethod
    def find(cmd: str, environ: Mapping[str, str]) -> str:
        """Where the monitor is on the pilot's path; empty when there is none, or `cmd` is empty."""
        return (shutil.which(cmd, path=environ.get("PATH")) or "") if cmd else ""

    def get_filename(self) -> str:
        """Path of the table."""
        return str(Path(self.workdir) / OUTPUT)

    def get_command(self) -> str:
        """The full command, as a person would type it."""
        return shlex.join(self._words())

    def execute(self, launcher: Launcher, environ: Mapping[str, str]) -> GuardedProcess:
        """Start it. Raises NotDefined without a pid, and what Launcher.start raises."""
        if not self.pid:
            raise NotDefined("the memory monitor has no process to watch")
        workdir = Path(self.workdir)
        try:
            with (workdir / _SAID).open("wb") as said:
                self._process = launcher.start(self._words(), cwd=workdir, env=environ, stdout=said, stderr=said)
        except OSError as exc:
            raise NotDefined(f"no file for what the memory monitor says: {exc}") from exc
        return self._process

    def finish(self) -> None:
        """End it and wait until it has written its summary."""
        if self._process is not None:
            self._process.stop(_GRACE)
            self._process.wait()
            self._process = None

    def get_results(self) -> Summary | None:
        """Its summary, if it made sense."""
        return read_summary(Path(self.workdir))

    def _words(self) -> list[str]:
        files = ("--filename", self.get_filename(), "--json-summary", str(Path(self.workdir) / SUMMARY))
        return [self._cmd, "--pid", str(self.pid), *files, "--interval", str(self._interval)]
