"""updateJob: fencing, the state machine's outcome in one transaction, and the answer that says what happens next."""

from __future__ import annotations

from dataclasses import dataclass, replace

from server.db import jobs, records, reports
from server.db.database import Connection, DatabaseUnavailable
from server.db.jobs import Change, Lease, LiveJob, Value
from server.logic import pilotreport
from server.logic.context import Context, Identity, Role
from server.logic.dispatch import iso_time
from server.logic.fence import has_job
from server.logic.fields import JobReport
from server.logic.states import ALIVE, CLAIMED, KILL, OVER, REPORTABLE, SOFT_KILL, Outcome, Status, outcome_of
from server.logic.timeouts import next_look

#: How often an update is tried again when somebody else changes the same job at the same moment.
_TRIES = 10


@dataclass(frozen=True)
class UpdateAnswer:
    """What a pilot is told.

    Attributes:
        known_state: False if the state is not one a pilot can report: then nothing was done.
        command: orders, comma-joined; empty for none.
        lease_end: until when the job is the pilot's without another word, ISO 8601.
        next_heartbeat: when to report next, s.
    """

    known_state: bool = True
    command: str = ""
    lease_end: str | None = None
    next_heartbeat: int | None = None


def update_job(context: Context, report: JobReport, identity: Identity) -> UpdateAnswer:
    """Do what a pilot's report asks for; see `states.outcome_of` for the rules.

    A change of state and a final report are on disk when this returns; a bare heartbeat may be lost by a crash.
    """
    if report.status not in REPORTABLE:
        return UpdateAnswer(known_state=False)
    report = _without_recovery(report)
    if (lease := _renewed(context, report, identity)) is not None:
        return _answer_of_lease(context, lease)
    for _ in range(_TRIES):
        with context.database.reading() as connection:
            job = records.look_up(connection, report.job_id)
        if job is None:
            return UpdateAnswer(command=KILL)
        outcome = _outcome(job, report, identity)
        if not outcome.alive:
            return _answer(context, job, outcome)
        if outcome.status is None and not outcome.verdict and not report.metadata:
            done = _heartbeat(context, job, report)
        else:
            done = _transition(context, job, report, outcome)
        if done:
            return _answer(context, job, outcome)
    raise DatabaseUnavailable(f"job {report.job_id} is changed by others all the time")


def _renewed(context: Context, report: JobReport, identity: Identity) -> Lease | None:
    """Take a report for a bare heartbeat of the one who has the job; None if it is anything else, and is to be judged.

    What is asked of the job here is never less than what `_outcome` asks.
    """
    status = Status(report.status)
    if outcome_of(status, status) != ALIVE or report.metadata or report.stdout:
        return None
    conditions: dict[str, str | int] = {}
    if report.attempt is not None:
        conditions["attemptNr"] = report.attempt
    if report.claim_id:
        conditions["claimID"] = report.claim_id
    if identity.name and Role.OPERATOR not in identity.roles:
        conditions["claimedBy"] = identity.name
    if batch := report.columns.get("batchID"):
        conditions["batchID"] = str(batch)
    with context.database.at_once() as connection:
        return jobs.renew_lease(connection, report.job_id, status, _measured(context, report), conditions)


def _measured(context: Context, report: JobReport) -> dict[str, Value]:
    """What a heartbeat changes in the job's row."""
    values: dict[str, Value] = {**report.columns, "modificationTime": context.clock()}
    values.pop("startTime", None)
    values.pop("endTime", None)
    return values


def _without_recovery(report: JobReport) -> JobReport:
    """A report as this server takes it: outputs that a pilot could not store are lost.

    A pilot that leaves a job in holding with an error, which legacy servers are sent as a negative number, hopes that
    somebody stores the outputs later. Nobody here does, so that the error is the verdict.
    """
    code = report.columns.get("pilotErrorCode")
    if not isinstance(code, int) or not code:
        return report
    columns: dict[str, Value] = {**report.columns, "pilotErrorCode": abs(code)}
    status = Status.FAILED if report.status == Status.HOLDING else report.status
    return replace(report, status=status, columns=columns)


def _outcome(job: LiveJob, report: JobReport, identity: Identity) -> Outcome:
    if is_strange(job, report, identity):
        return Outcome(command=KILL)
    return outcome_of(
        Status(job.jobStatus),
        Status(report.status),
        decided=job.reportedStatus is not None,
        given_up=job.jobDispatcherErrorCode != 0,
    )


def is_strange(job: LiveJob, report: JobReport, identity: Identity) -> bool:
    """Whether the report is not from the one who has the job now: another claim, attempt, token or batch job."""
    if report.attempt is not None and report.attempt != job.attemptNr:
        return True
    if not has_job(job, report.claim_id, identity):
        return True
    batch = report.columns.get("batchID")
    # Harvester and the pilot in its worker may name the same slot differently, one by a number: only words count.
    return bool(batch and job.batchID and batch != job.batchID and not (str(batch).isdigit() or job.batchID.isdigit()))


