"""What comes from the information service: sources and their entries, the network matrix, the queues' history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_Identifier = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables, and a place for a queue's excluded storages."""
    op.create_table(
        "sources",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=1024), nullable=False),
        sa.Column("validator", sa.String(length=1024), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("fetchedTime", sa.Double()),
        sa.Column("complaints", sa.Text(), nullable=False),
        sa.Column("checkedTime", sa.Double(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "source_entries",
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("entry", sa.JSON(), nullable=False),
        sa.Column("modificationTime", sa.Double(), nullable=False),
        sa.Column("vanishedTime", sa.Double()),
        sa.PrimaryKeyConstraint("source", "name"),
    )
    op.create_table(
        "network_matrix",
        sa.Column("src", sa.String(length=128), nullable=False),
        sa.Column("dst", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("src", "dst", "key"),
    )
    op.create_table(
        "queue_history",
        sa.Column("changeID", _Identifier, autoincrement=True, nullable=False),
        sa.Column("queue", sa.String(length=128), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.PrimaryKeyConstraint("changeID"),
    )
    op.create_index("queue_history_by_queue", "queue_history", ["queue", "changeID"])
    op.add_column("queues", sa.Column("excluded", sa.JSON()))


def downgrade() -> None:
    """Remove them."""
    op.drop_column("queues", "excluded")
    for table in ("queue_history", "network_matrix", "source_entries", "sources"):
        op.drop_table(table)
