"""What comes from the experiment's information service (CRIC): its sources, what each said last, links of sites."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Double, Index, Integer, String, Table, Text

from server.db.tables.base import Identifier, metadata

#: What is asked, one row each (queues, storages, blacklist, sites, software, network), and how that went.
sources = Table(
    "sources",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("address", String(1024), nullable=False),
    # what is sent with the next request, so that only something new is answered
    Column("validator", String(1024), nullable=False),
    # of the last answer that was taken over
    Column("digest", String(64), nullable=False),
    Column("entries", Integer, nullable=False),
    Column("fetchedTime", Double),
    Column("complaints", Text, nullable=False),
    # of the last request, whatever came of it
    Column("checkedTime", Double, nullable=False),
    Column("failure", Text, nullable=False),
)

#: What each source said of each name, as it said it: the last good copy.
source_entries = Table(
    "source_entries",
    metadata,
    Column("source", String(16), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("entry", JSON, nullable=False),
    Column("modificationTime", Double, nullable=False),
    # since when it is not in the answers any more
    Column("vanishedTime", Double),
)

#: How well two sites are connected: PanDA's NETWORK_MATRIX_KV (chapter 8 of its documents).
network_matrix = Table(
    "network_matrix",
    metadata,
    Column("src", String(128), primary_key=True),
    Column("dst", String(128), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("value", Double, nullable=False),
    Column("time", Double, nullable=False),
)

#: Every change of a queue's status or state, and who made it.
queue_history = Table(
    "queue_history",
    metadata,
    Column("changeID", Identifier, primary_key=True, autoincrement=True),
    Column("queue", String(128), nullable=False),
    Column("time", Double, nullable=False),
    Column("status", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("reason", String(500), nullable=False),
    Index("queue_history_by_queue", "queue", "changeID"),
)
