"""Numbers of jobs over time, for plots: what each queue and share had, and how many jobs ended."""

from __future__ import annotations

from collections import Counter

from server.db import metrics, shares
from server.db.metrics import Metric
from server.logic import configuration, statistics
from server.logic.context import Context
from server.logic.dispatch import iso_time
from server.logic.errors import BadField
from server.logic.names import shown

KINDS = ("queue", "share")
#: Most numbers of one answer.
MOST_METRICS = 100_000
#: The first time, jobs that ended in so many s before count.
_FIRST = 300
_HOUR, _DAY = 3600, 86400


def collect_metrics(context: Context) -> int:
    """Store the numbers of now, and forget those that are too old; returns how many are stored."""
    counts = statistics.job_counts(context)
    now = context.clock()
    queued: Counter[tuple[str, str]] = Counter()
    for count in counts:
        queued[count.computingSite, count.jobStatus] += count.n
    with context.database.reading() as connection:
        last = metrics.last_time(connection)
        ended = metrics.count_ended(connection, now - _FIRST if last is None else last, now)
        usage = shares.read_usage(connection)
    found = [Metric("queue", queue, now, status, n) for (queue, status), n in sorted(queued.items())]
    found += [Metric("queue", queue, now, status, n) for queue, status, n in sorted(ended)]
    for share in usage:  # as global_shares counted them less than a minute ago
        found += [Metric("share", share.gshare, now, "activated", share.queued)]
        found += [Metric("share", share.gshare, now, "running", share.running)]
    keep = configuration.number(context, "metrics", "KEEP_DAYS") or 0
    with context.database.durable() as connection:
        metrics.store_metrics(connection, found)
        metrics.forget_metrics(connection, now - keep * _DAY)
    return len(found)


def read_metrics(context: Context, kind: str, name: str, hours: float, limit: int) -> list[dict[str, object]]:
    """The numbers of the last hours, the newest first, each with kind, name, time, status and n.

    Args:
        kind: queue or share.
        name: of one of them; empty for all.

    Raises:
        BadField: there is no such kind.
    """
    if kind not in KINDS:
        raise BadField("kind", f"must be {' or '.join(KINDS)}, not {shown(kind)}")
    since = context.clock() - hours * _HOUR
    with context.database.reading() as connection:
        found = metrics.read_metrics(connection, kind, name, since, max(0, min(limit, MOST_METRICS)))
    return [
        {"kind": one.kind, "name": one.name, "time": iso_time(one.time), "status": one.jobStatus, "n": one.n}
        for one in found
    ]
