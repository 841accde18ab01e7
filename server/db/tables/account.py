"""Who may call: the tokens that were given out, and the people and robots behind all credentials."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Double, Index, String, Table

from server.db.tables.base import metadata

#: Tokens that an operator has made (`pilotkit token create`). The token itself is not here, only its SHA-256.
tokens = Table(
    "tokens",
    metadata,
    Column("tokenID", String(16), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("roles", JSON, nullable=False),
    Column("queue", String(128), nullable=False),
    Column("label", String(20), nullable=False),
    Column("creationTime", Double, nullable=False),
    Column("createdBy", String(128), nullable=False),
    Column("endTime", Double, nullable=False),
    Column("revokedTime", Double),
    Column("revokedBy", String(128)),
    Index("tokens_by_name", "name"),
)

#: PanDA's USERS table, as far as we need it. `subject` is a certificate's name (DN), or issuer and subject of an ID
#: token; `rights` are the letters of GRIDPREF.
users = Table(
    "users",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("subject", String(512)),
    Column("roles", JSON, nullable=False),
    Column("rights", String(8), nullable=False),
    Column("status", String(10), nullable=False),
    Column("creationTime", Double, nullable=False),
    Column("modificationTime", Double, nullable=False),
    Index("users_by_subject", "subject", unique=True),
)
