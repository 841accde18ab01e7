"""Datasets that jobs write to."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, String, Table

from server.db.tables.base import metadata, partial

#: Those that somebody named; what is in them is in the catalogue. The numbers are those of the last look. Each user has
#: their own, even where two choose one name.
datasets = Table(
    "datasets",
    metadata,
    Column("scope", String(64), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("prodUserName", String(250), primary_key=True),
    Column("state", String(10), nullable=False),  # open, closed
    Column("VO", String(16)),  # of the first job that named it
    Column("creationTime", Double, nullable=False),
    Column("stateChangeTime", Double, nullable=False),
    Column("ready", BigInteger, nullable=False),
    Column("promised", BigInteger, nullable=False),
    Column("lost", BigInteger, nullable=False),
    Column("fsize", BigInteger, nullable=False),  # of what is ready, in bytes
    Column("lookTime", Double),  # when the dataset manager is to look at it; NULL: nothing is expected
    Index("datasets_by_age", "creationTime"),
)
partial("datasets_by_time", datasets.c.lookTime, where='"lookTime" IS NOT NULL')
