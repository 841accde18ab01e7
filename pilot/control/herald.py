"""What the server is told of a job: composed here, delivered by the reporter."""

from __future__ import annotations

import time
from collections.abc import Callable

from pilot.common.exception import PilotException
from pilot.control import updates
from pilot.control.context import Context
from pilot.control.debug import DebugCommands
from pilot.control.jobrun import JobRun
from pilot.control.metrics import job_metrics
from pilot.control.reporter import Reporter
from pilot.util.filehandling import masked_tail, write_json
from pilot.util.https import Json


class Herald:
    """pilotlog_of: the end of what the pilot logged of a job. legacy: whether the server wants legacy codes; is_own:
    whether it is one of ours, or a file, which take more text than others.
    """

    def __init__(
        self,
        context: Context,
        reporter: Reporter,
        debug: DebugCommands,
        pilotlog_of: Callable[[JobRun, int], bytes],
        legacy: Callable[[], bool],
        is_own: Callable[[], bool],
    ) -> None:
        self._context = context
        self._reporter = reporter
        self._debug = debug
        self._pilotlog_of = pilotlog_of
        self._legacy = legacy
        self._is_own = is_own
        self._timings: dict[str, Json] = {}

    def tell_state(self, run: JobRun, state: str) -> None:
        """A job has come to a new state."""
        run.server_state = state
        self._reporter.send(run, updates.common(run, self._context.identity, state, time.time()))

    def tell_heartbeat(self, run: JobRun) -> None:
        """An update in between; a job that is not reported as running yet is still starting."""
        stdout = self._debug.stdout(run) if run.debug else ""
        state = run.server_state or "starting"
        self._reporter.send(run, updates.heartbeat(run, self._context.identity, state, time.time(), stdout))

    def tell_final(self, run: JobRun) -> None:
        """A job's outcome."""
        limit = self._context.settings.payload.job_report_limit
        now = time.time()
        metrics = str(self._context.plugins.hook("jobmetrics", "get_job_metrics")(run.data, self._metrics(run)))
        body = updates.final(
            run, self._context.identity, now, self._log_extract(run), self._legacy(), limit, metrics, self._stdout(run)
        )
        error = run.error
        self._context.log.info("job %s is %s%s", run.jobid, body["state"], f": {error}" if error else "")
        self._write_timing(run)
        self._reporter.send(run, body, is_final=True)

    def leave_will(self, run: JobRun) -> None:
        """What the next pilot is to tell if this one is killed."""
        self._reporter.write_will(run, updates.will(run, self._context.identity, time.time()))

    def _metrics(self, run: JobRun) -> dict[str, str]:
        return job_metrics(run, self._context.slot.features)

    def _stdout(self, run: JobRun) -> str:
        """The end of what the payload has said, as much of it as the server takes."""
        limit = updates.OWN_STDOUT_LIMIT if self._is_own() else updates.STDOUT_LIMIT
        end = masked_tail(run.workdir / self._context.settings.payload.stdout, limit, self._context.secrets)
        # A character that the cut has gone through is left out.
        return end.decode("utf-8", "replace").lstrip("\ufffd")

    def _log_extract(self, run: JobRun) -> str:
        """For a failed job the ends of the payload's stderr and of the pilot's log."""
        if run.error is None:
            return ""
        limit = self._context.settings.payload.log_extract
        stderr = masked_tail(run.workdir / self._context.settings.payload.stderr, limit // 2, self._context.secrets)
        parts = (("payload.stderr", stderr), ("pilotlog.txt", self._pilotlog_of(run, limit // 2)))
        return "\n".join(f"--- end of {name}\n{text.decode('utf-8', 'replace')}" for name, text in parts if text)

    def _write_timing(self, run: JobRun) -> None:
        """Seconds by phase of all this pilot's jobs, where they outlive it."""
        self._timings[run.jobid] = {phase: round(seconds, 3) for phase, seconds in run.timing.items()}
        try:
            write_json(str(self._context.rundir / self._context.settings.pilot.timing_file), self._timings)
        except PilotException as exc:
            self._context.log.warning("%s", exc.diag)
