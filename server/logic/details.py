"""What people and programs ask about jobs: lists, states, and everything about one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from server.db import archive, eventmerges, files, information, jobs, records, retries, workers
from server.db.archive import JobRecord
from server.db.database import Connection
from server.logic import events, pilotreport
from server.logic.context import Context, Identity
from server.logic.dispatch import iso_time
from server.logic.errors import BadField, NotAllowed, NotFound
from server.logic.explain import explain
from server.logic.harvesters import with_times
from server.logic.names import shown
from server.logic.queues import no_queue
from server.logic.states import CLAIMED, KILL, OVER, Status

_TIMES = frozenset({"creationTime", "stateChangeTime", "modificationTime", "startTime", "endTime", "time"})
#: Columns nobody but this server needs; the claim is the pilot's secret.
_HIDDEN = frozenset({"classID", "claimID", "requestID", "requestNr", "watchTime"})
_METRIC = re.compile(r"(\S+?)=(\S+)")
#: Most jobs of one list.
MOST_JOBS = 100_000


def list_jobs(
    context: Context,
    identity: Identity,
    *,
    statuses: Sequence[str] = (),
    queue: str | None = None,
    job_ids: Sequence[int] = (),
    user: str = "",
    task_id: int = 0,
    limit: int = 1000,
) -> list[dict[str, object]]:
    """The newest jobs that fulfil the conditions; users see their own. Archived ones are found by their numbers alone.

    Args:
        user, task_id: whose jobs, and of which task; empty or 0 for all.

    Raises:
        BadField: there is no such state.
        NotFound: there is no such queue.
    """
    strange = next((status for status in statuses if status not in set(Status)), None)
    if strange is not None:
        raise BadField("status", f"{shown(strange)} is no state of a job; the states are {', '.join(Status)}")
    owner = (user or None) if identity.may_act_for("") else identity.name
    if user and owner != user:
        raise NotAllowed(f"The jobs of {shown(user)} are not yours: operators see them.")
    with context.database.reading() as connection:
        if queue is not None and information.read_queue(connection, queue) is None:
            raise NotFound(no_queue(queue))
        found = jobs.list_jobs(
            connection,
            statuses=statuses,
            queue=queue,
            job_ids=job_ids,
            owner=owner,
            task_id=task_id,
            limit=max(0, min(limit, MOST_JOBS)),
        )
        if job_ids:
            missing = set(job_ids) - {int(str(job["PandaID"])) for job in found}
            archived = archive.list_archived(connection, sorted(missing), statuses, queue, owner)
            found += [job for job in archived if task_id in (0, job["taskID"])]
            found = sorted(found, key=lambda job: int(str(job["PandaID"])), reverse=True)[: max(0, limit)]
    return [_shown(job) for job in found]


def job_details(context: Context, job_id: int, identity: Identity) -> dict[str, object]:
    """Everything about a job: columns, history, files, error, metrics, transfers, autopsies, what it waits for.

    Raises:
        NotFound: there is no such job.
        NotAllowed: it belongs to somebody else.
    """
    with context.database.reading() as connection:
        known = _read_job(connection, job_id) or archive.read_archived(connection, job_id)
        if known is None:
            raise NotFound(f"There is no job {job_id}.")
        job, definition, history, texts, of_job, ranges = known
        if not identity.may_act_for(str(job["prodUserName"])):
            raise NotAllowed(f"Job {job_id} belongs to {job['prodUserName']}.")
        waiting = [file for file in of_job if file.status == "waiting"]
        entries = files.find_entries(connection, {(file.scope, file.lfn) for file in waiting})
        parents = retries.find_parents(connection, job_id)
        children = retries.find_children(connection, job_id)
        merge = eventmerges.read_merge(connection, job_id)
        of_worker = workers.find_workers_of_job(connection, job_id)
    shown_keys = ("type", "scope", "lfn", "local", "endpoint", "guid", "fsize", "checksum", "surl", "status")
    return {
        **definition,
        **_shown(job),
        "history": [_shown(change) for change in history],
        "files": [
            {
                "attemptNr": file.attemptNr,
                "dataset": file.dataset_name,
                **{key: getattr(file, key) for key in shown_keys},
            }
            for file in of_job
        ],
        "error": explain(job),
        "metrics": metrics_of(job),
        "waiting_for": [
            {
                "scope": file.scope,
                "lfn": file.lfn,
                "PandaID": entries[file.scope, file.lfn].PandaID if (file.scope, file.lfn) in entries else None,
            }
            for file in waiting
        ],
        "transfers": pilotreport.transfers_in(texts),
        "autopsies": pilotreport.autopsies_in(texts),
        "events": ranges,
        "merge": {"state": merge.state, "reason": merge.reason} if merge else None,
        "parents": [{"PandaID": one.parentID, "kind": one.kind} for one in parents],
        "children": [{"PandaID": one.PandaID, "kind": one.kind} for one in children],
        "workers": [{key: value for key, value in with_times(row).items() if key != "watchTime"} for row in of_worker],
        "texts": [text for text in texts if text["kind"] not in pilotreport.KINDS],
    }


def _read_job(connection: Connection, job_id: int) -> JobRecord | None:
    """A live job, in the form that the archive has."""
    job = jobs.read_job(connection, job_id)
    if job is None:
        return None
    return JobRecord(
        job,
        jobs.read_definition(connection, job_id),
        jobs.read_history(connection, job_id),
        jobs.read_texts(connection, job_id),
        files.read_files(connection, job_id),
        events.count_of_job(connection, job),
    )


def metrics_of(job: Mapping[str, object]) -> dict[str, object]:
    """A job's figures by name: its measured columns and the name=value pairs of jobMetrics, numbers as numbers."""
    columns = ("cpuConsumptionTime", "actualCoreCount", "meanCoreCount", "nEvents", "nInputFiles", "memory_leak")
    figures: dict[str, object] = {key: job[key] for key in columns if job.get(key) is not None}
    for key, value in job.items():
        if value is not None and re.match(r"(max|avg|tot|rate)[A-Z]+\Z", key):
            figures[key] = value
    for name, text in _METRIC.findall(str(job.get("jobMetrics") or "")):
        try:
            figures[name] = float(text) if "." in text or "e" in text.lower() else int(text)
        except ValueError:
            figures[name] = text
    return figures


