"""Pieces of work of the event service."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Double, Index, Integer, String, Table

from server.db.tables.base import Identifier, metadata

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
    Column("modificationTime", Double, nullable=False),
    Index("event_ranges_by_pool", "pool", "status", "rangeID"),
    Index("event_ranges_by_job", "PandaID", "status"),
)
