"""From stored outputs to a finished job: they may have to be merged, or to be moved to where they belong (chapter 2.5).

A job whose outputs are called `panda.um.*` (client.md 3) is merging until merge jobs have taken all of them. One whose
outputs have to be moved, as the adder of its VO says, is transferring until they have arrived.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from server.db import files, jobs
from server.db.database import Connection
from server.db.files import JobFile, Name, Replica
from server.db.jobs import Change, LiveJob, Value
from server.logic import activation
from server.logic.context import Context
from server.logic.endings import Ending, end_attempt
from server.logic.explain import TRANSFER_FAILED
from server.logic.plugins import plugins_of
from server.logic.states import Status
from server.logic.timeouts import next_look

logger = logging.getLogger(__name__)

#: What the LFN of an output begins with that is to be merged, and the processing type of the jobs that do it.
UNMERGED = "panda.um."
MERGE_JOB = "pmerge"

_ACTOR = "finisher"
#: Jobs looked at in one go.
_BATCH = 200


def replica_of(file: JobFile) -> Replica:
    """What is known of a file that is there."""
    return Replica(file.endpoint, file.guid, file.fsize, file.checksum, file.surl)


def begin_merging(context: Context, connection: Connection, job: LiveJob, outputs: Sequence[JobFile]) -> bool:
    """A job whose outputs have been stored and published waits for its merge jobs, if it has any to wait for."""
    number = sum(file.lfn.startswith(UNMERGED) for file in outputs)
    if number:
        _move_on(context, connection, job, Status.MERGING, f"{number} outputs wait for a merge job")
    return number > 0


def begin_transferring(
    context: Context,
    connection: Connection,
    job: LiveJob,
    outputs: Sequence[JobFile],
    destinations: Mapping[str, str],
) -> bool:
    """A job whose outputs have been stored waits until those that have a destination are there, if any has one.

    Args:
        outputs: with what is known of each now.
        destinations: storage by LFN.
    """
    moving = [file for file in outputs if file.lfn in destinations]
    for file in moving:
        wire = {**(file.wire or {}), "destination": destinations[file.lfn]}
        files.set_moving(connection, file.fileID, replica_of(file), wire)
    if moving:
        places = ", ".join(sorted({destinations[file.lfn] for file in moving}))
        _move_on(context, connection, job, Status.TRANSFERRING, f"{len(moving)} outputs are on their way to {places}")
    return bool(moving)


def _move_on(context: Context, connection: Connection, job: LiveJob, status: Status, reason: str) -> None:
    now = context.clock()
    values: dict[str, Value] = {"jobStatus": status, "stateChangeTime": now, "modificationTime": now}
    values["watchTime"] = next_look(context, job._replace(jobStatus=status, stateChangeTime=now))
    if jobs.change_job(connection, job, values):
        jobs.add_history(connection, [Change(job.PandaID, job.attemptNr, status, now, "adder", reason)])


def take_merged(context: Context, connection: Connection, merge_job: int) -> list[Name]:
    """A merge job has finished, in the caller's transaction: jobs all of whose outputs are merged now are finished.

    Returns:
        The names that are lost with them (none, as a rule).
    """
    merged = files.find_makers(connection, merge_job, MERGE_JOB, UNMERGED)
    # Locked, in the order of their numbers: of two merge jobs that end at once the second must see what the first did.
    makers = [jobs.lock_live(connection, job_id) for job_id in sorted({file.PandaID for file in merged})]
    files.set_file_status(connection, [file.fileID for file in merged], "merged")
    lost: list[Name] = []
    for job in filter(None, makers):
        left = [f for f in files.read_files(connection, job.PandaID) if f.lfn.startswith(UNMERGED)]
        if job.jobStatus == Status.MERGING and all(f.status == "merged" for f in left if f.type == "output"):
            ending = Ending(Status.FINISHED, _ACTOR, f"all outputs are merged, the last ones by job {merge_job}")
            lost += end_attempt(context, connection, job, ending) or []
    return lost


def settle_transfers(context: Context, job_id: int, arrived: Mapping[str, bool], reason: str) -> None:
    """Take note of outputs of a transferring job that have arrived (True), or never will.

    Args:
        arrived: by LFN.
        reason: why those never will, in words.
    """
    names: list[Name] = []
    with context.database.durable() as connection:
        job = jobs.lock_live(connection, job_id)
        if job is None or job.jobStatus != Status.TRANSFERRING or job.reportedStatus is None:
            return
        outputs = [file for file in files.read_files(connection, job_id) if file.type == "output"]
        moving = [file for file in outputs if file.status == "moving"]
        missing = next((file for file in moving if arrived.get(file.lfn) is False), None)
        for file in moving:
            if arrived.get(file.lfn):
                files.set_file(connection, file.fileID, "ready", _moved(file))
        if missing is not None:
            names = _give_up(context, connection, job, missing, reason)
        elif all(arrived.get(file.lfn) for file in moving):
            names = _finish(context, connection, job)
    activation.settle(context, names)


def _moved(file: JobFile) -> Replica:
    """A file at its destination; its address there is not known."""
    return replica_of(file)._replace(endpoint=(file.wire or {}).get("destination") or file.endpoint, surl=None)


def _finish(context: Context, connection: Connection, job: LiveJob) -> list[Name]:
    now = context.clock()
    published: list[Name] = []
    for file in files.read_files(connection, job.PandaID):
        if file.type == "output" and file.status == "ready":
            files.publish(connection, job.PandaID, (file.scope, file.lfn), replica_of(file), now)
            published.append((file.scope, file.lfn))
    ending = Ending(Status.FINISHED, _ACTOR, f"all outputs are at their destination ({len(published)} files)")
    return [*published, *(end_attempt(context, connection, job, ending) or [])]


def _give_up(context: Context, connection: Connection, job: LiveJob, missing: JobFile, reason: str) -> list[Name]:
    destination = (missing.wire or {}).get("destination", "")
    text = f"output {missing.lfn} did not reach {destination}: {reason}"
    columns: dict[str, Value] = {"ddmErrorCode": TRANSFER_FAILED, "ddmErrorDiag": text[:500]}
    return end_attempt(context, connection, job, Ending(Status.FAILED, _ACTOR, text, columns)) or []


def finish_jobs(context: Context) -> int:
    """Ask the adders what has become of the outputs of transferring jobs; returns how many jobs there are."""
    plugins = plugins_of(context.settings)
    if not plugins.move_outputs:
        return 0
    number, after = 0, 0
    while True:
        with context.database.reading() as connection:
            found = jobs.find_in_state(connection, Status.TRANSFERRING, after, _BATCH)
        if not found:
            return number
        after = found[-1].PandaID
        for job in found:
            if job.reportedStatus is not None:
                number += 1
                _ask(context, job)


def _ask(context: Context, job: LiveJob) -> None:
    with context.database.reading() as connection:
        row = jobs.read_job(connection, job.PandaID)
        moving = [file for file in files.read_files(connection, job.PandaID) if file.status == "moving"]
    if row is None:
        return
    adder = plugins_of(context.settings).adder(str(row["VO"] or ""))
    try:
        known = adder.arrived(row, moving)
    except Exception:  # a VO's own module may raise anything, and must not keep other jobs from being finished
        logger.exception("the adder of VO %s failed on job %s", row["VO"], job.PandaID)
        return
    if known:
        settle_transfers(context, job.PandaID, known, "the adder of its VO says so")
