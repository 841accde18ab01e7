"""The adder: checks a pilot's report of its output files and gives the job its final state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.db import files, jobs, reports
from server.db.database import Connection
from server.db.files import JobFile, Name, Replica
from server.db.jobs import LiveJob, Value
from server.db.reports import OutputReport
from server.logic import activation
from server.logic.context import Context
from server.logic.endings import Ending, end_attempt
from server.logic.explain import OUTPUT_INSANE, OUTPUT_MISSING, REPORT_UNREADABLE
from server.logic.jobfiles import complaint_about_checksum, complaint_about_guid, normal_checksum
from server.logic.names import has_control_characters, shown
from server.logic.states import Status

_ACTOR = "adder"
#: Reports looked at in one go.
_BATCH = 200


@dataclass(frozen=True)
class Verdict:
    """What a report comes to.

    Attributes:
        code: the ddm error code; 0 if every expected output is described well.
        text: the error in words.
        replicas: what is known of each output and log, by LFN.
    """

    code: int = 0
    text: str = ""
    replicas: Mapping[str, Replica] = field(default_factory=dict)


def judge(report: str, expected: Sequence[JobFile]) -> Verdict:
    """Check a report against the files a job should have made.

    A log that is missing fails nobody; an output may be missing only if its job said so.

    Args:
        report: JSON {lfn: {guid, fsize, adler32 or md5, surl, endpoint}}.
        expected: the outputs and the log.
    """
    try:
        described = json.loads(report) if report.strip() else {}
    except (ValueError, RecursionError):
        return Verdict(REPORT_UNREADABLE, f"the report of output files is not JSON: {shown(report[:60])}")
    if not isinstance(described, dict):
        return Verdict(REPORT_UNREADABLE, f"the report of output files is no JSON object: {shown(report[:60])}")
    replicas: dict[str, Replica] = {}
    first = Verdict()
    for file in expected:
        facts = described.get(file.lfn)
        if facts is None:
            optional = file.type == "log" or (file.wire or {}).get("optional")
            if not optional and not first.code:
                first = Verdict(OUTPUT_MISSING, f"output {file.lfn} is missing in the pilot's report")
            continue
        replica = _replica(facts)
        if isinstance(replica, Replica):
            replicas[file.lfn] = replica
        elif file.type != "log" and not first.code:
            first = Verdict(OUTPUT_INSANE, f"output {file.lfn} is described badly: {replica}")
    return Verdict(first.code, first.text, replicas)


def _replica(facts: object) -> Replica | str:
    """What a pilot says of one file, or what is wrong with that."""
    if not isinstance(facts, dict):
        return f"{shown(facts)} is no object"
    guid = facts.get("guid")
    if complaint := complaint_about_guid(guid):
        return complaint
    size = facts.get("fsize")
    if isinstance(size, str) and size.isascii() and size.isdigit() and len(size) < 19:
        size = int(size)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**62:
        return f"{shown(size)} is no file size"
    checksum = facts.get("adler32") or facts.get("md5") or facts.get("md5sum") or facts.get("checksum")
    if complaint := complaint_about_checksum(checksum):
        return complaint
    return Replica(
        endpoint=_place(facts.get("endpoint"), 128),
        guid=str(guid),
        fsize=size,
        checksum=normal_checksum(str(checksum)),
        surl=_place(facts.get("surl"), 1024),
    )


def _place(value: object, length: int) -> str | None:
    """An endpoint or SURL; what cannot be one is left out."""
    if not isinstance(value, str) or not value or len(value) > length or has_control_characters(value):
        return None
    return value if value.isprintable() else None


def add_outputs(context: Context) -> int:
    """Deal with the reports that are there; returns how many."""
    with context.database.reading() as connection:
        waiting = reports.find_reports(connection, _BATCH)
    for report in waiting:
        _add(context, report)
    return len(waiting)


def _add(context: Context, report: OutputReport) -> None:
    """One job, one transaction; then those who wait for its files are told."""
    decided: list[Name] = []
    with context.database.durable() as connection:
        job = jobs.read_live(connection, report.PandaID)
        if not reports.take_report(connection, report) or job is None:
            return
        if job.attemptNr != report.attemptNr or job.jobStatus != Status.HOLDING:
            return  # the report of an attempt that was given up in between
        decided = _conclude(connection, job, report, context.clock())
    activation.settle(context, decided)


def _conclude(connection: Connection, job: LiveJob, report: OutputReport, now: float) -> list[Name]:
    """Give the job its final state; returns the names about which the catalogue has now decided."""
    expected = [
        file
        for file in files.read_files(connection, job.PandaID)
        if file.type == "output" or (file.type == "log" and file.attemptNr == job.attemptNr)
    ]
    verdict = judge(report.data, expected)
    finished = job.reportedStatus == Status.FINISHED and not verdict.code
    published: list[Name] = []
    for file in expected:
        replica = verdict.replicas.get(file.lfn)
        if replica is not None and (finished or file.type == "log"):
            files.set_file(connection, file.fileID, "ready", replica)
            files.publish(connection, job.PandaID, (file.scope, file.lfn), replica, now)
            published.append((file.scope, file.lfn))
    lost = end_attempt(connection, job, _ending(job, verdict, finished=finished), now)
    after = jobs.read_live(connection, job.PandaID)
    if after is not None and after.attemptNr == job.attemptNr:
        missing = [file.fileID for file in expected if (file.scope, file.lfn) not in published]
        files.set_file_status(connection, missing, "failed")
    return [*published, *(lost or [])]


def _ending(job: LiveJob, verdict: Verdict, *, finished: bool) -> Ending:
    if finished:
        return Ending(Status.FINISHED, _ACTOR, f"all outputs are there ({len(verdict.replicas)} files)")
    columns: dict[str, Value] = {}
    if job.reportedStatus == Status.FINISHED:
        columns = {"ddmErrorCode": verdict.code, "ddmErrorDiag": verdict.text[:500]}
        return Ending(Status.FAILED, _ACTOR, verdict.text, columns)
    reason = "the pilot reported a failure"
    if job.pilotErrorCode:
        reason += f" (pilot error {job.pilotErrorCode})"
    return Ending(Status.FAILED, _ACTOR, reason, columns)
