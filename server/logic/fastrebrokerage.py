"""Fast rebrokerage (chapter 12.1.3): a queue that has far too many jobs of a share gives some of them to others.

Too many are more than each of three thresholds allows: a number of jobs, a part of all the share's queued jobs, and a
multiple of those that run. Where the jobs go, if anywhere, the broker of their VO says. It is asked about so many jobs
as are too many, those first that would wait longest. Nothing is counted for this while no share has a threshold.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from server.db import dispatch, information, jobs
from server.db.jobs import LiveJob
from server.db.statistics import JobCount
from server.db.tables import NO_SHARE
from server.logic import rebrokerage, statistics
from server.logic.configuration import number
from server.logic.context import Context
from server.logic.plugins import plugins_of
from server.logic.states import Status
from server.logic.timeouts import has_time_outs

#: Jobs a queue has not begun, as chapter 12.1.3 names them; and those that a pilot has begun, or is about to.
QUEUED = frozenset({Status.DEFINED, Status.ASSIGNED, Status.ACTIVATED, Status.STARTING})
RUNNING = frozenset({Status.SENT, Status.RUNNING})
#: Jobs the brokers are asked about in one run: each costs a transaction, and the next run is minutes away.
_MOST = 200
#: So many of a queue's newest jobs are looked at for those of a share, where no index has the share.
_SEEN = 1000


class Thresholds(NamedTuple):
    """What operators allow (component `watcher` of the configuration).

    Attributes:
        ratio: queued jobs for each that runs.
        part: the part of a share's queued jobs that one queue may have.
        jobs: by share, how many queued jobs a queue may have whatever the others say; shares that are not here keep
            their jobs where they are.
    """

    ratio: float
    part: float
    jobs: Mapping[str, float]


class Surplus(NamedTuple):
    """The jobs of a share that a queue has too many."""

    queue: str
    share: str
    queued: int
    running: int
    number: int


def surpluses(counts: Sequence[JobCount], thresholds: Thresholds) -> list[Surplus]:
    """What queues have too many, the largest surplus first."""
    queued: Counter[tuple[str, str]] = Counter()
    running: Counter[tuple[str, str]] = Counter()
    total: Counter[str] = Counter()
    for count in counts:
        if count.jobStatus in QUEUED:
            queued[count.computingSite, count.gshare] += count.n
            total[count.gshare] += count.n
        elif count.jobStatus in RUNNING:
            running[count.computingSite, count.gshare] += count.n
    found: list[Surplus] = []
    for (queue, share), there in queued.items():
        least = thresholds.jobs.get(share)
        if least is None:
            continue
        run = running[queue, share]
        allowed = math.floor(max(least, thresholds.part * total[share], thresholds.ratio * run))
        if there > allowed:
            found.append(Surplus(queue, share, there, run, there - allowed))
    return sorted(found, key=lambda one: (-one.number, one.queue, one.share))


def rebroker(context: Context) -> int:
    """Have brokers look at the jobs that queues have too many; returns how many have left."""
    thresholds = _thresholds(context)
    if not thresholds.jobs or not plugins_of(context.settings).rebrokers:
        return 0
    counts = statistics.job_counts(context)
    with context.database.reading() as connection:
        descriptions = {queue.name: queue.description for queue in information.read_queues(connection)}
    found = [one for one in surpluses(counts, thresholds) if has_time_outs(descriptions.get(one.queue, {}))]
    left = 0
    for surplus in found:
        reason = f"{surplus.queued} jobs of share {surplus.share} are queued there, and {surplus.running} run"
        # A part for each: a broker that knows no better queue for the first must not keep the others waiting.
        chosen = _last_in_line(context, surplus, min(surplus.number, max(_MOST // len(found), 1)))
        left += sum(rebrokerage.send_elsewhere(context, job, reason) for job in chosen)
    return left


def _thresholds(context: Context) -> Thresholds:
    with context.database.reading() as connection:
        leaves = context.policy.current(connection, context.clock()).tree.leaves
    names = [*(leaf.name for leaf in leaves), NO_SHARE]
    limits = {name: number(context, "watcher", f"FAST_REBRO_THRESHOLD_NQUEUE_{name}") for name in names}
    ratio, part = (number(context, "watcher", f"FAST_REBRO_THRESHOLD_{key}") for key in ("NQNR_RATIO", "NQUEUE_FRAC"))
    return Thresholds(ratio or 0.0, part or 0.0, {name: limit for name, limit in limits.items() if limit is not None})


def _last_in_line(context: Context, surplus: Surplus, wanted: int) -> list[LiveJob]:
    """The jobs of a share that would wait longest in a queue, as far as they may leave it."""
    with context.database.reading() as connection:
        ids = dispatch.find_last(connection, surplus.queue, surplus.share, wanted)
        for status in (Status.ASSIGNED, Status.DEFINED):
            if len(ids) < wanted:
                more = jobs.find_newest_of_share(connection, surplus.queue, status, surplus.share, _SEEN)
                ids += more[: wanted - len(ids)]
        found = jobs.read_live_many(connection, ids)
    return [found[job_id] for job_id in ids if job_id in found]
