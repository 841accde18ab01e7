"""The archive of jobs that are over, and the index by which they are found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_Identifier = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_OVER = sa.text("(\"jobStatus\" || '') IN ('finished', 'failed', 'cancelled', 'closed')")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "archived_jobs",
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("PandaID", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("jobStatus", sa.String(length=15), nullable=False),
        sa.Column("computingSite", sa.String(length=128), nullable=False),
        sa.Column("prodUserName", sa.String(length=250), nullable=False),
        sa.Column("taskID", sa.BigInteger(), nullable=False),
        sa.Column("endTime", sa.Double()),
        sa.Column("rows", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("day", "PandaID"),
        postgresql_partition_by="RANGE (day)",
    )
    op.create_table(
        "archived_days",
        sa.Column("day", _Identifier, autoincrement=False, nullable=False),
        sa.Column("firstID", sa.BigInteger(), nullable=False),
        sa.Column("lastID", sa.BigInteger(), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day"),
    )
    op.create_index("jobs_over", "jobs", ["stateChangeTime"], sqlite_where=_OVER, postgresql_where=_OVER)


def downgrade() -> None:
    """Remove them."""
    op.drop_index("jobs_over", "jobs")
    op.drop_table("archived_days")
    op.drop_table("archived_jobs")
