"""The end of a payload: what its exit code, its last words and its job report mean."""

from __future__ import annotations

import re
import signal

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, RunPayloadFailure
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.info.jobreport import figures_of, memory_of, outcome_of
from pilot.util.filehandling import directory_size, open_plain
from pilot.util.guarded import Outcome
from pilot.util.https import Json, parse_json
from pilot.util.memoryfiles import Summary

# The key under which userJobMetadata.json is in a job report that has something else to say, too.
_USERS = "userJobMetadata"
# With less left on the work disk (bytes) a payload that fails has failed for it: this is one buffer of a program's.
_ROOM = 1048576
# What terminals take for colours, and nobody else can read.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def judge(
    run: JobRun, outcome: Outcome, stderr: str, free: int = _ROOM, *, contained: bool = False
) -> PilotException | None:
    """What an end that nobody ordered means. Sets transExitCode.

    free: bytes left on the work disk. contained: the payload has begun in a container.
    """
    if outcome.guard_died:
        run.trans_exit_code = 137
        text = "the guard of the payload was killed from outside, and the payload with it"
        return PilotException(text, code=ErrorCodes.KILLSIGNAL)
    killed = outcome.signal == signal.SIGKILL or outcome.exit_code == 128 + signal.SIGKILL
    memory = run.oom.evidence(killed) if outcome.exit_code != 0 else ""
    if memory:
        run.trans_exit_code = 128 + outcome.signal if outcome.exit_code is None else outcome.exit_code
        seen = f"; measured before: {run.usage.evidence}" if run.usage.evidence else ""
        return PilotException(f"{memory}{seen}", code=ErrorCodes.PAYLOADOUTOFMEMORY)
    if outcome.exit_code is None:
        # A shell would say 128 + n.
        run.trans_exit_code = 128 + outcome.signal
        code = ErrorCodes.PAYLOADSIGSEGV if outcome.signal == 11 else ErrorCodes.PAYLOADEXECUTIONFAILURE
        text = f"the payload was ended by signal {outcome.signal}, not sent by the pilot"
        return PilotException("; ".join(filter(None, (text, run.core_story))), code=code)
    run.trans_exit_code = outcome.exit_code
    if outcome.exit_code == 0:
        return None
    code = ErrorCodes.resolve_transform_error(outcome.exit_code, stderr, contained=contained)
    line = _last_line(stderr)
    text = f"exit code {outcome.exit_code}{_signal_in(outcome.exit_code)}"
    text += f"; its last words: {line}" if line else ""
    if run.core_story:
        text += f"; {run.core_story}"
    if code == ErrorCodes.PAYLOADEXECUTIONFAILURE and free < _ROOM:
        # On a full disk the payload's own message about it has found no place either.
        code = ErrorCodes.NOLOCALSPACE
    if code == ErrorCodes.NOLOCALSPACE:
        text += f"; {free} bytes are free on the work disk, the job's directory holds {directory_size(run.workdir)}"
    return RunPayloadFailure(text) if code == ErrorCodes.PAYLOADEXECUTIONFAILURE else PilotException(text, code=code)


def read_report(run: JobRun, context: Context) -> None:
    """Take jobReport.json as metaData, for what it says of outputs, and for the transformation's own error; with it, or
    alone, what users want to have with their job (userJobMetadata.json).
    """
    settings = context.settings.payload
    text, report = _read_json(run, context, settings.job_report, settings.job_report_limit)
    if isinstance(report, dict):
        run.metadata, run.report = text, report
        run.exe_error_code, said = outcome_of(report)
        # Before it is cut: half a secret is not recognised any more.
        run.exe_error_diag = context.secrets.blot(said)
        run.figures.update(figures_of(report))
        memory = memory_of(report)
        if any(memory) and not run.usage.samples:
            # A payload that nobody has measured may have done so itself.
            run.usage.take(Summary(*memory))
    elif text:
        context.log.warning("job %s: %s is not a JSON object and is not sent", run.jobid, settings.job_report)
    text, found = _read_json(run, context, settings.user_metadata, settings.user_metadata_limit)
    if not text:
        return
    if not run.metadata and isinstance(found, dict):
        run.metadata = text
    elif _USERS not in run.report:
        begin = run.metadata.strip()[:-1].rstrip() if run.report else ""
        run.metadata = f'{begin}{", " if begin and begin != "{" else ""}{"" if begin else "{"}"{_USERS}": {text}}}'


def _read_json(run: JobRun, context: Context, name: str, limit: int) -> tuple[str, Json]:
    """A JSON file of the payload's, as text and value; empty, with a line in the log, when it is none."""
    log = context.log
    try:
        with open_plain(run.workdir / name) as stream:
            data = stream.read(limit + 1)
    except FileNotFoundError:
        return "", None
    except OSError as exc:
        log.warning("job %s: %s cannot be read and is not sent: %s", run.jobid, name, exc.strerror)
        return "", None
    if len(data) > limit:
        log.warning("job %s: %s has more than %d bytes and is not sent", run.jobid, name, limit)
        return "", None
    text = data.decode("utf-8", "replace")
    try:
        return text, parse_json(text)
    except ValueError as exc:
        log.warning("job %s: %s is not valid JSON and is not sent: %s", run.jobid, name, exc)
        return "", None


def set_error_code_from_stderr(msg: str, fatal: bool) -> int:
    """The pilot error code for what a failed payload has said (a documented name); 0 when nothing is recognised.

    fatal: what is not recognised is UNRECOGNIZEDTRFSTDERR then.
    """
    code = ErrorCodes.resolve_transform_error(1, msg)
    if code != ErrorCodes.PAYLOADEXECUTIONFAILURE:
        return code
    return ErrorCodes.UNRECOGNIZEDTRFSTDERR if fatal else 0


def _signal_in(exit_code: int) -> str:
    """What shells and container runtimes say with 128 + n: that signal n has ended what they ran."""
    try:
        return f", which is how shells tell of {signal.Signals(exit_code - 128).name}"
    except ValueError:
        return ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]
    return "".join(c if c.isprintable() else "?" for c in lines[-1][:200]) if lines else ""
