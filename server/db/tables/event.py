"""Pieces of work of the event service."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Double, Index, Integer, String, Table

from server.db.tables.base import Identifier, metadata, partial
from server.db.tables.job import DIAG

#: Pieces of work of the event service. `PandaID` and `jobAttempt` say who has one.
event_ranges = Table(
    "event_ranges",
    metadata,
    Column("rangeID", Identifier, primary_key=True, autoincrement=True),
    # Whose jobs may have it: "job 7", or "jobset 3/12 of user" (task, jobset).
    Column("pool", String(320), nullable=False),
    Column("PandaID", BigInteger),
    Column("jobAttempt", Integer),
    Column("attemptNr", Integer, nullable=False),
    Column("maxAttempt", Integer, nullable=False),
    Column("fileID", BigInteger),
    Column("startEvent", BigInteger, nullable=False),
    Column("lastEvent", BigInteger, nullable=False),
    Column("status", String(10), nullable=False),
    Column("facts", JSON),  # what its pilot says: coreCount, cpuConsumptionTime, objstoreID, zipFile
    Column("archive", String(255)),  # LFN of the file that its output is in
    Column("mergeID", BigInteger),  # PandaID of the job that merges it
    Column("modificationTime", Double, nullable=False),
    Index("event_ranges_by_pool", "pool", "status", "rangeID"),
    Index("event_ranges_by_job", "PandaID", "status"),
)
#: Which jobs of the event service share which ranges. A row goes with its job into the archive, and is not kept there.
event_jobs = Table(
    "event_jobs",
    metadata,
    Column("PandaID", Identifier, primary_key=True, autoincrement=False),
    Column("pool", String(320), nullable=False),
    Index("event_jobs_by_pool", "pool"),
)

#: How the ranges of a pool are merged once all of them are settled, where a submitter has said so.
event_merges = Table(
    "event_merges",
    metadata,
    Column("pool", String(320), primary_key=True),
    Column("prodUserName", String(250), nullable=False),
    Column("plan", JSON, nullable=False),  # job: what is submitted, without its inputs; max_inputs, max_size
    Column("state", String(10), nullable=False),  # waiting, merging, merged, failed
    Column("reason", String(DIAG), nullable=False),
    Column("creationTime", Double, nullable=False),
    Column("lookTime", Double),  # when the merger must look at it next; empty while there is nothing to do
)
partial("event_merges_by_time", event_merges.c.lookTime, where='"lookTime" IS NOT NULL')
partial("event_ranges_by_archive", event_ranges.c.archive, where="archive IS NOT NULL")
partial("event_ranges_by_merge", event_ranges.c.mergeID, where='"mergeID" IS NOT NULL')
