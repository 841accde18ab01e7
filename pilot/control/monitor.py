"""The monitor: one thread that looks at the jobs under way, each thing at its own period.

Every check is a pure function of what was measured and a setting; the thread only measures, asks them, and passes on
what they say. Between two checks it sleeps until the next is due.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.common.lifecycle import State
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.util.filehandling import directory_size
from pilot.util.footprint import release_file_pages
from pilot.util.processes import sample_tree
from pilot.util.workernode import local_space

# Longest sleep of the thread (s): a clock that was set, or a machine that was suspended, is noticed within this time.
_LONGEST_SLEEP = 60.0


@dataclass
class _Schedule:
    """When each thing is due next for one job (monotonic s)."""

    heartbeat: float
    sample: float
    files: float
    sample_step: float
    sampled_from: float = field(default=0.0)


def stdout_verdict(size: int, limit_kb: int) -> PilotException | None:
    """size: bytes of the payload's stdout and stderr; limit_kb: kB."""
    if size <= limit_kb * 1024:
        return None
    text = f"the payload's stdout and stderr have {size} bytes, {limit_kb * 1024} are allowed"
    return PilotException(text, code=ErrorCodes.STDOUTTOOBIG)


def workdir_verdict(size: int, limit_mb: int) -> PilotException | None:
    """size: bytes of the job's directory; limit_mb: MB, 0 for no limit."""
    if limit_mb == 0 or size <= limit_mb * 2**20:
        return None
    text = f"the job's directory has {size} bytes, the queue allows {limit_mb * 2**20}"
    return PilotException(text, code=ErrorCodes.USERDIRTOOLARGE)


def space_verdict(free: int, least: int) -> PilotException | None:
    """free: bytes left on the work disk; least: bytes needed to go on."""
    if free >= least:
        return None
    text = f"only {free} bytes are left on the work disk, {least} are needed to go on"
    return PilotException(text, code=ErrorCodes.NOLOCALSPACE)


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
        self._schedules: dict[str, _Schedule] = {}
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
            self._schedules = {jobid: s for jobid, s in self._schedules.items() if any(r.jobid == jobid for r in jobs)}
            wait = min([d - time.monotonic() for d in due], default=_LONGEST_SLEEP)
            with self._changed:
                self._changed.wait_for(lambda: self._woken or self._closed, timeout=max(0.0, min(wait, _LONGEST_SLEEP)))
                self._woken = False
                if self._closed:
                    return

    def _look_at(self, run: JobRun, now: float) -> float:
        """Do what is due for one job; return when the next thing is."""
        payload = self._context.settings.payload
        schedule = self._schedules.get(run.jobid)
        if schedule is None:
            schedule = _Schedule(now + run.interval, now, now + payload.stdout_check, payload.memory_check_first)
            self._schedules[run.jobid] = schedule
        # The server may have asked for more frequent heartbeats since.
        schedule.heartbeat = min(schedule.heartbeat, now + self._interval(run))
        if now >= schedule.heartbeat:
            self._heartbeat(run)
            schedule.heartbeat = now + self._interval(run)
        due = [schedule.heartbeat]
        if run.guarded is not None and run.outcome is None:
            due.append(self._sample(run, schedule, now))
        if now >= schedule.files:
            schedule.files = now + payload.stdout_check
            self._check_disk(run)
        due.append(schedule.files)
        return min(due)

    def _interval(self, run: JobRun) -> float:
        debug = self._context.settings.pilot.heartbeat_debug
        return min(run.interval, debug) if run.debug else run.interval

    def _sample(self, run: JobRun, schedule: _Schedule, now: float) -> float:
        """Measure the payload: first soon after its start, then at doubling intervals up to the set one."""
        settings = self._context.settings.payload
        if not schedule.sampled_from:
            schedule.sampled_from = now
            schedule.sample = now + settings.memory_check_first
        if now >= schedule.sample and run.guarded is not None:
            if not run.usage.samples:
                # The payload is none of the very short ones: from here on what pilot and guard hold is only overhead.
                run.guarded.settle()
                release_file_pages()
            run.usage.add(sample_tree(run.guarded.guard_pid))
            schedule.sample = now + schedule.sample_step
            schedule.sample_step = min(schedule.sample_step * 2, settings.memory_check)
        return schedule.sample

    def _check_disk(self, run: JobRun) -> None:
        context = self._context
        if run.lifecycle.state is not State.PAYLOAD:
            return
        payload = context.settings.payload
        output = sum(_size(run, name) for name in (payload.stdout, payload.stderr))
        verdict = (
            stdout_verdict(output, payload.stdout_limit)
            or workdir_verdict(directory_size(run.workdir), run.infosys.queuedata.maxwdir)
            or space_verdict(local_space(run.workdir), context.settings.file.space_to_run)
        )
        if verdict is not None:
            self._abort(run, verdict, context.settings.pilot.grace_on_signal)

    def _look_for_kill_file(self, jobs: list[JobRun]) -> None:
        pilot = self._context.settings.pilot
        path = self._context.rundir / pilot.kill_file
        # One that is older than the pilot was meant for another.
        if path.exists() and path.stat().st_mtime >= self._context.started - 1:
            for run in jobs:
                error = PilotException(f"{path} is there: the payload is ended", code=ErrorCodes.KILLPAYLOAD)
                self._abort(run, error, pilot.grace_on_signal)


def _size(run: JobRun, name: str) -> int:
    try:
        return (run.workdir / name).stat().st_size
    except OSError:
        return 0
