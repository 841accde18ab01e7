"""One job under way: its definition, its life cycle, and what was measured and decided on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.api.attempts import Attempt
from pilot.api.memorymonitor import MemoryMonitoring
from pilot.common.exception import PilotException
from pilot.common.lifecycle import Lifecycle, State
from pilot.control.oom import OomWatch
from pilot.info.infoservice import InfoService
from pilot.info.jobdata import JobData
from pilot.util.guarded import GuardedProcess, Outcome
from pilot.util.https import Json
from pilot.util.memoryfiles import Summary
from pilot.util.processes import TreeSample

if TYPE_CHECKING:
    from pilot.control.events import EventBook

# Phases whose times go into pilotTiming, in its order (pilot.md, section 3, step 12).
PHASES = ("getjob", "stage-in", "payload", "stage-out", "initial set-up", "set-up")

# What is counted from the start of a process on, and so is added up where one command follows another.
_ADDED_UP = ("cpu_user", "cpu_system", "rchar", "wchar", "rbytes", "wbytes")


@dataclass
class Usage:
    """Figures of a payload's process tree over time. Memory in kB, I/O and directory in bytes, CPU in seconds.

    evidence: the last samples of what counts as memory, for people. base: what commands that have ended had used of CPU
    and I/O, which `last` includes.
    """

    samples: int = 0
    last: TreeSample = field(default_factory=TreeSample)
    base: TreeSample = field(default_factory=TreeSample)
    maximum: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    processes: int = 0
    workdir: int = 0
    evidence: str = ""

    def add(self, sample: TreeSample) -> None:
        """Take one sample of a tree that lives."""
        if sample.processes == 0:
            return
        self.samples += 1
        self.last = replace(sample, **{name: getattr(sample, name) + getattr(self.base, name) for name in _ADDED_UP})
        self.processes = max(self.processes, sample.processes)
        for name in ("rss", "vmem", "swap", "pss"):
            value = getattr(sample, name)
            self.maximum[name] = max(self.maximum.get(name, 0), value)
            self.total[name] = self.total.get(name, 0) + value

    def begin(self) -> None:
        """Another command of the job follows those that have ended."""
        self.base = self.last

    def average(self, name: str) -> int:
        """Mean of one memory figure (kB)."""
        return self.total.get(name, 0) // max(self.samples, 1)

    def take(self, summary: Summary) -> None:
        """Believe a site's own memory monitor about memory: it has looked at it more often."""
        self.samples = max(self.samples, 1)
        self.maximum.update(summary.maximum)
        self.total.update({name: value * self.samples for name, value in summary.average.items()})

    def summary(self) -> Summary:
        """What was measured, as the memory monitor's summary has it."""
        io = {name: getattr(self.last, name) for name in ("rchar", "wchar", "rbytes", "wbytes")}
        return Summary(dict(self.maximum), {name: self.average(name) for name in self.total}, io)


