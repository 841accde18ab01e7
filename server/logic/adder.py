"""The adder: checks a pilot's report of its output files and gives the job its final state."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from server.db import files, jobs, reports
from server.db.database import Connection, Taken, Unstorable
from server.db.files import JobFile, Name, Replica
from server.db.jobs import LiveJob, Value
from server.db.reports import OutputReport
from server.logic import activation
from server.logic.context import Context
from server.logic.endings import Ending, end_attempt
from server.logic.explain import OUTPUT_INSANE, OUTPUT_MISSING, REPORT_UNREADABLE
from server.logic.finishing import begin_merging, begin_transferring, replica_of, take_merged
from server.logic.jobfiles import MOST_FILES, complaint_about_checksum, complaint_about_guid, normal_checksum
from server.logic.names import complaint_about_file, has_control_characters, is_pattern, shown
from server.logic.plugins import plugins_of
from server.logic.states import Status

logger = logging.getLogger(__name__)

_ACTOR = "adder"
#: Reports looked at in one go.
_BATCH = 200
#: How the pilot numbers the outputs of hyperparameter points: NAME_0, NAME_1 ...
_POINT = re.compile(r"_(?:0|[1-9][0-9]{0,8})\Z")


@dataclass(frozen=True)
class Verdict:
    """What a report comes to.

    Attributes:
        code: the ddm error code; 0 if every expected output is described well.
        text: the error in words.
        replicas: what is known of each output and log, by LFN.
        found: outputs whose names only the report tells, each with the entry it belongs to.
    """

    code: int = 0
    text: str = ""
    replicas: Mapping[str, Replica] = field(default_factory=dict)
    found: Mapping[str, JobFile] = field(default_factory=dict)


def judge(report: str, expected: Sequence[JobFile]) -> Verdict:
    """Check a report against the files a job should have made.

    A log that is missing fails nobody; an output may be missing only if its job said so, or if it is packed into
    another one. A report may name files that are not expected: they are outputs of the pattern that they match, or, in
    a job that names no outputs at all, outputs like its log; in one that tries hyperparameter points (isHPO), NAME_0,
    NAME_1 ... are outputs of NAME. Others are passed over.

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
    found = _found(described, expected)
    first = _complaint_about_found(found)
    for file in expected:
        if is_pattern(file.lfn):
            if file not in found.values() and not _may_be_missing(file):
                first = first or (OUTPUT_MISSING, f"no file in the pilot's report matches output {file.lfn}")
            continue
        facts = described.get(file.lfn)
        if facts is None:
            if not _may_be_missing(file):
                first = first or (OUTPUT_MISSING, f"output {file.lfn} is missing in the pilot's report")
            continue
        replica = _replica(facts)
        if isinstance(replica, Replica):
            replicas[file.lfn] = replica
        elif file.type != "log":
            first = first or (OUTPUT_INSANE, f"output {file.lfn} is described badly: {replica}")
    for lfn in found:
        replica = _replica(described[lfn])
        if isinstance(replica, Replica):
            replicas[lfn] = replica
        else:
            first = first or (OUTPUT_INSANE, f"output {shown(lfn)} is described badly: {replica}")
    return Verdict(*(first or (0, "")), replicas, found)


def _may_be_missing(file: JobFile) -> bool:
    wire = file.wire or {}
    return file.type == "log" or bool(wire.get("optional") or wire.get("packed") or wire.get("points"))


def _found(described: Mapping[str, object], expected: Sequence[JobFile]) -> dict[str, JobFile]:
    """The outputs that only the report names, each with the pattern it matches first, or with the log."""
    outputs = [file for file in expected if file.type == "output"]
    patterns = [file for file in outputs if is_pattern(file.lfn)]
    points = {file.lfn: file for file in outputs if (file.wire or {}).get("points")}
    known = {file.lfn for file in expected}
    found: dict[str, JobFile] = {}
    for lfn in described:
        if lfn in known:
            continue
        like = next((file for file in patterns if fnmatchcase(lfn, file.lfn)), None) or points.get(_POINT.sub("", lfn))
        if like is None and not outputs:
            like = next((file for file in expected if file.type == "log"), None)
        if like is not None:
            found[lfn] = like
    return found


def _complaint_about_found(found: Mapping[str, JobFile]) -> tuple[int, str] | None:
    if len(found) > MOST_FILES:
        return OUTPUT_INSANE, f"the pilot's report names {len(found)} outputs; {MOST_FILES} is the most"
    complaint = next(filter(None, (complaint_about_file(lfn) for lfn in found)), "")
    return (OUTPUT_INSANE, f"an output is named badly: {complaint}") if complaint else None


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
    """Deal with the reports that are there; returns how many could be dealt with."""
    with context.database.reading() as connection:
        waiting = reports.find_reports(connection, _BATCH)
    done = 0
    for report in waiting:
        try:
            _add(context, report)
            done += 1
        except (Taken, Unstorable):  # it is tried again; those behind it must not wait
            logger.exception("the report of job %s could not be dealt with", report.PandaID)
    return done


