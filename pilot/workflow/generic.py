"""The generic workflow: stage-in, payload, stage-out; the wiring of queues and controllers, and one ordered shutdown.

The main thread waits for messages (a signal, the end of the job controller, a thread that died) and for the end of the
slot; all work is done by the controllers' threads. Jobs move between them by the life cycle's actions.
"""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Union

from pilot.common.errorcodes import ErrorCodes, shell_exit_code
from pilot.common.exception import PilotException
from pilot.common.lifecycle import Abort, Accepted, Action, Event, Reported, StagedOut, State
from pilot.control import updates
from pilot.control.companion import Companion
from pilot.control.context import Context
from pilot.control.data import DataController
from pilot.control.debug import DebugCommands
from pilot.control.dispatcher import UpdateAnswer
from pilot.control.eventsource import EventHelpers
from pilot.control.herald import Herald
from pilot.control.job import JobController, JobSource, heartbeat_interval
from pilot.control.jobrun import JobRun
from pilot.control.monitor import Monitor
from pilot.control.payload import PayloadController
from pilot.control.reporter import Reporter, Sink
from pilot.util.filehandling import is_made, remove_tree
from pilot.util.https import Json, RetryPolicy
from pilot.util.spool import Spool
from pilot.workflow.deadman import DeadMan
from pilot.workflow.signalled import signal_error
from pilot.workflow.standin import stand_in

# Signals that end the pilot's jobs, each with its own code (ErrorCodes.get_kill_signal_error_code; 1200 for HUP, which
# a terminal sends when it is closed).
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGXCPU, signal.SIGUSR1, signal.SIGHUP)
# The same, but for these a Python handler would loop for ever if the fault were the pilot's own: they are kept
# blocked and fetched by a thread, so that a real fault still kills the process at once.
FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS})
# After a signal the batch system's KILL is near: a server that does not answer gets so long (s), then the spool has
# to do.
_PATIENCE_AFTER_SIGNAL = 5.0
# How long a thread may take to end once it has nothing to do any more (s).
_JOIN_LIMIT = 10.0
# An idle pilot with a very long lifetime still looks at the clock now and then (s).
_LONGEST_WAIT = 3600.0
# A pilot without a job that was told to stop waits so long for a getJob under way (s): a job that is handed out while
# nobody waits for it would be lost until its lease ends.
_GETJOB_LIMIT = 3.0


class Ended:
    """Message: the job controller asks for no more jobs."""

    def __init__(self, error: PilotException | None) -> None:
        self.error = error


class Died:
    """Message: a controller's thread ended with an exception that is a fault of the pilot."""

    def __init__(self, name: str, story: str) -> None:
        self.name = name
        self.story = story


class Look:
    """Message: what the main thread waits for has changed."""


Message = Union[int, Ended, Died, Look]


