"""The bodies of updateJob calls (wire.md, sections 1 and 5), in legacy names: pure functions of a job and the node."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pilot import __version__
from pilot.api.attempts import Attempt
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.autopsy import examine
from pilot.control.jobrun import PHASES, JobRun
from pilot.info.filespec import FileSpec
from pilot.util.https import Json
from pilot.util.recorder import Entry

# A server keeps so many characters (wire.md, section 5).
DIAG_LIMIT = 500
STDOUT_LIMIT = 2048
# Our own server takes so much of the payload's output with the final update (promise U7).
OWN_STDOUT_LIMIT = 65536
# So much of autopsy and transfers is sent at most (bytes): some 200 attempts, which the server keeps for each job.
_OWN_LIMIT = 65536

Body = dict[str, Json]


@dataclass(frozen=True)
class Identity:
    """What every update says about this pilot. Empty: not known."""

    site: str
    node: str
    scheduler: str
    gtag: str
    versiontag: str
    batch_id: str
    cpu_model: str


def common(run: JobRun, identity: Identity, state: str, now: float) -> Body:
    """What all updates have. now: seconds since the epoch."""
    body: Body = {
        "jobId": run.jobid,
        "state": state,
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(now)),
        "siteName": identity.site,
        "node": identity.node,
        "attemptNr": run.data.attemptnr,
        "schedulerID": identity.scheduler,
        "pilotID": f"{identity.gtag}|{identity.versiontag}|{__version__}",
        "startTime": server_time(run.created),
        "xml": "",
        "metaData": "",
        "coreCount": run.data.corecount,
        "cpuConsumptionUnit": f"s+{identity.cpu_model}",
    }
    if identity.batch_id:
        body["batchID"] = identity.batch_id
    return body


def heartbeat(run: JobRun, identity: Identity, state: str, now: float, stdout: str = "") -> Body:
    """An update of a job that goes on. stdout: the tail of the payload's output, in debug mode."""
    body = common(run, identity, state, now)
    body.update(consumption(run, now))
    if stdout:
        body["stdout"] = _storable(stdout[-STDOUT_LIMIT:])
    return body


def final(
    run: JobRun,
    identity: Identity,
    now: float,
    log_extract: str,
    legacy: bool,
    report_limit: int,
    metrics: str = "",
    stdout: str = "",
    story: Sequence[Entry] = (),
) -> Body:
    """The last update of a job: its outcome with everything that was measured.

    report_limit: of metaData (bytes). metrics: the text of jobMetrics. stdout: the end of the payload's output, as much
    of it as the server takes. story: what the flight recorder was told of the job.
    """
    state, code, diag = outcome(run, legacy)
    body = common(run, identity, state, now)
    body.update(consumption(run, now))
    body.update(
        {
            "xml": output_report([*run.data.outdata, *run.data.logdata]),
            "metaData": with_own(run.metadata, run.transfers, _autopsy(run, state, story), report_limit),
            "pilotTiming": "|".join(str(round(run.timing.get(phase, 0.0))) for phase in PHASES),
            "pilotLog": _storable(log_extract),
            "endTime": server_time(run.ended or now),
            "pilotErrorCode": code,
            "pilotErrorDiag": diag,
            "transExitCode": run.trans_exit_code,
            "exeErrorCode": run.exe_error_code,
            "exeErrorDiag": _storable(run.exe_error_diag)[:DIAG_LIMIT],
            "jobMetrics": _cut(" ".join(_storable(metrics).split()), DIAG_LIMIT),
            "nInputFiles": len(run.data.indata),
        }
    )
    if stdout:
        body["stdout"] = _storable(stdout)
    return body


def will(run: JobRun, identity: Identity, now: float, story: Sequence[Entry] = ()) -> Body:
    """What the next pilot on the node reports of a job when this one is killed before it could do so itself.

    story: what the flight recorder was told of the job so far.
    """
    body = common(run, identity, "failed", now)
    phase = run.lifecycle.state.value
    text = f"the pilot was killed in phase {phase} without a chance to report it"
    if run.error is not None:
        text = f"{text}; before that: {run.error.diag}"
    code = run.error.code if run.error is not None else ErrorCodes.KILLSIGNAL
    diag = _storable(ErrorCodes.format_diagnostics(code, text))[:DIAG_LIMIT]
    autopsy = next((one.as_json() for one in examine(story, alive=False)), {})
    own = with_own("", (), autopsy, _OWN_LIMIT)
    body.update({"metaData": own, "pilotErrorCode": code, "pilotErrorDiag": diag, "nInputFiles": len(run.data.indata)})
    return body


