"""The monitor: one thread that looks at the jobs under way, each thing at its own period.

What is looked at, and by which rule it is judged, is pilot.control.watch's. The thread sends heartbeats, looks for the
kill file, and ends a job when a rule says so, unless it is in shadow mode. Between two looks it sleeps until the next
is due.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.watch import JobWatch
from pilot.info.queuedata import QueueData

# Longest sleep of the thread (s): a clock that was set, or a machine that was suspended, is noticed within this time.
_LONGEST_SLEEP = 60.0


def get_max_running_time(lifetime: int, queuedata: QueueData) -> int:
    """Seconds that a pilot may run: its lifetime, or the queue's maxtime when that is less (a documented name).

    What the batch system and the site say as well is known to pilot.control.slot.
    """
    return min(lifetime, queuedata.maxtime) if queuedata.maxtime > 0 else lifetime


@dataclass
class _Watched:
    """One job under way. heartbeat: when the next one is due (monotonic s)."""

    watch: JobWatch
    heartbeat: float


class Monitor:
    """jobs: those under way. heartbeat: sends one. abort: ends a job for a reason, with a grace in seconds."""

    def __init__(
        self,
        context: Context,
        jobs: Callable[[], list[JobRun]],
        heartbeat: Callable[[JobRun], None],
        abort: Callable[[JobRun, PilotException, float], None],
    ) -> None:
        self._context = context
        self._jobs = jobs
        self._heartbeat = heartbeat
        self._abort = abort
        self._watched: dict[str, _Watched] = {}
        self._changed = threading.Condition()
        self._woken = False
        self._closed = False

    def wake(self) -> None:
        """A job came, its payload started, or its heartbeat interval changed: look again at what is due."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def run(self) -> None:
        """Body of the thread."""
        next_kill_file = next_credentials = time.monotonic()
        while True:
            now = time.monotonic()
            jobs = [run for run in self._jobs() if run.is_live]
            if jobs and now >= next_kill_file:
                self._look_for_kill_file(jobs)
                next_kill_file = now + self._context.settings.pilot.kill_file_check
            due = [self._look_at(run, now) for run in jobs]
            if now >= next_credentials:
                next_credentials = time.monotonic() + self._context.keeper.refresh()
            due.append(next_credentials)
            if jobs:
                due.append(next_kill_file)
            self._watched = {jobid: one for jobid, one in self._watched.items() if any(r.jobid == jobid for r in jobs)}
            wait = min([d - time.monotonic() for d in due], default=_LONGEST_SLEEP)
            with self._changed:
                self._changed.wait_for(lambda: self._woken or self._closed, timeout=max(0.0, min(wait, _LONGEST_SLEEP)))
                self._woken = False
                if self._closed:
                    return

    def _look_at(self, run: JobRun, now: float) -> float:
        """Do what is due for one job; return when the next thing is."""
        watched = self._watched.get(run.jobid)
        if watched is None:
            watched = _Watched(JobWatch(self._context, run, self._enforce), now + run.interval)
            self._watched[run.jobid] = watched
        # The server may have asked for more frequent heartbeats since.
        watched.heartbeat = min(watched.heartbeat, now + self._interval(run))
        if now >= watched.heartbeat:
            self._heartbeat(run)
            watched.heartbeat = now + self._interval(run)
        return min(watched.heartbeat, watched.watch.look(now))

    def _interval(self, run: JobRun) -> float:
        debug = self._context.settings.pilot.heartbeat_debug
        return min(run.interval, debug) if run.debug else run.interval

    def _enforce(self, run: JobRun, error: PilotException, grace: float) -> None:
        """End a job by a rule. In shadow mode it is only told, once for each rule, and noted for jobMetrics."""
        if not self._context.args.shadow:
            self._abort(run, error, grace)
        elif str(error.code) not in run.exceeded:
            run.exceeded[str(error.code)] = error.diag
            self._context.recorder.decision("shadow", job=run.jobid, code=error.code, text=error.diag)
            self._context.log.warning("job %s: shadow mode: it would be ended now: %s", run.jobid, error)

    def _look_for_kill_file(self, jobs: list[JobRun]) -> None:
        """An order of a person, which holds in shadow mode too."""
        pilot = self._context.settings.pilot
        path = self._context.rundir / pilot.kill_file
        try:
            made = path.stat().st_mtime
        except OSError:
            return
        # One that is older than the pilot was meant for another.
        if made >= self._context.started - 1:
            for run in jobs:
                error = PilotException(f"{path} is there: the payload is ended", code=ErrorCodes.KILLPAYLOAD)
                self._abort(run, error, pilot.grace_on_signal)
