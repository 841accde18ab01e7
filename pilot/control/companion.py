"""What runs beside the controllers when an option asks for it: one thread each, told of what happens to jobs."""

from __future__ import annotations

from collections.abc import Callable

from pilot.common.exception import PilotException
from pilot.common.lifecycle import Event
from pilot.control.jobrun import JobRun

# Ends a job for a reason, with a grace in seconds.
Abort = Callable[[JobRun, PilotException, float], None]


class Companion:
    """A companion overrides what concerns it. name: of its thread.

    All but `run` are called by other threads and must not wait for anything outside.
    """

    name = "companion"

    def run(self) -> None:
        """Body of the thread; ends soon after `close`."""
        raise NotImplementedError

    def attach(self, jobs: Callable[[], list[JobRun]], abort: Abort) -> None:
        """Called once, before the thread starts. jobs: those under way."""

    def notice(self, run: JobRun, event: Event) -> None:
        """An event has been brought to a job's life cycle."""

    def accepted(self, run: JobRun) -> None:
        """The server has taken an update of a job."""

    def stop(self) -> None:
        """No job will be begun any more."""

    def close(self) -> None:
        """The pilot ends: all jobs are over."""