def _heartbeat(context: Context, job: LiveJob, report: JobReport) -> bool:
    with context.database.relaxed() as connection:
        changed = jobs.change_job(connection, job, _measured(context, report))
        if changed and report.stdout:
            jobs.replace_text(connection, job.PandaID, job.attemptNr, "stdout", report.stdout, context.clock())
    return changed


def _transition(context: Context, job: LiveJob, report: JobReport, outcome: Outcome) -> bool:
    """A change of state, or a report that must not be lost, with everything that belongs to it."""
    now = context.clock()
    with context.database.durable() as connection:
        claimed = jobs.time_of_claim(connection, job.PandaID, job.attemptNr) or 0.0
        values = _values(context, job, report, outcome, now, claimed)
        if not jobs.change_job(connection, job, values):
            return False
        if outcome.status is not None:
            reason = f"reported {report.status}"
            code = report.columns.get("pilotErrorCode")
            if code:
                reason += f", pilot error {code}: {report.columns.get('pilotErrorDiag', '')}"
            actor = str(report.columns.get("node") or job.claimedBy or "pilot")
            jobs.add_history(connection, [Change(job.PandaID, job.attemptNr, outcome.status, now, actor, reason)])
        _keep_texts(connection, job, report, outcome, now)
        if outcome.verdict:
            reports.add_report(connection, job.PandaID, job.attemptNr, report.output_report, now)
    if outcome.verdict:
        context.bell.ring("add_main")
    return True


def _seconds(value: Value) -> float | None:
    return value if isinstance(value, float) else None


def _values(
    context: Context, job: LiveJob, report: JobReport, outcome: Outcome, now: float, claimed: float
) -> dict[str, Value]:
    """What a report changes in the job's row; `now` and the time of the claim are seconds since 1970."""
    values: dict[str, Value] = {**report.columns, "modificationTime": now}
    start, end = (_seconds(values.pop(name, None)) for name in ("startTime", "endTime"))
    # Pilots tell whole seconds, by clocks of their own: nothing may seem to be before what made it possible.
    if outcome.starts or (outcome.verdict and start):
        values["startTime"] = max(start or now, claimed)
    if (outcome.ends and job.endTime is None) or (outcome.verdict and end):
        values["endTime"] = max(end or now, _seconds(values.get("startTime", job.startTime)) or claimed)
    if outcome.status is not None:
        values |= {"jobStatus": outcome.status, "stateChangeTime": now}
        decided = report.status if outcome.verdict else None
        moved = job._replace(jobStatus=outcome.status, stateChangeTime=now, modificationTime=now)
        values["watchTime"] = next_look(context, moved._replace(reportedStatus=decided))
    if outcome.verdict:
        values["reportedStatus"] = report.status
    return values


def _keep_texts(connection: Connection, job: LiveJob, report: JobReport, outcome: Outcome, now: float) -> None:
    """Job report (the first wins, none of failed jobs), log and output of the payload."""
    if report.metadata and report.status != Status.FAILED:
        jobs.keep_text(connection, job.PandaID, job.attemptNr, "metaData", report.metadata, now)
    # Those of a failed job are the ones that people look for.
    own = pilotreport.in_job_report(report.metadata) if outcome.verdict else {}
    for kind, text in (("pilotLog", report.pilot_log), ("stdout", report.stdout), *own.items()):
        if text:
            jobs.replace_text(connection, job.PandaID, job.attemptNr, kind, text, now)


def _answer(context: Context, job: LiveJob, outcome: Outcome) -> UpdateAnswer:
    if outcome.command:
        return UpdateAnswer(command=outcome.command)
    if outcome.verdict or job.reportedStatus is not None or Status(job.jobStatus) in OVER:
        return UpdateAnswer()  # the pilot has had its last word: nothing is asked of it any more
    command = job.commandToPilot if (outcome.status or job.jobStatus) in CLAIMED else None
    return _answer_of_lease(context, Lease(job.debug, command, job.heartbeat, job.lostHeartbeat))


def _answer_of_lease(context: Context, lease: Lease) -> UpdateAnswer:
    """Orders, and what happens next."""
    orders = ["debug"] if lease.debug else []
    # An order to end softly goes with the answers about event ranges: pilots of others end a job at once for it here.
    if lease.commandToPilot and lease.commandToPilot != SOFT_KILL:
        orders.append(lease.commandToPilot)
    lease_end = context.clock() + (lease.lostHeartbeat or context.settings.lost_heartbeat)
    return UpdateAnswer(
        command=",".join(orders),
        lease_end=iso_time(lease_end),
        next_heartbeat=lease.heartbeat or context.settings.heartbeat,
    )
