"""File recovery: outputs that a storage has lost are made once more, by a new job in place of the one that made them.

A job that has finished stays as it is. Its heir has the same definition, makes the lost files under their old names and
all others under new ones, so that nothing that is there is written over. Jobs that have not started and need a lost
file wait for it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from server.db import datasets, dispatch, events, files, jobs, retries
from server.db.database import Connection
from server.db.files import Entry, JobFile, Name, Replica
from server.db.jobs import Change, LiveJob, Value
from server.db.retries import Relation
from server.db.tables import CLASS_COLUMNS
from server.logic.attempts import FORGOTTEN, as_of, file_row, fresh_log, share_of
from server.logic.context import Context, Identity
from server.logic.errors import BadField
from server.logic.names import complaint_about_file, complaint_about_scope, shown, with_names
from server.logic.states import NOT_STARTED, OVER, Status
from server.logic.timeouts import next_look

#: How the heir is related to the job whose files were lost.
RELATION = "recovery"
#: Files of one request.
MOST_FILES = 10_000
_ACTOR = "file recovery"
_NOWHERE = Replica(None, None, None, None, None)


@dataclass
class Recovery:
    """What became of a request.

    Attributes:
        heirs: job -> the job that makes its lost files again; in a dry run, 0.
        waiting: jobs that had not started and wait for a lost file again.
        left: a sentence for each file that is not made again.
    """

    heirs: dict[int, int] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def read_names(written: Sequence[object]) -> list[Name]:
    """Scope and LFN of files as requests write them, scope:lfn.

    Raises:
        BadField: one of them is written differently, there are too many, or none.
    """
    if not 0 < len(written) <= MOST_FILES:
        raise BadField("files", f"has {len(written)} names; between 1 and {MOST_FILES} are possible")
    names: list[Name] = []
    for file in written:
        scope, _, lfn = file.partition(":") if isinstance(file, str) else ("", "", "")
        if complaint_about_scope(scope) or complaint_about_file(lfn):
            raise BadField("files", f"must be like scope:lfn, not {shown(file)}")
        names.append((scope, lfn))
    return names


def recover_files(context: Context, names: Iterable[Name], identity: Identity, *, dry_run: bool = False) -> Recovery:
    """Make lost files again.

    The same request again does nothing: the files are being made already.

    Args:
        names: scope and LFN of what is lost.
        dry_run: only say what would be done.
    """
    recovery = Recovery()
    makers: dict[int, list[Name]] = {}
    wanted = list(dict.fromkeys(names))
    with context.database.reading() as connection:
        entries = files.find_entries(connection, wanted)
    for name in wanted:
        entry = entries.get(name)
        if complaint := _complaint_about_entry(entry):
            recovery.left.append(f"{name[0]}:{name[1]} {complaint}")
        elif entry is not None:
            makers.setdefault(entry.PandaID, []).append(name)
    for job_id, lost in makers.items():
        with context.database.durable() as connection:
            _recover(context, connection, job_id, lost, identity, recovery, dry_run=dry_run)
    return recovery


def _complaint_about_entry(entry: Entry | None) -> str:
    if entry is None:
        return "is no output of a job of this server"
    return f"is being made by job {entry.PandaID}" if entry.status == "promised" else ""


def _recover(
    context: Context,
    connection: Connection,
    job_id: int,
    lost: Sequence[Name],
    identity: Identity,
    recovery: Recovery,
    *,
    dry_run: bool,
) -> None:
    """One job that made lost files; it is looked at again, since others may have been faster."""
    job = jobs.read_live(connection, job_id)
    own = files.read_files(connection, job_id)
    entries = files.find_entries(connection, lost)
    complaint = _complaint_about_job(connection, job, own, lost, identity)
    if not complaint and any(entry.PandaID != job_id or entry.status == "promised" for entry in entries.values()):
        complaint = "is being made again already"
    if complaint or job is None:
        recovery.left += [f"{scope}:{lfn} {complaint}" for scope, lfn in lost]
        return
    recovery.heirs[job_id] = 0 if dry_run else _make_heir(context, connection, job, own, lost)
    recovery.waiting += _send_back(context, connection, lost, dry_run=dry_run)


def _complaint_about_job(
    connection: Connection, job: LiveJob | None, own: Sequence[JobFile], lost: Sequence[Name], identity: Identity
) -> str:
    """Why a job cannot be done again, to follow a file's name in a sentence; empty if it can."""
    if job is None:
        return "was made by a job that is archived: submit that job again"
    if not identity.may_act_for(job.prodUserName):
        return f"belongs to {shown(job.prodUserName)}: only that user and operators may have it made again"
    if job.jobStatus != Status.FINISHED:
        state = "is not over" if job.jobStatus not in OVER else f"has {job.jobStatus}"
        return f"belongs to job {job.PandaID}, which {state}: only what a finished job has made is made again"
    outputs = {(file.scope, file.lfn) for file in own if file.type == "output"}
    if not outputs.issuperset(lost):
        return f"is a log of job {job.PandaID}, and no log is made twice"
    first_log = min((file.fileID for file in own if file.type == "log"), default=0)
    # rows of outputs that only the report named come after all that was defined
    if any(file.type == "output" and (file.status != "ready" or file.fileID > first_log) for file in own):
        return f"was made by job {job.PandaID}, whose definition does not name all of its outputs: submit it again"
    if events.has_ranges(connection, job.PandaID):
        return f"was made by job {job.PandaID} of event ranges: submit it again"
    return ""


