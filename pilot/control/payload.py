"""The payload controller: runs payloads, one after the other, and gives each end a name."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, RunPayloadFailure
from pilot.common.lifecycle import Event, PayloadEnded, PayloadStarted
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.payloads import generic
from pilot.util.filehandling import tail_bytes
from pilot.util.guarded import Outcome
from pilot.util.https import parse_json

# How much of the payload's stderr is looked through for known messages (bytes).
_STDERR_TAIL = 65536
# Databases of the field keep an exit code in 32 bits.
_EXIT_CODE_LIMIT = 2**31 - 1


class PayloadController:
    """handle: brings an event to the workflow. Takes jobs from its queue; a None ends its thread."""

    def __init__(self, context: Context, handle: Callable[[JobRun, Event], None]) -> None:
        self._context = context
        self._handle = handle
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
        settings = self._context.settings.payload
        started = time.monotonic()
        executor = generic.Executor(self._context, run)
        guarded = executor.start()
        run.measure("set-up", started)
        run.guarded = guarded
        self._handle(run, PayloadStarted())
        started = time.monotonic()
        outcome = guarded.wait()
        run.measure("payload", started)
        run.outcome = outcome
        self._log_end(run, outcome)
        _read_report(run, self._context)
        # An end that the pilot itself brought about is explained by its reason, not by its exit code.
        if run.error is not None:
            run.trans_exit_code = outcome.exit_code or 0
            return None
        stderr = tail_bytes(run.workdir / settings.stderr, _STDERR_TAIL).decode("utf-8", "replace")
        return judge(run, outcome, stderr)

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


def judge(run: JobRun, outcome: Outcome, stderr: str) -> PilotException | None:
    """What an end that nobody ordered means. Sets transExitCode, and exeErrorCode from the job report."""
    if outcome.guard_died:
        run.trans_exit_code = 137
        text = "the guard of the payload was killed from outside, and the payload with it"
        return PilotException(text, code=ErrorCodes.PAYLOADEXECUTIONEXCEPTION)
    if outcome.exit_code is None:
        # A shell would say 128 + n.
        run.trans_exit_code = 128 + outcome.signal
        code = ErrorCodes.PAYLOADSIGSEGV if outcome.signal == 11 else ErrorCodes.PAYLOADEXECUTIONFAILURE
        return PilotException(f"the payload was ended by signal {outcome.signal}, not sent by the pilot", code=code)
    run.trans_exit_code = outcome.exit_code
    if outcome.exit_code == 0:
        return None
    code = ErrorCodes.resolve_transform_error(outcome.exit_code, stderr)
    line = _last_line(stderr)
    text = f"exit code {outcome.exit_code}" + (f"; its last words: {line}" if line else "")
    return RunPayloadFailure(text) if code == ErrorCodes.PAYLOADEXECUTIONFAILURE else PilotException(text, code=code)


def _read_report(run: JobRun, context: Context) -> None:
    """Take jobReport.json as metaData, for what it says of outputs, and for the transformation's own error."""
    settings = context.settings.payload
    path = run.workdir / settings.job_report
    if not path.is_file():
        return
    if path.stat().st_size > settings.job_report_limit:
        context.log.warning(
            "job %s: %s has more than %d bytes and is not sent", run.jobid, path.name, settings.job_report_limit
        )
        return
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        report = parse_json(text)
    except OSError as exc:
        context.log.warning("job %s: %s cannot be read and is not sent: %s", run.jobid, path.name, exc.strerror)
        return
    except ValueError as exc:
        context.log.warning("job %s: %s is not valid JSON and is not sent: %s", run.jobid, path.name, exc)
        return
    if not isinstance(report, dict):
        context.log.warning("job %s: %s is not a JSON object and is not sent", run.jobid, path.name)
        return
    run.metadata, run.report = text, report
    code = report.get("exitCode")
    if isinstance(code, int) and abs(code) <= _EXIT_CODE_LIMIT:
        run.exe_error_code = int(code)
    run.exe_error_diag = str(report.get("exitMsg") or "") if run.exe_error_code else ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "".join(c if c.isprintable() else "?" for c in lines[-1][:200]) if lines else ""
