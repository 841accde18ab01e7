"""The next attempt of a job that has failed: of the same job, or, for a job of a task, a job of its own (wire.md 8)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from server.db import dispatch, eventmerges, events, files, information, jobs, retries, shares
from server.db.database import Connection
from server.db.files import JobFile
from server.db.information import Description
from server.db.jobs import Change, LiveJob, Value
from server.db.retries import Relation, Rule
from server.db.tables import CLAIM_COLUMNS, CLASS_COLUMNS, ERROR_SOURCES, RESULT_COLUMNS
from server.logic.context import Context
from server.logic.events import pool_of
from server.logic.names import FILE_LENGTH
from server.logic.queues import number_of
from server.logic.resourcetypes import read_types, type_of
from server.logic.retries import (
    Failure,
    Needs,
    after_failure,
    changed_needs,
    choose,
    effect_of,
    may_retry,
)
from server.logic.sharetree import ShareTree, facts_of
from server.logic.states import Status
from server.logic.timeouts import next_look

_ACTOR = "retry"
_MODULE = "retry module"
#: An attempt that never was in a pilot's hands has nothing to repeat, and one whose outputs are there went well.
_RETRIED_FROM = frozenset({Status.SENT, Status.STARTING, Status.RUNNING, Status.HOLDING, Status.TRANSFERRING})
#: Of the row of a failed attempt, what the next one does not begin with.
FORGOTTEN: Mapping[str, Value] = {
    **dict.fromkeys((*CLAIM_COLUMNS, *RESULT_COLUMNS)),
    **{f"{source}ErrorCode": 0 for source in ERROR_SOURCES},
    "startTime": None,
    "endTime": None,
    "commandToPilot": None,
    "killedBy": None,
}


@dataclass(frozen=True)
class _Next:
    """The next attempt: its number, what it begins with, and that in words."""

    attempt: int
    values: Mapping[str, Value]
    reason: str


def pilot_code(job: LiveJob, columns: Mapping[str, Value]) -> int:
    """The pilot's error code of an attempt that ends with these columns; 0 if it gave none."""
    code = columns.get("pilotErrorCode", job.pilotErrorCode)
    return code if isinstance(code, int) else 0


def begin_next_attempt(context: Context, connection: Connection, job: LiveJob, columns: Mapping[str, Value]) -> bool:
    """Give a job whose attempt has just been stored as failed its next one, in the caller's transaction.

    Args:
        job: as it was before it failed.
        columns: what the ending has stored.

    Returns:
        Whether there is another attempt.
    """
    retry = after_failure(
        attempt=job.attemptNr,
        failed_attempts=job.failedAttempt,
        max_attempts=job.maxAttempt,
        pilot_code=pilot_code(job, columns),
        killed=job.killedBy is not None,
    )
    if not retry.again or job.jobStatus not in _RETRIED_FROM:
        return False
    row = jobs.read_job(connection, job.PandaID) or {}
    failed_attempts = job.failedAttempt + retry.charged
    rule, changes = _ruled(context, connection, job, row)
    if not may_retry(rule, failed_attempts):
        return False
    attempt = job.attemptNr + 1
    reason = f"attempt {job.attemptNr} failed, attempt {attempt} of up to {job.maxAttempt} is queued"
    if not retry.charged:
        reason += " (the failed one is not counted)"
    now = context.clock()
    share = share_of(connection, {**row, **changes}, job.PandaID)
    needs = {**{name: changes.get(name, row[name]) for name in CLASS_COLUMNS}, "gshare": share}
    values = {
        **FORGOTTEN,
        **changes,
        "jobStatus": Status.ACTIVATED,
        "attemptNr": attempt,
        "failedAttempt": failed_attempts,
        "gshare": share,
        "classID": dispatch.class_of(connection, needs, now),  # type: ignore[arg-type]  # columns of a row
        "stateChangeTime": now,
        "modificationTime": now,
        "watchTime": next_look(context, job._replace(jobStatus=Status.ACTIVATED, stateChangeTime=now)),
    }
    coming = _Next(attempt, values, reason)
    if job.taskID:
        _make_heir(connection, job, row, coming, now)
    else:
        _repeat(connection, job, coming, now)
    return True


def share_of(connection: Connection, row: Mapping[str, object], job_id: int) -> str:
    """The global share of a job that is queued anew, by the rules as they are now."""
    tree = ShareTree(shares.read_shares(connection))
    definition = jobs.read_definition(connection, job_id) if tree.reads_definitions else {}
    return tree.share_of(facts_of(row, definition))  # type: ignore[arg-type]  # columns of a row


def _repeat(connection: Connection, job: LiveJob, coming: _Next, now: float) -> None:
    """The same job is queued again."""
    jobs.change_job(connection, job._replace(jobStatus=Status.FAILED), coming.values)
    jobs.add_history(connection, [Change(job.PandaID, coming.attempt, Status.ACTIVATED, now, _ACTOR, coming.reason)])
    fresh = fresh_log(connection, job, job.PandaID, coming.attempt)
    if fresh is not None:
        files.add_files(connection, [file_row(fresh)])
        files.promise(connection, [fresh.promise_of(job.prodUserName)], now)


