"""The end of a payload: what its exit code, its last words and its job report mean."""

from __future__ import annotations

import signal
from collections.abc import Mapping

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, RunPayloadFailure
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.util.filehandling import directory_size
from pilot.util.guarded import Outcome
from pilot.util.https import Json, parse_json

# Databases of the field keep an exit code in 32 bits.
_EXIT_CODE_LIMIT = 2**31 - 1
# With less left on the work disk (bytes) a payload that fails has failed for it: this is one buffer of a program's.
_ROOM = 1048576


def judge(
    run: JobRun, outcome: Outcome, stderr: str, free: int = _ROOM, *, contained: bool = False
) -> PilotException | None:
    """What an end that nobody ordered means. Sets transExitCode.

    free: bytes left on the work disk. contained: the payload has begun in a container.
    """
    if outcome.guard_died:
        run.trans_exit_code = 137
        text = "the guard of the payload was killed from outside, and the payload with it"
        return PilotException(text, code=ErrorCodes.PAYLOADEXECUTIONEXCEPTION)
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
        return PilotException(f"the payload was ended by signal {outcome.signal}, not sent by the pilot", code=code)
    run.trans_exit_code = outcome.exit_code
    if outcome.exit_code == 0:
        return None
    code = ErrorCodes.resolve_transform_error(outcome.exit_code, stderr, contained=contained)
    line = _last_line(stderr)
    text = f"exit code {outcome.exit_code}" + (f"; its last words: {line}" if line else "")
    if code == ErrorCodes.PAYLOADEXECUTIONFAILURE and free < _ROOM:
        # On a full disk the payload's own message about it has found no place either.
        code = ErrorCodes.NOLOCALSPACE
    if code == ErrorCodes.NOLOCALSPACE:
        text += f"; {free} bytes are free on the work disk, the job's directory holds {directory_size(run.workdir)}"
    return RunPayloadFailure(text) if code == ErrorCodes.PAYLOADEXECUTIONFAILURE else PilotException(text, code=code)


def read_report(run: JobRun, context: Context) -> None:
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
    run.figures.update(_figures(report))


def _figures(report: Mapping[str, Json]) -> dict[str, str]:
    """resource of a job report tells events and database use of each step; events pass through all steps. What is
    malformed is passed over.
    """
    resource = report.get("resource")
    if not isinstance(resource, dict):
        return {}
    executors = resource.get("executor")
    steps = [step for step in executors.values() if isinstance(step, dict)] if isinstance(executors, dict) else []
    found = {"nEvents": max((_count(step.get("nevents")) for step in steps), default=0)}
    for name in ("dbTime", "dbData"):
        found[name] = _count(resource.get(f"{name}Total")) or sum(_count(step.get(name)) for step in steps)
    return {name: str(value) for name, value in found.items() if value > 0}


def _count(value: Json) -> int:
    """A number that a payload has written; 0 for anything else."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**63
    return int(value) if good else 0  # type: ignore[arg-type]  # it is a number then


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "".join(c if c.isprintable() else "?" for c in lines[-1][:200]) if lines else ""
