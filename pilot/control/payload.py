"""The payload controller: runs payloads, one after the other, and gives each end a name."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue

from pilot.api.analytics import Analytics
from pilot.common.exception import PilotException
from pilot.common.lifecycle import Event, PayloadEnded, PayloadStarted
from pilot.control.context import Context
from pilot.control.eventsource import EventHelpers
from pilot.control.jobrun import JobRun
from pilot.control.payloadend import read_report
from pilot.control.payloadend import set_error_code_from_stderr as set_error_code_from_stderr  # documented here
from pilot.control.payloads.generic import Executor
from pilot.control.payloads.play import Play
from pilot.util.memoryfiles import OUTPUT, write_summary
from pilot.util.pod import linked


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
        """Run the payload and what is around it; return what was wrong with its end, if anything."""
        executor = self._executor(run)
        play = Play(self._context, run, executor, lambda: self._handle(run, PayloadStarted()))
        try:
            with linked(self._context.environ, run.workdir, self._context.log):
                error = play.run()
        except PilotException as exc:
            error = exc
        finally:
            executor.close()
        with run.lock:
            run.outcome = play.outcome()
        if run.outcome is None:
            return error
        self._finish_memory_files(run)
        read_report(run, self._context)
        hook = self._context.plugins.hook
        run.metadata = run.metadata or str(hook("common", "get_metadata")(str(run.workdir)) or "")
        hook("common", "update_job_data")(run.data)
        # An end that the pilot itself brought about is explained by its reason, not by its exit code.
        if run.error is not None:
            run.trans_exit_code = run.outcome.exit_code or 0
            return None
        return error

    def _executor(self, run: JobRun) -> Executor:
        """Who starts the payload of such a job. Merges of the event service are jobs like others."""
        if run.data.is_eventservice and not run.data.is_eventservicemerge:
            # Needed by few jobs, and memory for all.
            from pilot.control.payloads import eventservice

            return eventservice.Executor(self._context, run, self._helpers)
        return Executor(self._context, run)

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
