"""The daemon's own process: starts scripts when their time has come or the bell rings, and kills those that hang.

It never touches the database; its workers do. It waits in one place, for whatever comes first: the bell, a worker that
is done, a signal, the end of its parent, or the next period.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

from server.daemon.config import DaemonConfig, Script
from server.daemon.relay import Relay
from server.daemon.worker import AGAIN, Later, work
from server.db.wakeup import SocketEar
from server.settings import Settings

logger = logging.getLogger(__name__)

#: s a script may take to end when the daemon stops.
GRACE = 5


@dataclass
class _Worker:
    process: ForkProcess
    pipe: Connection
    born: float
    script: Script | None = None
    begun: float = 0.0
    deadline: float = 0.0


@dataclass
class _Schedule:
    """When a script is due."""

    script: Script
    due: float
    running: bool = False
    rung: bool = False


class Runner:
    """Runs scripts until it is told to stop."""

    def __init__(
        self,
        settings: Settings,
        config: DaemonConfig,
        *,
        watch_stdin: bool = False,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            watch_stdin: stop when standard input is closed: whoever started the daemon has gone.
            on_ready: called when it hears the bell and has its workers.
        """
        self._settings = settings
        self._config = config
        self._watch_stdin = watch_stdin
        self._on_ready = on_ready
        now = time.monotonic()
        self._schedules = {script.name: _Schedule(script, now) for script in config.scripts}
        self._workers: list[_Worker] = []
        self._stopping = False

    def run(self) -> None:
        """Run until a signal or the end of standard input."""
        signals, self._signal_end = socket.socketpair()
        signals.setblocking(False)
        self._signal_end.setblocking(False)
        signal.set_wakeup_fd(self._signal_end.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        ear = SocketEar(self._settings.data_path())
        relay = Relay(self._settings)
        try:
            relay.start()
            for _ in range(self._config.n_proc):
                self._hire()
            self._on_ready()
            while not self._stopping:
                self._start_due()
                ear.keep_path()
                relay.look_after()
                self._wait(ear, signals)
        finally:
            ear.close()
            relay.stop()
            self._dismiss_all()
            signal.set_wakeup_fd(-1)
            signals.close()
            self._signal_end.close()

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _hire(self) -> None:
        """Start a worker; forked from this process, which has one thread and no connection to anything."""
        ours, theirs = get_context("fork").Pipe()
        inherited = [worker.pipe for worker in self._workers] + [ours]
        process = get_context("fork").Process(target=_work, args=(self._settings, theirs, inherited), name="worker")
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, time.monotonic()))

    def _start_due(self) -> None:
        """Give due scripts to idle workers, those that were rung for first."""
        now = time.monotonic()
        idle = [worker for worker in self._workers if worker.script is None]
        due = [s for s in self._schedules.values() if not s.running and (s.rung or s.due <= now)]
        due.sort(key=lambda schedule: (not schedule.rung, schedule.due))
        for schedule in due:
            if not self._may_start(schedule, len(idle)):
                continue
            script, worker = schedule.script, idle.pop()
            schedule.running, schedule.rung, schedule.due = True, False, now + script.period
            worker.script, worker.begun, worker.deadline = script, now, now + script.timeout
            worker.pipe.send(script)

    def _may_start(self, schedule: _Schedule, idle: int) -> bool:
        """Whether a script may have one of so many idle workers: the last is for what is urgent."""
        return idle > 1 or (idle == 1 and (schedule.rung or schedule.script.loop or self._config.n_proc == 1))

    def _wait(self, ear: SocketEar, signals: socket.socket) -> None:
        """Sleep until something happens, and take note of it."""
        sources: list[Connection | SocketEar | socket.socket | int] = [ear, signals]
        sources += [worker.pipe for worker in self._workers]
        if self._watch_stdin:
            sources.append(0)
        ready, _, _ = select.select(sources, [], [], self._patience())
        if ear in ready:
            for name in ear.heard():
                if name in self._schedules:
                    self._schedules[name].rung = True
        if signals in ready:
            signals.recv(4096)
        if 0 in ready and _has_ended(0):
            self._stopping = True
        for worker in [worker for worker in self._workers if worker.pipe in ready]:
            self._listen_to(worker)
        self._replace_overdue()

    def _patience(self) -> float:
        """s until a script is due, a worker's time is up, or a worker is to be replaced."""
        idle = [worker for worker in self._workers if worker.script is None]
        moments = [worker.deadline for worker in self._workers if worker.script is not None]
        moments += [worker.born + self._config.proc_lifetime for worker in idle]
        schedules = [schedule for schedule in self._schedules.values() if not schedule.running]
        moments += [schedule.due for schedule in schedules if self._may_start(schedule, len(idle))]
        return max(0.0, min(moments) - time.monotonic())

    def _listen_to(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            logger.error("a worker died%s", f" in the script {worker.script.name}" if worker.script else "")
            self._replace(worker)
            return
        if worker.script is None:
            return
        now = time.monotonic()
        if message == AGAIN:
            worker.deadline = now + worker.script.timeout
            return
        schedule, took = self._schedules[worker.script.name], now - worker.begun
        worker.script, schedule.running = None, False
        if isinstance(message, Later):
            schedule.due = now + message.seconds
        elif took > schedule.script.period and not schedule.script.loop:
            logger.warning(
                "the script %s took %.1f s, longer than its period of %g s: it runs less often than configured",
                schedule.script.name,
                took,
                schedule.script.period,
            )

    def _replace_overdue(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.script is not None and worker.deadline <= now:
                logger.error(
                    "the script %s took more than %g s and is killed", worker.script.name, worker.script.timeout
                )
                self._replace(worker)
            elif worker.script is None and worker.born + self._config.proc_lifetime <= now:
                self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        if worker.script is not None:
            self._schedules[worker.script.name].running = False
        _dismiss(worker, 0)
        self._hire()

    def _dismiss_all(self) -> None:
        """Let the workers finish what they do, up to the grace."""
        until = time.monotonic() + GRACE
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            _dismiss(worker, max(0.0, until - time.monotonic()))


def _dismiss(worker: _Worker, grace: float) -> None:
    worker.pipe.close()
    worker.process.join(grace)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    worker.process.close()


def _has_ended(descriptor: int) -> bool:
    """Whether nobody holds the other end any more; a connection that was cut says so by an error."""
    try:
        return not os.read(descriptor, 4096)
    except ConnectionResetError:
        return True


def _work(settings: Settings, pipe: Connection, inherited: Sequence[Connection]) -> None:
    """A worker's life, without the ends of pipes that belong to the daemon: it would never see them close."""
    for end in inherited:
        end.close()
    work(settings, pipe)