def with_own(report: str, transfers: Sequence[Attempt], autopsy: Mapping[str, Json], limit: int) -> str:
    """A job report with what the pilot itself tells in it, under its one key "pilotkit": autopsy, transfers, left_out.

    report: JSON text of an object, or empty; nothing else in it is changed. limit: for all of it (bytes). Where there
    is no room for all attempts (left_out tells of how many), failed ones are kept before others, and newer ones before
    older ones; where there is none for the autopsy either, the report goes alone.
    """
    # The object's end, without its bracket.
    begin = report.strip()[:-1].rstrip() if report else "{"
    opening, closing = (', "pilotkit": {' if begin != "{" else '"pilotkit": {'), "}}"
    room = min(limit - len((begin + opening + closing).encode()), _OWN_LIMIT)
    story = f'"autopsy": {json.dumps(autopsy)}' if autopsy else ""
    rows = [json.dumps({**one.as_json(), "text": one.text[:DIAG_LIMIT]}) for one in transfers]
    left = room - len(story) - len(f', "transfers": [], "left_out": {len(rows)}')
    kept: set[int] = set()
    for number in sorted(range(len(rows)), key=lambda n: (transfers[n].kind == "ok", -n)):
        left -= len(rows[number]) + len(", ")
        if left < 0:
            break
        kept.add(number)
    parts = [story] if story and len(story) <= room else []
    if kept:
        table = ", ".join(rows[number] for number in sorted(kept))
        parts.append(f'"transfers": [{table}], "left_out": {len(rows) - len(kept)}')
    return f"{begin}{opening}{', '.join(parts)}{closing}" if parts else report


def outcome(run: JobRun, legacy: bool) -> tuple[str, int, str]:
    """State, pilotErrorCode and pilotErrorDiag that are reported.

    A user job's recoverable stage-out error is `holding`, so that the server may recover the outputs; legacy servers
    want its code negative (pilot.md, section 3, step 12).
    """
    error = run.error
    if error is None:
        return "finished", 0, ""
    diag = _storable(ErrorCodes.format_diagnostics(error.code, error.diag))[:DIAG_LIMIT]
    if error.code in ErrorCodes.put_error_codes and run.data.is_analysis():
        return "holding", -error.code if legacy else error.code, diag
    return "failed", error.code, diag


def _autopsy(run: JobRun, state: str, story: Sequence[Entry]) -> dict[str, Json]:
    """What the flight recorder tells of the job, now that its outcome is known."""
    reported: Entry = {"time": run.ended, "kind": "reported", "job": run.jobid, "state": state, "delivered": True}
    return next((one.as_json() for one in examine([*story, reported])), {}) if story else {}


def _storable(text: str) -> str:
    """A text without what databases refuse: NUL, and halves of characters, which come from bytes that were no text."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode("utf-8")


def server_time(when: float) -> str:
    """Seconds since the epoch as servers store times: UTC, "%Y-%m-%d %H:%M:%S"."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(when))


def output_report(files: list[FileSpec]) -> str:
    """JSON text {LFN: {guid, fsize, adler32 or md5, surl, endpoint}} of the files that are in storage."""
    report = {
        spec.lfn: {
            "guid": spec.guid,
            "fsize": spec.filesize,
            **spec.checksum,
            "surl": spec.turl or spec.surl,
            "endpoint": spec.ddmendpoint,
        }
        for spec in files
        if spec.status == "transferred"
    }
    return json.dumps(report) if report else ""


def consumption(run: JobRun, now: float) -> Body:
    """CPU, cores, memory (kB) and I/O (bytes, bytes/s) as far as they were measured."""
    usage, guarded = run.usage, run.guarded
    if guarded is None:
        return {}
    body: Body = {"cpuConsumptionTime": round(run.cpu_time)}
    wall = (run.ended or now) - guarded.started
    if wall > 0:
        body["meanCoreCount"] = round(run.cpu_time / wall, 2)
    if usage.samples:
        for name in ("rss", "vmem", "swap", "pss"):
            body[f"max{name.upper()}"] = usage.maximum.get(name, 0)
            body[f"avg{name.upper()}"] = usage.average(name)
        for name in ("rchar", "wchar", "rbytes", "wbytes"):
            total = getattr(usage.last, name)
            body[f"tot{name.upper()}"] = total
            body[f"rate{name.upper()}"] = int(total / wall) if wall > 0 else 0
    if not body.get("maxRSS") and run.outcome is not None and run.outcome.max_rss:
        # Too short to be sampled while it had memory: the kernel's own record of the largest process is all there is.
        body["maxRSS"] = body["maxPSS"] = run.outcome.max_rss
    return body


def _cut(text: str, limit: int) -> str:
    """Whole words up to a length: half a value would be another one."""
    return text if len(text) <= limit else text[: limit + 1].rpartition(" ")[0]


def error_line(error: PilotException) -> str:
    """One line for the log: code, name, text, who is to blame and what to do."""
    return f"{error} [{error.blame.value}] {error.info.advice}"
