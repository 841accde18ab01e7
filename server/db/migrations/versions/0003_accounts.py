"""Tokens, and users with their names, rights and bans."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "tokens",
        sa.Column("tokenID", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("queue", sa.String(length=128), nullable=False),
        sa.Column("label", sa.String(length=20), nullable=False),
        sa.Column("creationTime", sa.Double(), nullable=False),
        sa.Column("createdBy", sa.String(length=128), nullable=False),
        sa.Column("endTime", sa.Double(), nullable=False),
        sa.Column("revokedTime", sa.Double()),
        sa.Column("revokedBy", sa.String(length=128)),
        sa.PrimaryKeyConstraint("tokenID"),
    )
    op.create_index("tokens_by_name", "tokens", ["name"])
    op.create_table(
        "users",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("subject", sa.String(length=512)),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("rights", sa.String(length=8), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("creationTime", sa.Double(), nullable=False),
        sa.Column("modificationTime", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("users_by_subject", "users", ["subject"], unique=True)


def downgrade() -> None:
    """Remove them."""
    op.drop_table("users")
    op.drop_table("tokens")
