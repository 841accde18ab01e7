"""Queues, storages, the machines jobs run on, users' sandboxes, and the configuration table."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Double, Index, String, Table

from server.db.tables.base import metadata

queues = Table(
    "queues",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("status", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    Column("description", JSON, nullable=False),
    # {RSE: why} of those of its storages to which nothing may be written now; beside the description, so that getJob
    # has it at no cost
    Column("excluded", JSON(none_as_null=True)),
    Column("modificationTime", Double, nullable=False),
)

storages = Table(
    "storages",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("description", JSON, nullable=False),
    Column("modificationTime", Double, nullable=False),
)

#: What pilots say of the machines they run on: one row for the node itself (kind "node"), one for each GPU model.
worker_nodes = Table(
    "worker_nodes",
    metadata,
    Column("site", String(128), primary_key=True),
    Column("host_name", String(128), primary_key=True),
    Column("kind", String(160), primary_key=True),
    Column("facts", JSON, nullable=False),
    Column("modificationTime", Double, nullable=False),
)

cache_files = Table(
    "cache_files",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("creationTime", Double, nullable=False),
    Column("usedTime", Double, nullable=False),
    Index("cache_files_by_content", "size", "checksum"),
)

#: PanDA's gdpconfig table (chapter 10 of its documents).
config = Table(
    "config",
    metadata,
    Column("application", String(64), primary_key=True),
    Column("component", String(64), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("vo", String(16), primary_key=True),
    Column("value", String(256), nullable=False),
    Column("type", String(16), nullable=False),
    Column("description", String(256)),
)
