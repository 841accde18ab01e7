"""What those who move files report: inputs that have come to a queue's storage, outputs that are where they belong.

It is the feedback of the data management that PanDA's documents speak of: jobs wait for it in assigned (inputs) and in
transferring (outputs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.db import files, jobs
from server.db.files import JobFile
from server.db.jobs import Value
from server.logic import activation
from server.logic.context import Context
from server.logic.endings import Ending, end_attempt
from server.logic.errors import BadField
from server.logic.explain import INPUT_NOT_MOVED
from server.logic.finishing import replica_of, settle_transfers
from server.logic.names import complaint_about_file, complaint_about_scope, has_control_characters, shown
from server.logic.states import NOT_STARTED, Status

#: Most files of one report.
MOST_FILES = 10_000
_ENDPOINT_LENGTH = 128
_ACTOR = "transfers"


@dataclass(frozen=True)
class Report:
    """What became of a file's transfer.

    Attributes:
        arrived: it is there; else it never will be.
        endpoint: where it has arrived; empty: where it was to go.
        reason: why it never will, in words.
    """

    scope: str
    lfn: str
    arrived: bool
    endpoint: str = ""
    reason: str = "no reason was given"


def read_reports(content: Sequence[object]) -> list[Report]:
    """Reports as they are sent: objects of scope, lfn, arrived (true or false), and as wanted endpoint and reason.

    Raises:
        BadField: one of them is none.
    """
    if len(content) > MOST_FILES:
        raise BadField("files", f"has {len(content)} files; {MOST_FILES} is the most of one call")
    return [_report(index, item) for index, item in enumerate(content)]


def _report(index: int, item: object) -> Report:
    where = f"files[{index}]"
    if not isinstance(item, dict):
        raise BadField(where, f"must be an object with scope, lfn and arrived, not {shown(item)}")
    scope, lfn, arrived = (item.get(name) for name in ("scope", "lfn", "arrived"))
    if not isinstance(scope, str) or not isinstance(lfn, str) or not isinstance(arrived, bool):
        raise BadField(where, "must have the texts scope and lfn, and arrived, which is true or false")
    if complaint := complaint_about_scope(scope) or complaint_about_file(lfn):
        raise BadField(where, complaint)
    texts = {name: _text(where, item, name, most) for name, most in (("endpoint", _ENDPOINT_LENGTH), ("reason", 300))}
    return Report(scope, lfn, arrived, texts["endpoint"], texts["reason"] or Report.reason)


def _text(where: str, item: Mapping[str, object], name: str, most: int) -> str:
    value = item.get(name, "")
    if not isinstance(value, str) or len(value) > most or has_control_characters(value):
        raise BadField(where, f"{name} must be a text of at most {most} characters")
    return value


def report_transfers(context: Context, reports: Sequence[Report]) -> int:
    """Take note of what became of transfers; returns how many files of jobs were waited for."""
    by_name = {(report.scope, report.lfn): report for report in reports}
    with context.database.reading() as connection:
        moving = files.find_moving(connection, by_name)
    outputs: dict[int, list[JobFile]] = {}
    for file in moving:
        if file.type == "input":
            _settle_input(context, file, by_name[file.scope, file.lfn])
        else:
            outputs.setdefault(file.PandaID, []).append(file)
    for job_id, of_job in outputs.items():
        told = {file.lfn: by_name[file.scope, file.lfn] for file in of_job}
        reason = next((report.reason for report in told.values() if not report.arrived), "")
        settle_transfers(context, job_id, {lfn: report.arrived for lfn, report in told.items()}, reason)
    return len(moving)


def _settle_input(context: Context, file: JobFile, report: Report) -> None:
    lost = None
    with context.database.durable() as connection:
        job = jobs.lock_live(connection, file.PandaID)
        if job is None or job.jobStatus not in NOT_STARTED:
            return
        if report.arrived:
            there = replica_of(file)._replace(endpoint=report.endpoint or file.endpoint, surl=None)
            files.set_file(connection, file.fileID, "ready", there)
            activation.activate_complete(context, connection, [job.PandaID])
        else:
            text = f"input {file.scope}:{file.lfn} did not reach the storage of {job.computingSite}: {report.reason}"
            columns: dict[str, Value] = {"ddmErrorCode": INPUT_NOT_MOVED, "ddmErrorDiag": text[:500]}
            lost = end_attempt(context, connection, job, Ending(Status.FAILED, _ACTOR, text, columns))
    activation.settle(context, lost or [])
