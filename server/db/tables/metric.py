"""Numbers of jobs over time."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, String, Table

from server.db.tables.base import metadata

#: How many jobs a queue or a share had in a state at a time; of states that are final, how many got there since the
#: time before.
job_metrics = Table(
    "job_metrics",
    metadata,
    Column("kind", String(8), primary_key=True),  # queue, share
    Column("name", String(128), primary_key=True),
    Column("time", Double, primary_key=True),
    Column("jobStatus", String(15), primary_key=True),
    Column("n", BigInteger, nullable=False),
    Index("job_metrics_by_time", "time"),
)
