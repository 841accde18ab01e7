"""What the service itself keeps count of."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, String, Table

from server.db.tables.base import metadata

#: Which daemon runs a synchronised script now, and when it was last begun anywhere.
daemon_locks = Table(
    "daemon_locks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", String(128)),
    Column("lockedUntil", Double, nullable=False),
    Column("begunTime", Double, nullable=False),
)

#: The machines that have a daemon, and when each was last seen.
daemons = Table(
    "daemons",
    metadata,
    Column("node", String(128), primary_key=True),
    Column("version", String(32), nullable=False),
    Column("seenTime", Double, nullable=False),
)

#: Number ranges: PandaIDs must be known before their rows are made, because file names may contain them.
counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
