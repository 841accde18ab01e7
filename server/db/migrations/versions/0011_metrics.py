"""Numbers of jobs over time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "job_metrics",
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("jobStatus", sa.String(length=15), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", "time", "jobStatus"),
    )
    op.create_index("job_metrics_by_time", "job_metrics", ["time"])


def downgrade() -> None:
    """Remove it."""
    op.drop_table("job_metrics")
