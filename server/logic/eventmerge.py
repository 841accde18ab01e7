"""Merging in the event service: what becomes of ranges that are done, by the jobs that merge their archives.

A merge job (`eventServiceMerge`) names archives of ranges among its inputs. Ranges in them that are done, and are of
the same user's jobs, belong to it from its submission on, unless another merge job has them that is not over. When it
has finished they are `merged`; when it is killed they are `discarded`; and those in an archive that it reports as
corrupted are made again (chapter 7.1.3).
"""

from __future__ import annotations

from collections.abc import Sequence

from server.db import eventmerges, events, jobs, retries
from server.db.database import Connection
from server.db.jobs import LiveJob
from server.db.retries import Relation
from server.logic.states import OVER, Status

#: How a merge job is related to the jobs whose ranges it merges.
RELATION = "merge"


def is_merge(word: object) -> bool:
    """Whether a job's `eventServiceMerge` says that it merges."""
    return str(word).lower() == "true"


def claim_ranges(connection: Connection, job_id: int, user: str, archives: Sequence[str], now: float) -> int:
    """Give the ranges in these archives to a merge job; returns how many, in the caller's transaction."""
    found = events.find_archived(connection, archives)
    owners = jobs.read_live_many(
        connection, {number for one in found for number in (one.PandaID, one.mergeID) if number}
    )
    mine: list[int] = []
    makers: set[int] = set()
    for one in found:
        maker, merger = owners.get(one.PandaID or 0), owners.get(one.mergeID or 0)
        if maker is not None and maker.prodUserName == user and (merger is None or merger.jobStatus in OVER):
            mine.append(one.rangeID)
            makers.add(maker.PandaID)
    events.set_merge(connection, mine, job_id)
    for maker_id in sorted(makers):
        retries.add_relation(connection, Relation(job_id, maker_id, RELATION, now))
    return len(mine)


def settle_merge(connection: Connection, job: LiveJob, status: Status, now: float) -> None:
    """An attempt of a job ends: if it is a merge job, its ranges are merged, of no use, or to be made again."""
    if not events.has_merge(connection, job.PandaID):
        return
    eventmerges.look_soon_after(connection, job.PandaID, now)
    if status == Status.FINISHED:
        events.end_merge(connection, job.PandaID, "merged", now)
    elif job.killedBy is not None or status in (Status.CANCELLED, Status.CLOSED):
        events.end_merge(connection, job.PandaID, "discarded", now)
    else:
        row = jobs.read_job(connection, job.PandaID) or {}
        corrupted = [name.strip() for name in str(row.get("corruptedFiles") or "").split(",")]
        events.reopen_corrupted(connection, job.PandaID, [name for name in corrupted if name], now)
