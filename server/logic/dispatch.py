"""Handing out jobs: a claim for the best job that fits, or the reason why there is none and when to ask again."""

from __future__ import annotations

import datetime
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from server.db import dispatch, files, information, jobs, workers
from server.db.database import Connection, Taken
from server.db.dispatch import ClaimedJob, Head
from server.db.information import Queue
from server.db.jobs import Change, Value
from server.logic import configuration, permits
from server.logic.choice import Choice, age_ratio
from server.logic.context import Context, Identity
from server.logic.definition import wire_definition
from server.logic.fence import is_claimant
from server.logic.matching import JobRequest, Obstacle, nearest
from server.logic.names import shown
from server.logic.policy import Policy
from server.logic.queues import number_of, output_endpoint, without_storage
from server.logic.states import CLAIMED, Status
from server.logic.throttle import host_of, pauses_hold

#: When to ask again where jobs of the queue wait for inputs of others, in s: those may be done any moment.
SOON = 3
#: When to ask again at a queue that is closed, in s.
LATER = 300
#: How often to look again when others took the jobs that were seen; each time somebody got one, so this ends soon.
_TRIES = 20
#: Most jobs of one request: Harvester asks for some ten, and an answer must stay small.
MOST_JOBS = 100


@dataclass(frozen=True)
class NoJob:
    """Why there is no job: a word, a sentence, and when to ask again, in seconds."""

    reason: str
    sentence: str
    retry_after: int


def acquire_jobs(
    context: Context, request: JobRequest, identity: Identity, server: str
) -> list[dict[str, object]] | NoJob:
    """Give jobs to a pilot: at most as many as it wants, at least one, or the reason why there is none.

    The same request id gets the same jobs as long as they are claimed (promise D2).

    Args:
        server: this server's address as the pilot knows it.

    Raises:
        NotAllowed: the caller's credential is for another queue or label.
    """
    request = permits.bound(request, identity)
    if request.request_id and (answers := _claimed_before(context, request, identity, server)):
        return answers
    for attempt in range(_TRIES):
        found = _acquire(context, request, identity, server, again=attempt > 0)
        if found is not None:
            return found
    return NoJob("busy", "other pilots were faster, again and again; ask again", 1)


def _acquire(
    context: Context, request: JobRequest, identity: Identity, server: str, *, again: bool
) -> list[dict[str, object]] | NoJob | None:
    """One try; None if others took the jobs that were seen, so that it is worth another look.

    Args:
        again: others took those of an earlier try: all classes are looked at this time.
    """
    ratio, pauses = age_ratio(context), pauses_hold(context)
    # What is seen here is compared again when it is claimed: it need not be of the same moment.
    with context.database.looking() as connection:
        queue = information.read_queue(connection, request.queue)
        policy = context.policy.current(connection, context.clock())
        closed = _closed(request.queue, queue) or (_pause(context, request, policy) if pauses else None)
        if queue is None or closed is not None:
            return closed or NoJob("queue_unknown", "", LATER)
        choice = Choice(context, request, queue, policy, ratio)
        offer = choice.look_around(connection) if again else choice.look(connection)
        if not offer:
            return _nothing(context, connection, request, choice.misfits)
    try:
        claimed = _claim(context, choice, offer, identity)
    except Taken:  # the same request, sent twice, was faster with its other copy
        return _claimed_before(context, request, identity, server) or None
    return _answers(context, claimed, queue, server) if claimed else None


def _closed(name: str, queue: Queue | None) -> NoJob | None:
    """Why a queue gives out no jobs at all, if so."""
    if queue is None:
        return NoJob("queue_unknown", f"this server has no queue {shown(name)}", LATER)
    if queue.state != "ACTIVE":
        return NoJob("queue_inactive", f"queue {name} is in state {queue.state}", LATER)
    if queue.status in ("offline", "paused"):
        return NoJob(f"queue_{queue.status}", f"queue {name} is {queue.status}", LATER)
    if complaint := without_storage(queue):
        return NoJob("storage_closed", complaint, LATER)
    return None


def _pause(context: Context, request: JobRequest, policy: Policy) -> NoJob | None:
    """Why a node gets no jobs for now, if so."""
    pause = policy.pauses.get((request.queue, host_of(request.node))) if policy.pauses and request.node else None
    left = 0 if pause is None else math.ceil(pause.until - context.clock())
    return None if pause is None or left <= 0 else NoJob("throttled", pause.reason, left)


def _nothing(context: Context, connection: Connection, request: JobRequest, misfits: list[list[Obstacle]]) -> NoJob:
    """The reason why nothing fits."""
    retry_after = context.settings.retry_after
    if misfits:
        obstacle = nearest(misfits)
        return NoJob(obstacle.reason, obstacle.sentence, retry_after)
    if request.task_id is not None and dispatch.find_heads(connection, request.queue, None, None):
        return NoJob("task", f"no job of task {request.task_id} is queued in {request.queue}", retry_after)
    if request.user is not None and dispatch.find_heads(connection, request.queue, None, None):
        return NoJob("user", f"no job of user {request.user} is queued in {request.queue}", retry_after)
    if dispatch.has_jobs(connection, request.queue, Status.ASSIGNED):
        return NoJob("waiting_for_inputs", f"the jobs of {request.queue} still wait for their inputs", SOON)
    return NoJob("nothing_queued", f"no job is queued in {request.queue}", retry_after)


