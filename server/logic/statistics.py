"""How many jobs each queue has that are not over, or have ended within the last hour.

A count reads every job that is not over, so it is made at most once a minute where there are many, by the daemon or
whoever asks first, and kept in the database for everybody.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from server.db import information, locks, statistics
from server.db.statistics import Counted, JobCount
from server.logic.context import Context
from server.logic.dispatch import iso_time
from server.logic.states import OVER, Status

#: How old a count may be, in s. Harvester asks every 10 minutes, and pilot streaming every 5.
FRESH = 60
#: Jobs that are counted in far less than a second: for people a count may be as many s old as it has thousands of jobs.
_SOME = 1000
#: For so long, in s, a job that is over is in the count of its queue.
ENDED = 3600
#: A count that takes longer than this, in s, is made again by somebody else.
_PATIENCE = 300
_LOCK = "job_statistics"
_ACTIVE = tuple(status for status in Status if status not in OVER)


def job_counts(context: Context) -> list[JobCount]:
    """The jobs that are not over, counted not more than a minute ago; while one counts, others get the last count."""
    counted = _counted(context, lambda _known: FRESH)
    return [count for count in counted.counts if count.jobStatus not in OVER]


def list_queues(context: Context) -> list[dict[str, object]]:
    """A line for each queue, with the number of its jobs by state.

    Returns:
        Among others `jobs`: {state: number} of those that are not over or ended within the last hour, and `counted`:
        when that was. Few jobs are counted now; of many it is the daemon's count, about a minute old.
    """
    counted = _counted(context, _age_for_people)
    counts = _by_queue(counted.counts)
    with context.database.reading() as connection:
        queues = information.read_queues(connection)
    return [
        {
            "name": queue.name,
            "status": queue.status,
            "state": queue.state,
            **{key: queue.description.get(key) for key in ("resource_type", "corecount", "maxrss")},
            "jobs": counts.get(queue.name, {}),
            "counted": iso_time(counted.time),
        }
        for queue in queues
    ]


def _age_for_people(counts: Sequence[JobCount]) -> float:
    """How old a count may be, in s. Where counting takes long nobody waits for it while there is a daemon."""
    age = sum(count.n for count in counts) // _SOME
    return age if age < FRESH else 2 * FRESH


def _counted(context: Context, age: Callable[[Sequence[JobCount]], float]) -> Counted:
    """The last count, or a new one if it is too old.

    Args:
        age: of a count, how old it may be, in s.
    """
    owner, now = uuid.uuid4().hex, context.clock()
    with context.database.reading() as connection:
        last = statistics.read_counts(connection)
    fresh = age(last.counts)
    if last.time <= now < last.time + fresh:
        return last
    with context.database.durable() as connection:
        waiting = locks.take_turn(connection, _LOCK, owner, fresh, _PATIENCE, now)
    if waiting:
        return last
    with context.database.reading() as connection:
        counts = [*statistics.count_jobs(connection, _ACTIVE), *statistics.count_ended(connection, now - ENDED)]
    with context.database.durable() as connection:
        statistics.store_counts(connection, counts, now)
        locks.give_back(connection, _LOCK, owner)
    return Counted(now, sorted(counts))


def by_queue(context: Context) -> dict[str, dict[str, int]]:
    """{queue: {state: number}} of the jobs that are not over."""
    return _by_queue(job_counts(context))


def _by_queue(counts: Sequence[JobCount]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for count in counts:
        of_queue = found.setdefault(count.computingSite, {})
        of_queue[count.jobStatus] = of_queue.get(count.jobStatus, 0) + count.n
    return found


def by_label(context: Context) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
    """{queue: {prodSourceLabel: {resource type: {state: number}}}}."""
    found: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for count in job_counts(context):
        of_label = found.setdefault(count.computingSite, {}).setdefault(count.prodSourceLabel, {})
        of_type = of_label.setdefault(count.resource_type, {})
        of_type[count.jobStatus] = of_type.get(count.jobStatus, 0) + count.n
    return found