def _make_heir(connection: Connection, job: LiveJob, row: Mapping[str, object], coming: _Next, now: float) -> None:
    """A new job takes the place of a task's job, with all that it has and all that it has promised."""
    heir = jobs.reserve_ids(connection, "PandaID", 1)
    values = {**row, **coming.values, "PandaID": heir, "creationTime": now}
    jobs.add_jobs(connection, [values], {heir: jobs.read_definition(connection, job.PandaID)})  # type: ignore[list-item]  # columns of a row
    log = fresh_log(connection, job, heir, coming.attempt)
    copies = [file for file in files.read_files(connection, job.PandaID) if file.type != "log"]
    given = [as_of(file, heir, coming.attempt) for file in copies if not _was_found(file)]
    files.add_files(connection, [file_row(file) for file in (*given, *([log] if log else []))])
    files.hand_over_promises(connection, job.PandaID, heir, now)
    if log is not None:
        files.promise(connection, [log.promise_of(job.prodUserName)], now)
    pool = pool_of(heir, job.taskID, int(str(row["jobsetID"])), job.prodUserName)
    eventmerges.add_heir(connection, job.PandaID, heir, pool)
    events.move_merge(connection, job.PandaID, heir)
    retries.add_relation(connection, Relation(heir, job.PandaID, "retry", now))
    changes = [
        Change(job.PandaID, job.attemptNr, Status.FAILED, now, _ACTOR, f"job {heir} is its next attempt"),
        Change(heir, coming.attempt, Status.DEFINED, now, _ACTOR, f"made of job {job.PandaID} of task {job.taskID}"),
        Change(heir, coming.attempt, Status.ACTIVATED, now, _ACTOR, coming.reason),
    ]
    jobs.add_history(connection, changes)


def _was_found(file: JobFile) -> bool:
    """Whether only a pilot's report told the name of an output: the next attempt may make others."""
    return file.type == "output" and file.status == "ready"


def as_of(file: JobFile, job_id: int, attempt: int) -> JobFile:
    """A file as another job has it: inputs are where they are, outputs are not there yet."""
    if file.type == "input":
        return file._replace(PandaID=job_id, attemptNr=attempt)
    unmade = file._replace(PandaID=job_id, attemptNr=attempt, status="defined")
    return unmade._replace(guid=None, fsize=None, checksum=None, surl=None)


def file_row(file: JobFile) -> dict[str, Value | Mapping[str, str]]:
    """A file as `files.add_files` takes it."""
    row = file._asdict()
    del row["fileID"]
    return row


def fresh_log(connection: Connection, job: LiveJob, heir: int, attempt: int) -> JobFile | None:
    """The next attempt's log, with a name of its own: a lost pilot may still write the old one."""
    logs = [file for file in files.read_files(connection, job.PandaID) if file.type == "log"]
    if not logs:
        return None
    first, last = logs[0], logs[-1]
    if last.status == "defined":
        files.set_file_status(connection, [last.fileID], "lost")
        files.forget_promise(connection, job.PandaID, (last.scope, last.lfn))
    name = first.lfn if first.attemptNr == 1 else first.lfn.removesuffix(f".{first.attemptNr}")
    wanted = f"{name}.{attempt}"
    if files.find_entries(connection, [(first.scope, wanted)]):  # somebody else's output, or another heir's log
        wanted = f"{heir}.{wanted}"
    if files.find_entries(connection, [(first.scope, wanted)]):
        wanted = f"{uuid.uuid4().hex[:12]}.{wanted}"
    return as_of(first, heir, attempt)._replace(lfn=wanted[-FILE_LENGTH:])


# ---- the retry module


def _ruled(
    context: Context, connection: Connection, job: LiveJob, row: Mapping[str, object]
) -> tuple[Rule | None, dict[str, Value]]:
    """The rule that is applied to a failed job, and what changes for its next attempt."""
    errors = {
        source: (_code(row, f"{source}ErrorCode"), str(row[f"{source}ErrorDiag"] or "")) for source in ERROR_SOURCES
    }
    errors["trans"] = (_code(row, "transExitCode"), "")
    rules = retries.find_rules(connection, {abs(code) for code, _ in errors.values() if code})
    if not rules:
        return None, {}
    definition = jobs.read_definition(connection, job.PandaID)
    failure = Failure(
        errors,
        architecture=str(definition.get("cmtConfig", "")),
        release=str(definition.get("swRelease", "")),
        work_queue=job.prodSourceLabel,
        vo=str(row["VO"] or ""),
    )
    rule, passive = choose(rules, failure)
    queue = information.read_queue(connection, job.computingSite)
    needs = Needs(*(_code(row, name) for name in ("coreCount", "minRamCount", "maxWalltime")))
    now = context.clock()
    changes: list[Change] = []
    after = needs
    for one in (*passive, *([rule] if rule else [])):
        planned = _planned(one, needs, row, queue.description if queue else {})
        after = planned if one.active else after
        word = "applies" if one.active else "is passive and would apply"
        text = f"rule {one.ruleID} ({one.action}) {word}: {effect_of(one, needs, planned)}"
        changes.append(Change(job.PandaID, job.attemptNr, Status.FAILED, now, _MODULE, text))
    jobs.add_history(connection, changes)
    return rule, _columns(connection, needs, after, str(row["resource_type"]))


def _planned(rule: Rule, needs: Needs, row: Mapping[str, object], queue: Description) -> Needs:
    start, end = row["startTime"], row["endTime"]
    ran = end - start if isinstance(start, float) and isinstance(end, float) else 0.0
    most = Needs(0, number_of(queue, "maxrss"), number_of(queue, "maxtime"))
    return changed_needs(rule, needs, peak_memory=_code(row, "maxPSS") // 1024, duration=int(ran), most=most)


def _columns(connection: Connection, before: Needs, after: Needs, kind: str) -> dict[str, Value]:
    """The columns in which two needs differ; the resource type follows, unless the submitter chose another."""
    if before == after:
        return {}
    types = read_types(connection)
    if kind == type_of(types, before.cores, before.memory):
        kind = type_of(types, after.cores, after.memory)
    return {"minRamCount": after.memory, "maxWalltime": after.walltime, "resource_type": kind}


def _code(row: Mapping[str, object], name: str) -> int:
    value = row[name]
    return value if isinstance(value, int) else 0
