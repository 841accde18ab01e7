"""What follows failed attempts: the rules of the retry module, and which job is the next attempt of which."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Index, Integer, String, Table

from server.db.tables.base import Identifier, metadata

#: PanDA's RETRYERRORS (chapter 20 of its documents). An empty text of the scope stands for everything.
retry_errors = Table(
    "retry_errors",
    metadata,
    Column("ruleID", Identifier, primary_key=True, autoincrement=True),
    Column("action", String(32), nullable=False),
    Column("errorSource", String(20), nullable=False),
    Column("errorCode", Integer, nullable=False),
    Column("errorDiag", String(256), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("architecture", String(256), nullable=False),
    Column("release", String(64), nullable=False),
    Column("workQueue", String(64), nullable=False),
    Column("VO", String(16), nullable=False),
    Column("description", String(256)),
    Column("creator", String(128), nullable=False),
    Column("modificationTime", Double, nullable=False),
    Index("retry_errors_by_code", "errorCode"),
)

#: Which job goes on as which: the next attempt of a task's job is a job of its own, for instance.
job_relations = Table(
    "job_relations",
    metadata,
    Column("PandaID", BigInteger, primary_key=True, autoincrement=False),
    Column("parentID", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),  # retry, recovery, merge
    Column("time", Double, nullable=False),
    Index("job_relations_by_parent", "parentID"),
)