class Workflow:
    """Runs jobs from a source until there is a reason to stop.

    context: everything shared. legacy: whether the server wants legacy codes; is_own: whether it is one of ours.
    companions: what runs beside it all.
    """

    def __init__(
        self,
        context: Context,
        source: JobSource,
        sink: Sink,
        spool: Spool | None,
        legacy: Callable[[], bool],
        is_own: Callable[[], bool],
        companions: Sequence[Companion] = (),
    ) -> None:
        pilot = context.settings.pilot
        self._context = context
        self._log = context.log
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._current: JobRun | None = None
        self._failure: PilotException | None = None
        self._stop_reason: PilotException | None = None
        self._undelivered = False
        self._dead_man: DeadMan | None = None
        policy = RetryPolicy(
            pilot.request_attempts, pilot.retry_delay, pilot.retry_delay_max, pilot.final_update_patience
        )
        self._reporter = Reporter(
            sink,
            spool,
            policy,
            self._answered,
            self._reported,
            self._log,
            context.keeper.readmit,
            lambda body: {name: context.secrets.blot_all(value) for name, value in body.items()},
        )
        self._debug = DebugCommands(context, lambda run, error: self._abort(run, error, pilot.grace_on_signal))
        self._data = DataController(context, self.handle)
        self._herald = Herald(context, self._reporter, self._debug, self._data.pilotlog_of, legacy, is_own)
        self._payload = PayloadController(context, self.handle, EventHelpers(self._data.save_events, self._abort))
        self._monitor = Monitor(context, self._jobs, self._herald.tell_heartbeat, self._abort)
        self._jobs_controller = JobController(context, source, self._take, self.handle, self._no_more_jobs)
        self._threads = [
            self._thread("jobs", self._jobs_controller.run),
            self._thread("updates", self._reporter.run),
            self._thread("stage-in", self._data.run_stagein),
            self._thread("payload", self._payload.run),
            self._thread("stage-out", self._data.run_stageout),
            self._thread("monitor", self._monitor.run),
        ]
        self._companions = companions
        for companion in companions:
            companion.attach(self._jobs, self._abort)
            self._threads.append(self._thread(companion.name, companion.run))

    def run(self) -> int:
        """Run until no job is left and none is asked for; return the exit code for the shell."""
        signal.pthread_sigmask(signal.SIG_BLOCK, FAULTS)
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._fetch_faults, name="signals", daemon=True).start()
        for thread in self._threads:
            thread.start()
        while True:
            try:
                message: Message = self._inbox.get(timeout=self._time_to_wait())
            except Empty:
                if self._stop_reason is None:
                    self._look_at_slot()
                elif not self._jobs():
                    self._log.warning("a request for a job is not answered: the pilot leaves without it")
                    self._threads = [thread for thread in self._threads if thread.name != "jobs"]
                    break
                continue
            if isinstance(message, Ended):
                self._failure = self._failure or message.error
                break
            if isinstance(message, Died):
                self._thread_died(message)
                break
            if isinstance(message, int):
                self._stop_for_signal(message)
        return self._shut_down()

    def _time_to_wait(self) -> float:
        """Seconds until the slot is over, or until a pilot that was told to stop leaves without a job."""
        if self._stop_reason is None:
            return min(self._context.slot.left(time.time()), _LONGEST_WAIT)
        return _LONGEST_WAIT if self._jobs() else _GETJOB_LIMIT

    def handle(self, run: JobRun, event: Event) -> None:
        """Bring an event to a job's life cycle and carry out what follows. Called by all controllers' threads."""
        with run.lock:
            if isinstance(event, Accepted) and self._stop_reason is not None and run.lifecycle.state is State.RECEIVED:
                # The answer to a request that was under way when the pilot was told to stop.
                self.handle(run, Abort(self._stop_reason))
            error = getattr(event, "error", None)
            # What went wrong with a stage-out was told by the data controller, before the log was packed.
            if error is not None and run.is_live and not isinstance(event, StagedOut):
                self._log.error("job %s: %s", run.jobid, updates.error_line(error))
            before = run.lifecycle.state
            actions = run.lifecycle.handle(event)
            self._record(run, event, before, error)
            for companion in self._companions:
                companion.notice(run, event)
            for action in actions:
                self._perform(run, action)
        self._monitor.wake()

    def _record(self, run: JobRun, event: Event, before: State, error: PilotException | None) -> None:
        """Tell the flight recorder, and the next pilot in case that this one is killed."""
        state = run.lifecycle.state
        wrong: dict[str, Json] = {"code": error.code, "text": error.diag} if error is not None else {}
        self._context.recorder.decision(
            "event", job=run.jobid, event=type(event).__name__, state=before.value, new=state.value, **wrong
        )
        if run.is_live and state is not before:
            self._herald.leave_will(run)

    def _perform(self, run: JobRun, action: Action) -> None:
        if action is Action.SEND_STARTING:
            self._herald.tell_state(run, "starting")
        elif action is Action.START_STAGEIN:
            self._data.stagein.put(run)
        elif action is Action.CANCEL_STAGEIN:
            run.cancel_stagein.set()
        elif action is Action.START_PAYLOAD:
            self._payload.payloads.put(run)
        elif action is Action.SEND_RUNNING:
            self._herald.tell_state(run, "running")
        elif action is Action.STOP_PAYLOAD:
            run.cancel_payload.set()
            run.stop_commands()
        elif action is Action.STAGE_OUT_ALL:
            self._data.stageout.put((run, True))
        elif action is Action.STAGE_OUT_MADE:
            run.data.outdata = [spec for spec in run.data.outdata if is_made(run.workdir / spec.lfn)]
            self._data.stageout.put((run, True))
        elif action is Action.STAGE_OUT_LOG:
            self._data.stageout.put((run, False))
        elif action is Action.HURRY_STAGEOUT:
            run.give_up_outputs.set()
        elif action is Action.SEND_FINAL:
            self._herald.tell_final(run)
        elif action is Action.FORGET:
            self._forget(run)

    def _no_more_jobs(self, reason: PilotException | None) -> None:
        self._inbox.put(Ended(reason))

    def _take(self, run: JobRun) -> None:
        self._context.recorder.decision("taken", job=run.jobid, attempt=run.data.attemptnr, name=run.data.jobname)
        self._current = run

    def _jobs(self) -> list[JobRun]:
        current = self._current
        return [current] if current is not None else []

    def _answered(self, run: JobRun, answer: UpdateAnswer) -> None:
        pilot = self._context.settings.pilot
        for companion in self._companions:
            companion.accepted(run)
        if answer.next_heartbeat is not None:
            run.interval = heartbeat_interval(answer.next_heartbeat, pilot.heartbeat, pilot.heartbeat_min)
            self._monitor.wake()
        for command in answer.commands:
            if command == "tobekilled":
                error = PilotException("the server ordered it (tobekilled)", code=ErrorCodes.PANDAKILL)
                self._abort(run, error, pilot.grace_on_signal)
            elif command == "softkill":
                error = PilotException("the server ordered it (softkill)", code=ErrorCodes.PANDAKILL)
                self._abort(run, error, pilot.grace_planned)
            elif command == "alreadydone":
                # No order: an update came twice, or too late, and changes nothing any more.
                self._log.info("job %s: the server has its outcome already", run.jobid)
            elif command in ("debug", "debugoff"):
                run.debug = command == "debug"
                self._monitor.wake()
            else:
                self._debug.order(run, command, self._herald.tell_heartbeat)

    def _reported(self, run: JobRun, delivered: bool) -> None:
        run.delivered = delivered
        state = updates.outcome(run, legacy=False)[0]
        self._context.recorder.decision("reported", job=run.jobid, state=state, delivered=delivered)
        if not delivered:
            self._undelivered = True
            self._context.stopping.set()
        self.handle(run, Reported())

    def _forget(self, run: JobRun) -> None:
        if self._context.args.cleanup:
            problem = remove_tree(run.workdir)
            if problem:
                self._log.warning("job %s: its directory could not be removed: %s", run.jobid, problem)
        error = run.error
        if error is not None and error.blame.value not in ("payload", "user"):
            self._failure = self._failure or error
        self._current = None
        run.over.set()

    def _abort(self, run: JobRun, error: PilotException, grace: float) -> None:
        """End a job for a reason; the shortest grace that anybody gave holds."""
        with run.lock:
            run.grace = grace if run.error is None else min(run.grace, grace)
            if run.is_live:
                self.handle(run, Abort(error))

    def _look_at_slot(self) -> None:
        slot = self._context.slot
        if slot.left(time.time()) > 0:
            return
        error = PilotException(f"the slot is over: {slot.deadline.source}", code=ErrorCodes.REACHEDMAXTIME)
        self._log.warning("%s", updates.error_line(error) if not self._jobs() else error.diag)
        self._failure = self._failure or error
        self._stop(error, self._context.settings.pilot.grace_planned)

    def _stop(self, reason: PilotException, grace: float) -> None:
        """No new job, and an end to the one under way."""
        self._stop_reason = reason
        self._context.stopping.set()
        for companion in self._companions:
            companion.stop()
        self._arm_dead_man()
        for run in self._jobs():
            self._abort(run, reason, grace)

    def _stop_for_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._stop_reason is not None:
            self._log.warning("%s: the shutdown is under way (%s)", name, self._stop_reason.diag)
            return
        error = signal_error(self._context, name)
        self._log.warning("%s: jobs are ended, logs saved, then the pilot leaves", name)
        self._failure = error
        self._reporter.hurry(_PATIENCE_AFTER_SIGNAL)
        self._stop(error, self._context.settings.pilot.grace_on_signal)

    def _thread_died(self, message: Died) -> None:
        """A fault of the pilot: nothing can be trusted to go on, so the payload is ended and the pilot leaves."""
        self._log.critical("thread %s died, which is a fault of the pilot:\n%s", message.name, message.story)
        self._failure = PilotException(f"thread {message.name} died", code=ErrorCodes.INTERNALPILOTPROBLEM)
        self._stop(self._failure, self._context.settings.pilot.grace_on_signal)
        for run in self._jobs():
            owed = stand_in(message.name, run, self._failure, self._data, self._log)
            if owed is not None:
                self.handle(run, owed)
            if not run.over.wait(self._context.settings.pilot.grace_on_signal + _JOIN_LIMIT):
                self._report_internal(run)

    def _report_internal(self, run: JobRun) -> None:
        """The job does not come to its end: it is reported here, as it is."""
        for guarded in (*run.commands, *run.utilities):
            guarded.kill()
        run.lifecycle.errors.append(self._failure or PilotException(code=ErrorCodes.INTERNALPILOTPROBLEM))
        self._herald.tell_final(run)

    def _shut_down(self) -> int:
        """End everything in order and return the exit code. The order matters:

        1. no new jobs (the job controller has ended, or ends at its next look at `stopping`)
        2. the job under way has ended: payload, stage-out, final update, each by its own controller
        3. the controllers, which have nothing to do any more; the reporter last, since the others give it work
        """
        self._context.stopping.set()
        self._arm_dead_man()
        self._data.stagein.put(None)
        self._payload.payloads.put(None)
        self._data.stageout.put(None)
        self._monitor.close()
        for companion in self._companions:
            companion.close()
        self._reporter.close()
        for thread in self._threads:
            thread.join(_JOIN_LIMIT if thread.name != "updates" else None)
            if thread.is_alive():
                self._log.error("thread %s does not end; the pilot leaves without it", thread.name)
        if self._undelivered or self._reporter.gave_up:
            ended = self._context.keeper.complaint()
            text = "not every outcome was taken by the server" + (f": {ended}" if ended else "")
            self._failure = PilotException(text, code=ErrorCodes.COMMUNICATIONFAILURE)
            self._log.error("%s", updates.error_line(self._failure))
        code = 0 if self._failure is None else shell_exit_code(self._failure.code)
        self._log.info("pilot ends with exit code %d%s", code, f" ({self._failure})" if self._failure else "")
        return code

    def _arm_dead_man(self) -> None:
        """End the process by force if the shutdown hangs."""
        if self._dead_man is None:
            limit = self._context.settings.pilot.shutdown_limit
            self._dead_man = DeadMan(self._log, "the shutdown", limit, self._shell_code)

    def _shell_code(self) -> int:
        return shell_exit_code(self._failure.code if self._failure else ErrorCodes.EXCEEDEDMAXWAITTIME)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        # SimpleQueue.put may interrupt itself without harm, which is all that a signal handler may do.
        self._inbox.put(number)

    def _fetch_faults(self) -> None:
        while True:
            self._inbox.put(signal.sigwait(FAULTS))

    def _thread(self, name: str, body: Callable[[], None]) -> threading.Thread:
        def guarded_body() -> None:
            try:
                body()
            except Exception:
                # The top of a thread: what comes here is a fault of the pilot, and the main thread ends the pilot for
                # it.
                self._inbox.put(Died(name, traceback.format_exc()))

        return threading.Thread(target=guarded_body, name=name, daemon=True)