def _add(context: Context, report: OutputReport) -> None:
    """One job, one transaction; then those who wait for its files are told."""
    decided: list[Name] = []
    destinations = _destinations(context, report)
    with context.database.durable() as connection:
        job = jobs.lock_live(connection, report.PandaID)
        if not reports.take_report(connection, report) or job is None:
            return
        if job.attemptNr != report.attemptNr or job.jobStatus != Status.HOLDING:
            return  # the report of an attempt that was given up in between
        decided = _conclude(context, connection, job, report, destinations)
    activation.settle(context, decided)


def _expected(connection: Connection, job_id: int, attempt: int) -> list[JobFile]:
    """The files that an attempt should have made."""
    return [
        file
        for file in files.read_files(connection, job_id)
        if file.type == "output" or (file.type == "log" and file.attemptNr == attempt)
    ]


def _destinations(context: Context, report: OutputReport) -> Mapping[str, str]:
    """Where the adder of the job's VO wants its outputs moved to: storages by LFN. To be asked before a transaction."""
    plugins = plugins_of(context.settings)
    if not plugins.move_outputs:
        return {}
    with context.database.reading() as connection:
        row = jobs.read_job(connection, report.PandaID)
        expected = _expected(connection, report.PandaID, report.attemptNr)
    if row is None or row["reportedStatus"] != Status.FINISHED:
        return {}
    replicas = judge(report.data, expected).replicas
    stored = [_stored(file, replicas[file.lfn]) for file in expected if file.type == "output" and file.lfn in replicas]
    try:
        return plugins.adder(str(row["VO"] or "")).destinations(row, stored)
    except Exception:  # a VO's own module may raise anything; outputs then stay where they are
        logger.exception("the adder of VO %s failed on job %s", row["VO"], report.PandaID)
        return {}


def _stored(file: JobFile, replica: Replica) -> JobFile:
    """A file with what is known of it now; the storage that its submitter asked for is its destination."""
    wire = {**(file.wire or {}), "destination": file.endpoint or ""}
    return file._replace(**replica._asdict(), wire=wire)


def _conclude(
    context: Context, connection: Connection, job: LiveJob, report: OutputReport, destinations: Mapping[str, str]
) -> list[Name]:
    """Give the job the state that follows; returns the names about which the catalogue has now decided."""
    now = context.clock()
    expected = _expected(connection, job.PandaID, job.attemptNr)
    verdict = _not_taken(connection, job, judge(report.data, expected))
    finished = job.reportedStatus == Status.FINISHED and not verdict.code
    stored = [
        _stored(file, verdict.replicas[file.lfn])
        for file in expected
        if file.lfn in verdict.replicas and (finished or file.type == "log")
    ]
    for file in stored:
        files.set_file(connection, file.fileID, "ready", replica_of(file))
    outputs = [file for file in stored if file.type == "output"]
    moving = finished and begin_transferring(context, connection, job, outputs, destinations)
    published: list[Name] = []
    for file in stored:
        if file.type == "log" or not moving:  # what is on its way is there when all of it is
            files.publish(connection, job.PandaID, (file.scope, file.lfn), replica_of(file), now)
            published.append((file.scope, file.lfn))
    if finished:
        published += _register_found(connection, job, verdict, now)
    if moving or (finished and begin_merging(context, connection, job, outputs)):
        lost = None
    else:
        lost = end_attempt(context, connection, job, _ending(job, verdict, finished=finished))
        lost = [*(lost or []), *(take_merged(context, connection, job.PandaID) if finished else [])]
    after = jobs.read_live(connection, job.PandaID)
    if after is not None and after.attemptNr == job.attemptNr:
        there = {file.fileID for file in stored}
        left = [file for file in expected if file.fileID not in there]
        for status in ("matched", "packed", "failed"):
            ids = [file.fileID for file in left if _left_as(file, verdict, finished=finished) == status]
            files.set_file_status(connection, ids, status)
    return [*published, *(lost or [])]


def _not_taken(connection: Connection, job: LiveJob, verdict: Verdict) -> Verdict:
    """The verdict, or another one when a name that only the report tells is that of another job's file already."""
    names = [(like.scope, lfn) for lfn, like in verdict.found.items()]
    if verdict.code or not names:
        return verdict
    for name, entry in files.find_entries(connection, names).items():
        return Verdict(OUTPUT_INSANE, f"output {name[1]} is a file of job {entry.PandaID} already", verdict.replicas)
    return verdict


def _register_found(connection: Connection, job: LiveJob, verdict: Verdict, now: float) -> list[Name]:
    """Enter the outputs that only the report names, in the dataset of the entry that they belong to."""
    for lfn, like in verdict.found.items():
        files.add_found(connection, like._replace(attemptNr=job.attemptNr), lfn, verdict.replicas[lfn])
    made = [like._replace(lfn=lfn).promise_of(job.prodUserName) for lfn, like in verdict.found.items()]
    files.promise(connection, made, now)
    names = [(promise.scope, promise.lfn) for promise in made]
    for name in names:
        files.publish(connection, job.PandaID, name, verdict.replicas[name[1]], now)
    return names


def _left_as(file: JobFile, verdict: Verdict, *, finished: bool) -> str:
    """The last state of an entry that is no file in storage."""
    if finished and file in verdict.found.values():
        return "matched"
    return "packed" if finished and (file.wire or {}).get("packed") else "failed"


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