def job_states(context: Context, job_ids: Iterable[int]) -> list[tuple[int, str, int]]:
    """(PandaID, state, attempt) for each job asked for; an unknown one has the state "" and attempt 0."""
    wanted = list(job_ids)
    with context.database.reading() as connection:
        found = records.look_up_many(connection, wanted)
    states = []
    for job_id in wanted:
        job = found.get(job_id)
        states.append((job_id, job.jobStatus, job.attemptNr) if job else (job_id, "", 0))
    return states


def job_orders(context: Context, job_ids: Iterable[int]) -> list[dict[str, str | int]]:
    """State, attempt and order of each job asked for; who has an unknown job is told to end it."""
    wanted = list(job_ids)
    with context.database.reading() as connection:
        found = records.look_up_many(connection, wanted)
    orders: list[dict[str, str | int]] = []
    for job_id in wanted:
        job = found.get(job_id)
        if job is None:
            orders.append({"job_id": job_id, "status": "unknown", "attempt_number": 0, "command": KILL})
            continue
        over = job.jobStatus in OVER and job.jobStatus != "finished"
        command = job.commandToPilot if job.jobStatus in CLAIMED else KILL if over else None
        attempt: dict[str, str | int] = {"job_id": job_id, "status": job.jobStatus, "attempt_number": job.attemptNr}
        orders.append({**attempt, "command": command or "NULL"})
    return orders


def _shown(row: Mapping[str, object]) -> dict[str, object]:
    """A row for people: times as text, inner matters left out."""
    return {
        key: iso_time(value) if key in _TIMES and isinstance(value, float) else value
        for key, value in row.items()
        if key not in _HIDDEN
    }
