"""How many jobs each queue has that are not over.

A count reads every job there is, so it is made at most once a minute, by whoever asks first, and kept in the database
for everybody.
"""

from __future__ import annotations

import uuid

from server.db import locks, statistics
from server.db.statistics import JobCount
from server.logic.context import Context
from server.logic.states import OVER, Status

#: How old a count may be, in s. Harvester asks every 10 minutes, and pilot streaming every 5.
FRESH = 60
#: A count that takes longer than this, in s, is made again by somebody else.
_PATIENCE = 300
_LOCK = "job_statistics"
_ACTIVE = tuple(status for status in Status if status not in OVER)


def job_counts(context: Context) -> list[JobCount]:
    """The jobs that are not over, counted not more than a minute ago; while one counts, others get the last count."""
    owner = uuid.uuid4().hex
    with context.database.durable() as connection:
        waiting = locks.take_turn(connection, _LOCK, owner, FRESH, _PATIENCE, context.clock())
    with context.database.reading() as connection:
        if waiting:
            return statistics.read_counts(connection)
        counts = statistics.count_jobs(connection, _ACTIVE)
    with context.database.durable() as connection:
        statistics.store_counts(connection, counts)
        locks.give_back(connection, _LOCK, owner)
    return sorted(counts)


def by_queue(context: Context) -> dict[str, dict[str, int]]:
    """{queue: {state: number}}."""
    found: dict[str, dict[str, int]] = {}
    for count in job_counts(context):
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