@dataclass
class JobRun:
    """A job that this pilot has taken. One controller at a time works on it; the monitor only reads.

    claim: the dispatcher's claim id, empty from servers without. interval: seconds between heartbeats. timing:
    seconds by phase. log_offset: where this job begins in the pilot's log. over: set when the outcome was delivered
    or spooled. transfers: every attempt to move a file.
    brought: names in the job's directory before its payload began. report: the job report, empty when there is none.
    variables: more of its payload's environment. events: the event ranges of a job of the event service.
    cores: core dumps that are kept for the log, by path in the job's directory; core_story: what is told of them.
    commands: what of the job runs now, the payload and what comes before, beside or after it; guarded is the last of
    those that the job waits for, payload the payload itself. utilities: the experiment's own, beside them. aside: names
    of files that these write.
    round: which payload of the job this is, counted from 0 (HPO jobs have several).
    exceeded: limits that the payload went beyond and was not ended for, with a sentence each: by error code in shadow
    mode, by field for what the job had only asked for. figures: values of jobMetrics that are known only at the end.
    """

    data: JobData
    workdir: Path
    infosys: InfoService
    interval: float
    claim: str = ""
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    created: float = field(default_factory=time.time)
    ended: float = 0.0
    timing: dict[str, float] = field(default_factory=dict)
    log_offset: int = 0
    server_state: str = ""
    debug: bool = False
    grace: float = 0.0
    guarded: GuardedProcess | None = None
    payload: GuardedProcess | None = None
    commands: list[GuardedProcess] = field(default_factory=list)
    utilities: list[GuardedProcess] = field(default_factory=list)
    round: int = 0
    aside: set[str] = field(default_factory=set)
    outcome: Outcome | None = None
    usage: Usage = field(default_factory=Usage)
    oom: OomWatch = field(default_factory=OomWatch)
    monitor: MemoryMonitoring | None = None
    exceeded: dict[str, str] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    trans_exit_code: int = 0
    exe_error_code: int = 0
    exe_error_diag: str = ""
    metadata: str = ""
    report: Mapping[str, Json] = field(default_factory=dict)
    brought: frozenset[str] = frozenset()
    variables: dict[str, str] = field(default_factory=dict)
    events: EventBook | None = None
    cores: frozenset[str] = frozenset()
    core_story: str = ""
    workdir_size: int = 0
    transfers: list[Attempt] = field(default_factory=list)
    delivered: bool = False
    give_up_outputs: threading.Event = field(default_factory=threading.Event)
    cancel_stagein: threading.Event = field(default_factory=threading.Event)
    cancel_payload: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def jobid(self) -> str:
        """The PandaID, as text."""
        return self.data.jobid

    @property
    def inside(self) -> Path:
        """HOME, /tmp and /var/tmp of its containers, counted with its directory. They lie beside that: in it, a command
        could put a link in their place, and the next container would have what that leads to as its /tmp.
        """
        return self.workdir.with_name(f"container-files-{self.jobid}")

    @property
    def error(self) -> PilotException | None:
        """Why the job failed, if it did."""
        return self.lifecycle.error

    @property
    def is_live(self) -> bool:
        """Whether the job still needs heartbeats."""
        return self.lifecycle.state not in (State.REPORTING, State.OVER)

    @property
    def roots(self) -> tuple[int, ...]:
        """Pids of the guards of all commands of the job that run now: the payload's first, if it runs."""
        with self.lock:
            ordered = sorted(self.commands, key=lambda one: one is not self.guarded)
            return tuple(one.guard_pid for one in ordered)

    def adopt(self, guarded: GuardedProcess, *, beside: bool = False, utility: bool = False) -> None:
        """A command of the job has started. It is ended at once if the job has been ended meanwhile.

        beside: nothing waits for it. utility: it is the experiment's, and not counted as the job's.
        """
        with self.lock:
            (self.utilities if utility else self.commands).append(guarded)
            if not beside:
                self.guarded = guarded
            if self.error is not None:
                guarded.stop(self.grace)

    def drop(self, guarded: GuardedProcess) -> None:
        """A command of the job has ended."""
        with self.lock:
            for running in (self.commands, self.utilities):
                if guarded in running:
                    running.remove(guarded)

    def stop_commands(self) -> None:
        """TERM to all that runs for the job, and KILL after its grace."""
        with self.lock:
            for guarded in (*self.commands, *self.utilities):
                guarded.stop(self.grace)

    @property
    def cpu_time(self) -> float:
        """CPU seconds of the payload's tree: the guard's account at the end, the last sample before."""
        if self.outcome is not None and not self.outcome.guard_died:
            return self.outcome.cpu_user + self.outcome.cpu_system
        return self.usage.last.cpu_user + self.usage.last.cpu_system

    def measure(self, phase: str, started: float) -> None:
        """Add the time since `started` (monotonic) to a phase."""
        self.timing[phase] = self.timing.get(phase, 0.0) + time.monotonic() - started
