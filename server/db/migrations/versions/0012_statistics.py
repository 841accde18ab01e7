"""Counts of jobs know global shares. They are a copy, made anew every minute: nothing is lost with the old ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the table anew."""
    op.drop_table("job_statistics")
    _make(sa.Column("gshare", sa.String(length=32), nullable=False))


def downgrade() -> None:
    """Make it as it was."""
    op.drop_table("job_statistics")
    _make()


def _make(*more: sa.Column[str]) -> None:
    keys = ("computingSite", "prodSourceLabel", "resource_type", "jobStatus", *(column.name for column in more))
    op.create_table(
        "job_statistics",
        sa.Column("computingSite", sa.String(length=128), nullable=False),
        sa.Column("prodSourceLabel", sa.String(length=20), nullable=False),
        sa.Column("resource_type", sa.String(length=16), nullable=False),
        sa.Column("jobStatus", sa.String(length=15), nullable=False),
        *more,
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("maxPriority", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(*keys),
    )
