"""Nodes on which jobs fail fast and for the site's own reasons, so that they get a pause."""

from __future__ import annotations

from sqlalchemy import Column, Double, Integer, String, Table

from server.db.tables.base import metadata, partial

node_failures = Table(
    "node_failures",
    metadata,
    Column("computingSite", String(128), primary_key=True),
    Column("host", String(128), primary_key=True),
    # failures since the last success, and pauses since then
    Column("failures", Integer, nullable=False),
    Column("pauses", Integer, nullable=False),
    Column("failedTime", Double, nullable=False),
    Column("throttledUntil", Double),
    Column("reason", String(500), nullable=False),
)
partial("nodes_throttled", node_failures.c.throttledUntil, where='"throttledUntil" IS NOT NULL')