def _claim(context: Context, choice: Choice, offer: Sequence[Head], identity: Identity) -> list[ClaimedJob]:
    """Claim up to the wanted number of jobs in one transaction that is on disk afterwards."""
    request, queue = choice.request, choice.queue
    claimed: list[ClaimedJob] = []
    wanted = min(max(request.number, 1), MOST_JOBS)
    lease = _lease(context, queue)
    with context.database.durable() as connection:
        now = context.clock()
        values = _claim_values(request, lease, identity, now)
        while offer:
            values |= {"claimID": uuid.uuid4().hex, "requestNr": len(claimed) if request.request_id else None}
            job = choice.claim(connection, offer, values)
            if job is None:
                break
            claimed.append(job)
            offer = choice.look(connection) if len(claimed) < wanted else ()
        actor = request.node or request.scheduler_id or "pilot"
        reason = f"given to a pilot at {request.queue}"
        changes = [
            Change(int(job["PandaID"] or 0), int(job["attemptNr"] or 0), Status.SENT, now, actor, reason)
            for job, _ in claimed
        ]
        jobs.add_history(connection, changes)
        if request.harvester_id and request.worker_id:
            ids = [int(job["PandaID"] or 0) for job, _ in claimed]
            workers.link_jobs(connection, [(request.harvester_id, request.worker_id, job_id) for job_id in ids])
    return claimed


def _claim_values(request: JobRequest, lease: _Lease, identity: Identity, now: float) -> dict[str, Value]:
    return {
        "jobStatus": Status.SENT,
        "requestID": request.request_id or None,
        "claimedBy": identity.name or None,
        "heartbeat": lease.heartbeat,
        "lostHeartbeat": lease.lost_heartbeat,
        "schedulerID": request.scheduler_id or None,
        "harvesterID": request.harvester_id or None,
        "workerID": request.worker_id or None,
        "node": request.node or None,
        "stateChangeTime": now,
        "modificationTime": now,
        "startTime": now,
        "watchTime": now + min(lease.sent_timeout, lease.lost_heartbeat),
    }


class _Lease(NamedTuple):
    """The times of a claim, in s: from heartbeat to heartbeat, and until a job is lost that is silent, or only sent."""

    heartbeat: int
    lost_heartbeat: int
    sent_timeout: float


def _lease(context: Context, queue: Queue) -> _Lease:
    """The times of a claim in a queue (wire.md section 8).

    The queue's own numbers win, then HEARTBEAT_TIMEOUT_<workflow> of the configuration table (hours), then settings.
    """
    lost = number_of(queue.description, "lost_heartbeat")
    workflow = queue.description.get("workflow")
    if lost <= 0 and workflow:
        hours = configuration.number(context, "watcher", f"HEARTBEAT_TIMEOUT_{workflow}")
        lost = int((hours or 0) * 3600)
    if lost <= 0:
        lost = context.settings.lost_heartbeat
    heartbeat = number_of(queue.description, "heartbeat")
    sent = configuration.number(context, "watcher", "TIMEOUT_sent") or 0
    return _Lease(heartbeat if heartbeat > 0 else context.settings.heartbeat, lost, sent * 3600)


def _claimed_before(context: Context, request: JobRequest, identity: Identity, server: str) -> list[dict[str, object]]:
    """The answer this request got before, if its jobs are still claimed, and by this caller."""
    with context.database.looking() as connection:
        found = dispatch.find_claimed(connection, request.request_id)
        claimed = [job for job in found if job.columns["jobStatus"] in _HELD and _is_for(job.columns, identity)]
        if not claimed:
            return []
        queue = information.read_queue(connection, str(claimed[0].columns["computingSite"]))
    return _answers(context, claimed, queue, server)


_HELD = CLAIMED | {Status.HOLDING}


def _is_for(job: Mapping[str, Value], identity: Identity) -> bool:
    return is_claimant(str(job["claimedBy"] or ""), identity)


def _answers(
    context: Context, claimed: Sequence[ClaimedJob], queue: Queue | None, server: str
) -> list[dict[str, object]]:
    endpoint = output_endpoint(queue) if queue else ""
    answers: list[dict[str, object]] = []
    with context.database.looking() as connection:
        for job, definition in claimed:
            job_id = int(job["PandaID"] or 0)
            answer = wire_definition(
                job, definition, files.read_files(connection, job_id), server=server, endpoint=endpoint
            )
            answer |= {
                "claim_id": job["claimID"],
                "lease_end": iso_time(float(job["modificationTime"] or 0) + int(job["lostHeartbeat"] or 0)),
                "next_heartbeat": job["heartbeat"],
            }
            answers.append(answer)
    return answers


def iso_time(seconds: float | None) -> str | None:
    """A time as ISO 8601 in UTC with milliseconds, in the form every Python we support can read back."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")
