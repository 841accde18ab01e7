"""The payload controller: runs payloads, one after the other, and gives each end a name."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue

from pilot.api.analytics import Analytics
from pilot.common.exception import PilotException
from pilot.common.lifecycle import Event, PayloadEnded, PayloadStarted
from pilot.control.context import Context
from pilot.control.cores import settle_cores
from pilot.control.events import EventHelpers
from pilot.control.jobrun import JobRun
from pilot.control.oom import OomWatch
from pilot.control.payloadend import judge, read_report
from pilot.control.payloadend import set_error_code_from_stderr as set_error_code_from_stderr  # documented here
from pilot.control.payloads import generic
from pilot.util.filehandling import tail_bytes
from pilot.util.guarded import Outcome
from pilot.util.memoryfiles import OUTPUT, write_summary
from pilot.util.workernode import local_space

# How much of the payload's stderr is looked through for known messages (bytes).
_STDERR_TAIL = 65536


class PayloadController:
    """handle: brings an event to the workflow. Takes jobs from its queue; a None ends its thread.

    helpers: what jobs of the event service need of the other controllers.
    """

    def __init__(
        self, context: Context, handle: Callable[[JobRun, Event], None], helpers: EventHelpers | None = None
    ) -> None:
        self._context = context
        self._handle = handle
        self._helpers = helpers
        self.payloads: SimpleQueue[JobRun | None] = SimpleQueue()

    def run(self) -> None:
        """Body of the thread."""
        for run in iter(self.payloads.get, None):
            try:
                error = self._execute(run)
            except PilotException as exc:
                error = exc
            run.ended = time.time()
            self._handle(run, PayloadEnded(error))

    def _execute(self, run: JobRun) -> PilotException | None:
        """Run the payload and return what was wrong with its end, if anything."""
        executor = self._executor(run)
        try:
            return self._follow(run, executor)
        finally:
            executor.close()

    def _executor(self, run: JobRun) -> generic.Executor:
        """Who runs the payload of such a job. Merges of the event service are jobs like others."""
        if run.data.is_eventservice and not run.data.is_eventservicemerge:
            # Needed by few jobs, and memory for all.
            from pilot.control.payloads import eventservice

            return eventservice.Executor(self._context, run, self._helpers)
        return generic.Executor(self._context, run)

    def _follow(self, run: JobRun, executor: generic.Executor) -> PilotException | None:
        settings = self._context.settings.payload
        started = time.monotonic()
        run.oom = OomWatch()
        guarded = executor.start()
        run.measure("set-up", started)
        run.guarded = guarded
        self._handle(run, PayloadStarted())
        started = time.monotonic()
        container = executor.container
        began = container is None or container.await_payload(guarded)
        executor.attend(guarded)
        outcome = guarded.wait()
        run.measure("payload", started)
        with run.lock:
            run.outcome = outcome
        self._log_end(run, outcome)
        self._finish_memory_files(run)
        read_report(run, self._context)
        unfinished = executor.conclude()
        settle_cores(run, self._context)
        # An end that the pilot itself brought about is explained by its reason, not by its exit code.
        if run.error is not None:
            run.trans_exit_code = outcome.exit_code or 0
            return None
        stderr = tail_bytes(run.workdir / settings.stderr, _STDERR_TAIL).decode("utf-8", "replace")
        if container is not None and not began and not outcome.guard_died:
            return container.failure(outcome, stderr)
        error = judge(run, outcome, stderr, local_space(run.workdir), contained=container is not None)
        return error or unfinished

    def _finish_memory_files(self, run: JobRun) -> None:
        """The memory monitor's summary, by the site's own monitor or from the pilot's figures, and the leak."""
        log, usage = self._context.log, run.usage
        if run.monitor is not None:
            run.monitor.finish()
            summary = run.monitor.get_results()
            if summary is None:
                log.warning("job %s: the memory monitor left no summary; the pilot's own figures count", run.jobid)
            else:
                usage.take(summary)
        elif usage.samples:
            try:
                write_summary(run.workdir, usage.summary())
            except OSError as exc:
                log.warning("job %s: the memory summary cannot be written: %s", run.jobid, exc)
        if usage.samples:
            leak = Analytics().get_fitted_data(str(run.workdir / OUTPUT))
            run.figures.update({"leak": leak["slope"], "chi2": leak["chi2"]} if leak else {})

    def _log_end(self, run: JobRun, outcome: Outcome) -> None:
        log = self._context.log
        how = f"signal {outcome.signal}" if outcome.exit_code is None else f"exit code {outcome.exit_code}"
        log.info(
            "job %s: payload ended with %s after %.3f s, %.2f s of CPU",
            run.jobid,
            how,
            run.timing["payload"],
            run.cpu_time,
        )
        if outcome.left:
            log.warning("job %s: %d processes had outlived the payload and were ended", run.jobid, outcome.left)
        if outcome.lost:
            log.error("job %s: %d processes of the payload could not be ended", run.jobid, outcome.lost)
