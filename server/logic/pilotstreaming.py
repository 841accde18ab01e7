"""Unified pilot streaming: how many new workers each queue needs, of which kinds (chapter 8.3.1, client.md section 3).

A queue whose `workflow` is pull_ups and whose `capability` is ucore leaves it to this server what Harvester submits.
This server wants half as many workers waiting as there are running, so that the queue grows and shrinks with what it
gets done; at least one, so that a queue that has been idle wakes up; and not more than there are jobs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.db import information, workers
from server.db.information import Queue
from server.db.statistics import JobCount
from server.logic import statistics
from server.logic.configuration import number
from server.logic.context import Context
from server.logic.harvesters import ALIVE, add_order, alive_instances
from server.logic.policy import ranking
from server.logic.states import Status

#: Job type and resource type of a worker.
Kind = tuple[str, str]

#: prodSourceLabels whose jobs run in workers for users; all others are production's.
_USERS = frozenset({"user", "panda"})
#: What an idle queue is kept awake with.
_ANY_KIND: Kind = ("managed", "SCORE")
_RUNNING = "running"
#: Workers that will run before long.
_WAITING = frozenset({"pending", "ready", "submitted", "idle"})
_ACTOR = "pilot_streaming"


@dataclass(frozen=True)
class Policy:
    """What operators may set (component `pilotstreaming` of the configuration).

    Attributes:
        waiting_per_running: workers that shall wait for each that runs.
        least: workers that wait at least.
        most: new workers of a queue in one round, at most.
    """

    waiting_per_running: float = 0.5
    least: int = 1
    most: int = 1000


def new_workers(
    running: int, waiting: Mapping[Kind, int], queued: Sequence[tuple[Kind, int]], policy: Policy
) -> dict[str, dict[str, int]]:
    """How many new workers a queue needs: {job type: {resource type: number}}; empty for none.

    Args:
        running: its workers that run.
        waiting: those that will.
        queued: its activated jobs, the most urgent first; a kind may come several times.
    """
    there = sum(waiting.values())
    wanted = max(math.ceil(running * policy.waiting_per_running), policy.least)
    left = min(wanted, max(sum(n for _, n in queued), policy.least)) - there
    left = min(left, policy.most)
    found: dict[str, dict[str, int]] = {}
    unclaimed = dict(waiting)
    for kind, jobs in queued or [(_ANY_KIND, policy.least)]:
        for_these = min(unclaimed.get(kind, 0), jobs)  # these workers wait for these jobs, and for no others
        unclaimed[kind] = unclaimed.get(kind, 0) - for_these
        some = min(left, jobs - for_these)
        if some > 0:
            of_type = found.setdefault(kind[0], {})
            of_type[kind[1]] = of_type.get(kind[1], 0) + some
            left -= some
    return found


def stream(context: Context) -> int:
    """Order the workers that queues need, and fresh numbers for the next round; returns how many workers."""
    policy = _policy(context)
    counts = statistics.job_counts(context)
    with context.database.reading() as connection:
        turns = ranking(context.policy.current(connection, context.clock()), processes=1)
        queued = _queued(counts, turns)
        queues = [queue for queue in information.read_queues(connection) if _is_streamed(queue)]
        alive = alive_instances(connection, context.clock())
        rows = workers.read_statistics(connection, since=context.clock() - ALIVE)
    ordered = 0
    for queue in queues:
        ordered += _stream_queue(context, queue, alive, rows, queued.get(queue.name, []), policy)
    return ordered


def _policy(context: Context) -> Policy:
    keys = ("WAITING_PER_RUNNING", "MIN_WAITING", "MAX_NEW_WORKERS")
    share, least, most = (number(context, "pilotstreaming", key) or 0 for key in keys)
    return Policy(share, int(least), int(most))


def _is_streamed(queue: Queue) -> bool:
    description = queue.description
    takes_jobs = queue.state == "ACTIVE" and queue.status not in ("offline", "paused")
    return takes_jobs and (description.get("workflow"), description.get("capability")) == ("pull_ups", "ucore")


def _queued(counts: Sequence[JobCount], turns: Sequence[str]) -> dict[str, list[tuple[Kind, int]]]:
    """Activated jobs by queue, those first whose share's turn it is, and of a share the most urgent ones.

    Args:
        turns: shares in the order in which they are served.
    """
    turn = {share: place for place, share in enumerate(turns)}
    found: dict[str, list[tuple[Kind, int]]] = {}
    activated = [count for count in counts if count.jobStatus == Status.ACTIVATED]
    for count in sorted(activated, key=lambda count: (turn.get(count.gshare, len(turn)), -count.maxPriority)):
        kind = ("user" if count.prodSourceLabel in _USERS else "managed", count.resource_type)
        found.setdefault(count.computingSite, []).append((kind, count.n))
    return found


def _stream_queue(
    context: Context,
    queue: Queue,
    alive: set[str],
    rows: Sequence[Mapping[str, object]],
    queued: Sequence[tuple[Kind, int]],
    policy: Policy,
) -> int:
    """One queue's orders; returns how many workers.

    New workers are ordered of one instance, the one with the fewest that wait; where there are several they take turns
    by that. An instance that has not said lately how many workers it has is asked, and gets no other order.
    """
    here = [row for row in rows if row["computingSite"] == queue.name]
    named = str(queue.description.get("harvester") or "")
    serving = alive & ({named} if named else {str(row["harvesterID"]) for row in here})
    waiting: dict[Kind, int] = {}
    by_instance = {str(row["harvesterID"]): 0 for row in here if row["harvesterID"] in serving}
    running = 0
    for row in here:
        count, kind = int(str(row["n"])), (str(row["jobType"]), str(row["resourceType"]))
        running += count if row["status"] == _RUNNING else 0
        if row["status"] in _WAITING:
            waiting[kind] = waiting.get(kind, 0) + count
            if row["harvesterID"] in by_instance:
                by_instance[str(row["harvesterID"])] += count
    wanted = new_workers(running, waiting, queued, policy) if by_instance else {}
    with context.database.durable() as connection:
        now = context.clock()
        for instance in sorted(serving):
            add_order(connection, instance, "REPORT_WORKER_STATS", queue.name, None, _ACTOR, now)
        if wanted:
            chosen = min(sorted(by_instance), key=lambda instance: by_instance[instance])
            add_order(connection, chosen, "SET_N_WORKERS_JOBTYPE", queue.name, wanted, _ACTOR, now)
    return sum(sum(of_type.values()) for of_type in wanted.values())
