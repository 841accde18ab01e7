"""The event service's ranges."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_Identifier = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "event_ranges",
        sa.Column("rangeID", _Identifier, autoincrement=True, nullable=False),
        sa.Column("pool", sa.String(length=320), nullable=False),
        sa.Column("PandaID", sa.BigInteger()),
        sa.Column("jobAttempt", sa.Integer()),
        sa.Column("attemptNr", sa.Integer(), nullable=False),
        sa.Column("maxAttempt", sa.Integer(), nullable=False),
        sa.Column("fileID", sa.BigInteger()),
        sa.Column("startEvent", sa.BigInteger(), nullable=False),
        sa.Column("lastEvent", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("facts", sa.JSON()),
        sa.Column("modificationTime", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("rangeID"),
    )
    op.create_index("event_ranges_by_pool", "event_ranges", ["pool", "status", "rangeID"])
    op.create_index("event_ranges_by_job", "event_ranges", ["PandaID", "status"])


def downgrade() -> None:
    """Remove it."""
    op.drop_table("event_ranges")