def _make_heir(
    context: Context, connection: Connection, job: LiveJob, own: Sequence[JobFile], lost: Sequence[Name]
) -> int:
    """A new job that makes the lost files; returns its number."""
    now = context.clock()
    heir, attempt = jobs.reserve_ids(connection, "PandaID", 1), job.attemptNr + 1
    renamed = {
        file.lfn: f"{heir}.{file.lfn}" for file in own if file.type == "output" and (file.scope, file.lfn) not in lost
    }
    given = [as_of(file, heir, attempt) for file in own if file.type != "log"]
    inputs, waits = _inputs(connection, [file for file in given if file.type == "input"])
    outputs = [file._replace(lfn=renamed.get(file.lfn, file.lfn)) for file in given if file.type == "output"]
    log = fresh_log(connection, job, heir, attempt)
    definition = jobs.read_definition(connection, job.PandaID)
    definition["jobPars"] = with_names(str(definition.get("jobPars", "")), renamed)
    values = _heirs_values(context, connection, job, heir, waits=waits)
    jobs.add_jobs(connection, [values], {heir: definition})
    files.add_files(connection, [file_row(file) for file in (*inputs, *outputs, *([log] if log else []))])
    files.promise_again(connection, lost, heir, now)
    made = [file.promise_of(job.prodUserName) for file in (*outputs, *([log] if log else []))]
    files.promise(connection, [new for new in made if (new.scope, new.lfn) not in lost], now)
    datasets.reopen_of_job(connection, heir, now)
    retries.add_relation(connection, Relation(heir, job.PandaID, RELATION, now))
    what = f"{len(lost)} lost files" if len(lost) > 1 else f"the lost file {lost[0][1]}"
    state = str(values["jobStatus"])
    changes = [
        Change(job.PandaID, job.attemptNr, job.jobStatus, now, _ACTOR, f"job {heir} makes {what} again"),
        Change(heir, attempt, Status.DEFINED, now, _ACTOR, f"makes {what} of job {job.PandaID} again"),
        Change(heir, attempt, state, now, _ACTOR, "waits for its inputs" if waits else "all inputs are there"),
    ]
    jobs.add_history(connection, changes)
    return heir


def _inputs(connection: Connection, given: Sequence[JobFile]) -> tuple[list[JobFile], bool]:
    """The heir's inputs, those that are lost as well or being made again without a place; and whether it must wait."""
    entries = files.find_entries(connection, [(file.scope, file.lfn) for file in given])
    found: list[JobFile] = []
    for file in given:
        entry = entries.get((file.scope, file.lfn))
        gone = entry is not None and entry.status != "ready"
        found.append(file._replace(status="waiting", **_NOWHERE._asdict()) if gone else file)
    return found, any(file.status == "waiting" for file in found)


def _heirs_values(
    context: Context, connection: Connection, job: LiveJob, heir: int, *, waits: bool
) -> Mapping[str, Value]:
    now = context.clock()
    row = jobs.read_job(connection, job.PandaID) or {}
    status = Status.ASSIGNED if waits else Status.ACTIVATED
    share = share_of(connection, row, job.PandaID)
    needs = {**{name: row[name] for name in CLASS_COLUMNS}, "gshare": share}
    begun = job._replace(PandaID=heir, jobStatus=status, stateChangeTime=now, modificationTime=now)
    values = {
        **row,
        **FORGOTTEN,
        "PandaID": heir,
        "jobStatus": status,
        "attemptNr": job.attemptNr + 1,
        "failedAttempt": 0,
        "gshare": share,
        "classID": None if waits else dispatch.class_of(connection, needs, now),  # type: ignore[arg-type]  # a row's
        "creationTime": now,
        "stateChangeTime": now,
        "modificationTime": now,
        "watchTime": next_look(context, begun),
    }
    return values  # type: ignore[return-value]  # columns of a row


def _send_back(context: Context, connection: Connection, lost: Sequence[Name], *, dry_run: bool) -> list[int]:
    """Let jobs that have not started wait for lost files again; returns those."""
    given = files.find_given_files(connection, lost)
    live = jobs.read_live_many(connection, {file.PandaID for file in given})
    back = {job_id for job_id, job in live.items() if job.jobStatus in NOT_STARTED}
    if dry_run:
        return sorted(back)
    # a pilot that was faster will see for itself
    queued = [live[job_id] for job_id in sorted(back) if live[job_id].jobStatus == Status.ACTIVATED]
    back -= {job.PandaID for job in queued if not _unqueue(context, connection, job)}
    for file in given:
        if file.PandaID in back:
            files.set_file(connection, file.fileID, "waiting", _NOWHERE)
    return sorted(back)


def _unqueue(context: Context, connection: Connection, job: LiveJob) -> bool:
    """Take a job out of the queue; False if somebody else has it by now."""
    now = context.clock()
    waiting = job._replace(jobStatus=Status.ASSIGNED, stateChangeTime=now, modificationTime=now)
    values: dict[str, Value] = {
        "jobStatus": Status.ASSIGNED,
        "classID": None,
        "stateChangeTime": now,
        "modificationTime": now,
        "watchTime": next_look(context, waiting),
    }
    if not jobs.change_job(connection, job, values):
        return False
    reason = "an input was lost and is being made again"
    jobs.add_history(connection, [Change(job.PandaID, job.attemptNr, Status.ASSIGNED, now, _ACTOR, reason)])
    return True
