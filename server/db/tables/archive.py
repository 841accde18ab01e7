"""Jobs that were over long ago, out of the way of those that are not."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Double, Integer, String, Table

from server.db.tables.base import Identifier, metadata

#: A job with everything that was stored of it, in one row. On PostgreSQL each day is a partition of its own.
archived_jobs = Table(
    "archived_jobs",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),  # when it ended, days since 1970 (UTC)
    Column("PandaID", BigInteger, primary_key=True, autoincrement=False),
    # what lists of jobs ask for, and people who look into the table
    Column("jobStatus", String(15), nullable=False),
    Column("computingSite", String(128), nullable=False),
    Column("prodUserName", String(250), nullable=False),
    Column("taskID", BigInteger, nullable=False),
    Column("endTime", Double),
    # table -> its rows of this job, as {column: value}
    Column("rows", JSON, nullable=False),
    postgresql_partition_by="RANGE (day)",
)

#: The days there are, and which jobs a day has: a job is looked for only where it can be.
archived_days = Table(
    "archived_days",
    metadata,
    Column("day", Identifier, primary_key=True, autoincrement=False),
    Column("firstID", BigInteger, nullable=False),
    Column("lastID", BigInteger, nullable=False),
    Column("jobs", BigInteger, nullable=False),
)
