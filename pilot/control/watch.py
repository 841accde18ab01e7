"""Watching one job: what is measured when, and which rule is asked about it.

Everything that decides is a pure function in pilot.control.rules; here samples are carried in, and verdicts out. Each
check says when it wants to look again, so that nothing is looked at in vain.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pilot.api.memorymonitor import MemoryMonitoring
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.common.lifecycle import State
from pilot.control import looping
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.rules import sizes
from pilot.control.rules.looping import LoopingSettings, LoopingWatch, Warned, staging_verdict
from pilot.control.rules.memory import MemorySample, MemorySettings, MemoryWatch, memory_limit, next_sample
from pilot.control.rules.slot import Step, step
from pilot.control.slot import publish
from pilot.util import memoryfiles
from pilot.util.filehandling import directory_size
from pilot.util.footprint import release_file_pages
from pilot.util.guarded import GuardedProcess
from pilot.util.plugins import coded
from pilot.util.processes import TreeSample, sample_tree
from pilot.util.stacks import catches, hands_on
from pilot.util.workernode import local_space

# A machine that was suspended for less than this (s) is not worth a line in the log.
_SUSPENDED = 5.0
# Phases with a limit of their own, as they are called in the log and in pilotTiming.
_STAGING = {State.STAGEIN: "stage-in", State.STAGEOUT: "stage-out"}

Verdict = Callable[[JobRun, PilotException, float], None]


@dataclass
class _Check:
    """One thing that is looked at. run: looks at `now` (monotonic s) and says when to look again; after: seconds to the
    first look in a state, or at a payload; due: when next; began: the state, or the payload, that it looks at, None
    before."""

    run: Callable[[float], float]
    states: tuple[State, ...]
    after: float = 0.0
    needs_payload: bool = False
    due: float = 0.0
    began: State | GuardedProcess | None = None


class JobWatch:
    """verdict: told about every limit that the job went beyond, with the grace in seconds that an end for it has."""

    def __init__(self, context: Context, run: JobRun, verdict: Verdict) -> None:
        self._context = context
        self._job = run
        self._verdict = verdict
        settings = context.settings.payload
        self._memory = self._memory_watch()
        self._limit = looping.limit_of(run, settings.looping_limit)
        self._looping = LoopingWatch(LoopingSettings(self._limit, settings.looping_check, settings.looping_cpu))
        self._pause = settings.memory_check_first
        self._state, self._since = run.lifecycle.state, time.monotonic()
        self._boot = _suspended()
        self._deadline = context.slot.deadline
        self._warned: GuardedProcess | None = None
        self._told_zombies = False
        self._size, self._walk_due = 0, 0.0
        self._settled: GuardedProcess | None = None
        slot_states = (State.STAGEIN, State.PAYLOAD, State.STAGEOUT)
        self._checks = [
            _Check(self._look_at_slot, slot_states),
            _Check(self._look_at_staging, (State.STAGEIN, State.STAGEOUT)),
            _Check(self._look_at_disk, (State.PAYLOAD,), settings.stdout_check),
            _Check(self._look_at_outputs, (State.PAYLOAD,), settings.output_check),
            # Very short payloads are not measured at all.
            _Check(self._sample, (State.PAYLOAD, State.STOPPING), settings.memory_check_first, needs_payload=True),
        ]
        if looping.is_wanted(context, run):
            self._checks.append(_Check(self._look_for_life, (State.PAYLOAD,), needs_payload=True))

    def look(self, now: float) -> float:
        """Do what is due at `now` (monotonic s); return when the next thing is, infinity for nothing."""
        state = self._job.lifecycle.state
        if state is not self._state:
            self._state, self._since = state, now
        self._notice_suspension()
        due = [float("inf")]
        for check in self._checks:
            payload = self._payload() if check.needs_payload else None
            if state not in check.states or (check.needs_payload and payload is None):
                continue
            subject = payload or state
            if check.began is not subject:
                # A command after another is looked at as soon as the first was, and not later than it would have been.
                first, check.began = check.began is None or payload is None, subject
                check.due = now + check.after if first else min(check.due, now + check.after)
            if now >= check.due:
                check.due = check.run(now)
            due.append(check.due)
        return min(due)

    def _payload(self) -> GuardedProcess | None:
        """The payload while it runs."""
        return self._job.guarded if self._job.outcome is None else None

    def _memory_watch(self) -> MemoryWatch:
        run, settings = self._job, self._context.settings.payload
        queue = run.infosys.queuedata
        limit = None
        if self._context.plugins.hook("memory", "allow_memory_usage_verifications")():
            limit = memory_limit(
                run.data.minramcount, queue.maxrss, run.data.corecount, queue.corecount, queue.capability == "ucore"
            )
        return MemoryWatch(limit, MemorySettings(settings.memory_samples, settings.memory_near))

    def _notice_suspension(self) -> None:
        """The clock by which everything here is timed stands still with the machine; only the log has to be told."""
        asleep = _suspended()
        if asleep - self._boot > _SUSPENDED:
            self._context.log.warning(
                "job %s: the machine was suspended for %.0f s, which do not count as standing still",
                self._job.jobid,
                asleep - self._boot,
            )
        self._boot = asleep

    # ---- memory, CPU, processes

    def _sample(self, now: float) -> float:
        run, settings, guarded = self._job, self._context.settings.payload, self._payload()
        if guarded is None:
            return now
        if guarded is not self._settled:
            # The payload is none of the very short ones: from here on what pilot and guard hold is only overhead.
            self._settled, self._pause = guarded, settings.memory_check_first
            guarded.settle()
            release_file_pages()
            self._start_monitor(guarded)
        spent = time.thread_time()
        sample = sample_tree(*run.roots)
        spent = time.thread_time() - spent
        if sample.processes:
            self._record(sample, guarded)
            in_group = run.oom.notice(guarded.guard_pid, sample)
            # Each command has a group of its own: what runs beside the payload is not in the payload's.
            others = run.roots[1:]
            beside = sample_tree(*others).charged if in_group is not None and others else 0
            charged = sample.charged if in_group is None else in_group + beside
            error = self._memory.look(MemorySample(time.time(), charged, sample.largest))
            run.usage.evidence = self._memory.evidence()
            cpu = round(sample.cpu_user + sample.cpu_system, 2)
            self._context.recorder.sample(
                "payload", job=run.jobid, memory_kb=charged, processes=sample.processes, cpu=cpu
            )
            self._looping.notice(sample.stopped)
            self._tell_zombies(sample.zombies)
            code, text = coded(self._context.plugins.hook("memory", "memory_usage")(run.data))
            if error is None and code:
                error = PilotException(text, code=code)
            if error is not None:
                self._end(error, f"memory samples: {run.usage.evidence}")
        self._pause = next_sample(
            self._pause,
            # Nothing tells when what runs before the payload ends, and the payload is to have its first look soon.
            settings.memory_check if run.payload is not None else settings.memory_check_near,
            settings.memory_check_near,
            self._memory.is_near,
            spent,
            settings.memory_share,
        )
        return now + self._pause

    def _record(self, sample: TreeSample, guarded: GuardedProcess) -> None:
        """Take a sample into the job's figures, and into the table unless the site's own monitor writes it."""
        run = self._job
        first = not run.usage.samples
        run.usage.add(sample)
        if run.monitor is None:
            now = time.time()
            line = memoryfiles.row(sample, guarded.pid, now, now - guarded.started)
            try:
                memoryfiles.append_row(run.workdir, line, first=first)
            except OSError as exc:
                self._context.log.debug("job %s: no line in %s: %s", run.jobid, memoryfiles.OUTPUT, exc)

    def _start_monitor(self, guarded: GuardedProcess) -> None:
        """The site's own memory monitor, where there is one; it writes the memory files then.

        It looks after one payload: of several one after the other (HPO) the pilot's own figures tell more.
        """
        context, run = self._context, self._job
        if guarded is not run.payload or run.data.is_hpo:
            return
        command = MemoryMonitoring.find(context.settings.payload.memory_monitor, context.environ)
        if not command:
            return
        interval = max(1, int(context.settings.payload.memory_check))
        monitor = MemoryMonitoring(pid=guarded.guard_pid, workdir=str(run.workdir), cmd=command, interval=interval)
        with run.lock:
            # The payload's end waits for the monitor's: one that starts later would be left behind.
            if run.outcome is not None:
                return
            try:
                monitor.execute(context.launcher, context.environ)
            except PilotException as exc:
                context.log.warning("job %s: %s does not start: %s", run.jobid, command, exc.diag)
                return
            run.monitor = monitor
        context.log.info("job %s: memory monitor: %s", run.jobid, monitor.get_command())

    def _tell_zombies(self, zombies: int) -> None:
        if zombies >= self._context.settings.payload.zombies_told and not self._told_zombies:
            self._told_zombies = True
            text = "job %s: %d processes of the payload have ended and were never waited for (zombies)"
            self._context.log.warning(text, self._job.jobid, zombies)

    # ---- life

    def _look_for_life(self, now: float) -> float:
        run, guarded = self._job, self._payload()
        check = self._context.settings.payload.looping_check
        if guarded is None:
            return now
        files = looping.files_of(self._context, run)
        found = self._looping.look(now, looping.signs_of(self._context, run, files))
        if isinstance(found, Warned):
            self._context.recorder.decision("no sign of life", job=run.jobid, seconds=round(found.still))
            self._context.log.warning(
                "job %s: no sign of life for %.0f s; it is ended at the next check in %.0f s unless something moves",
                run.jobid,
                found.still,
                check,
            )
        elif found is not None:
            self._end(found, *looping.evidence(run, files))
        return now + check

    def _look_at_staging(self, now: float) -> float:
        settings = self._context.settings.payload
        limit = settings.stagein_limit if self._state is State.STAGEIN else settings.stageout_limit
        error = staging_verdict(_STAGING[self._state], now - self._since, limit)
        if error is not None:
            self._end(error)
            return float("inf")
        return self._since + limit if limit > 0 else float("inf")

    # ---- sizes

    def _look_at_disk(self, now: float) -> float:
        run, settings = self._job, self._context.settings
        size = self._workdir_size(now)
        run.usage.workdir = max(run.usage.workdir, size)
        output = sum(_size(run.workdir / name) for name in (settings.payload.stdout, settings.payload.stderr))
        error = (
            sizes.stdout_verdict(output, settings.payload.stdout_limit)
            or sizes.workdir_verdict(size, run.infosys.queuedata.maxwdir)
            or sizes.space_verdict(local_space(run.workdir), settings.file.space_to_run)
        )
        if error is not None:
            self._end(error)
        wall = time.time() - run.guarded.started if run.guarded is not None else 0.0
        data = run.data
        asked = sizes.exceeded_requests(
            disk=size,
            maxdiskcount=data.maxdiskcount,
            cpu=run.cpu_time,
            maxcpucount=data.maxcpucount,
            wall=wall,
            maxwalltime=data.maxwalltime,
        )
        for name in asked.keys() - run.exceeded.keys():
            self._context.log.warning("job %s: %s", run.jobid, asked[name])
            run.exceeded[name] = asked[name]
        return now + min(settings.payload.stdout_check, settings.file.disk_check)

    def _workdir_size(self, now: float) -> int:
        """Bytes; as they were the last time while it would cost too much to walk through very many files again."""
        if now >= self._walk_due:
            begun = time.thread_time()
            self._size = directory_size(self._job.workdir) + directory_size(self._job.inside)
            self._walk_due = now + (time.thread_time() - begun) / self._context.settings.payload.memory_share
        return self._size

    def _look_at_outputs(self, now: float) -> float:
        settings = self._context.settings
        found = {spec.lfn: _size(self._job.workdir / spec.lfn) for spec in self._job.data.outdata}
        error = sizes.output_verdict(found, settings.file.output_limit)
        if error is not None:
            self._end(error)
        return now + settings.payload.output_check

    # ---- the end of the slot

    def _look_at_slot(self, now: float) -> float:
        context, run = self._context, self._job
        slot, settings = context.slot, context.settings.pilot
        slot.refresh()
        if slot.deadline != self._deadline:
            self._deadline = slot.deadline
            context.log.warning("the slot now ends in %.0f s: %s", slot.left(time.time()), slot.deadline.source)
            self._publish()
        planned = slot.plan(settings)
        what, when = step(time.time(), planned)
        if what is Step.SOFT:
            # Each payload once; one that only begins now is told as well.
            if self._payload() is not None and self._payload() is not self._warned:
                self._warned = self._payload()
                self._send_soft_signal(slot.left(time.time()))
        # Stage-out is what the time is kept for: only at the very end it is cut short, so that the log gets out.
        elif what is Step.HURRY or (what is Step.STOP and self._state is not State.STAGEOUT):
            text = f"the slot ends in {slot.left(time.time()):.0f} s: {slot.deadline.source}"
            self._verdict(run, PilotException(text, code=ErrorCodes.REACHEDMAXTIME), planned.grace)
            if what is Step.HURRY:
                return float("inf")
        return now + min(max(when - time.time(), 0.0), settings.slot_check)

    def _publish(self) -> None:
        try:
            publish(self._job.workdir, self._context.slot, self._context.slot.plan(self._context.settings.pilot))
        except OSError as exc:
            self._context.log.warning("job %s: the payload cannot be told about its slot: %s", self._job.jobid, exc)

    def _send_soft_signal(self, left: float) -> None:
        """To those processes that have a handler for it: others would die of it."""
        number = signal.Signals[self._context.settings.pilot.soft_signal]
        below = sample_tree(*self._job.roots).below
        told = [pid for pid in below if catches(pid, number) and not hands_on(pid)]
        for pid in told:
            try:
                os.kill(pid, number)
            except OSError:
                continue  # it has just ended
        text = "job %s: the slot ends in %.0f s: %s sent to %d process(es) that handle it"
        self._context.log.info(text, self._job.jobid, left, number.name, len(told))

    def _end(self, error: PilotException, *evidence: str) -> None:
        """Say what the error was decided on, and ask for the job's end."""
        if str(error.code) not in self._job.exceeded:
            for line in evidence:
                self._context.log.warning("job %s: %s", self._job.jobid, line)
        self._verdict(self._job, error, self._context.settings.pilot.grace_on_signal)


def _suspended() -> float:
    """Seconds that this machine was suspended since it was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
