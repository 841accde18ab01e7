"""The life of a job: whose it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add it."""
    op.add_column("jobs", sa.Column("VO", sa.String(length=16)))


def downgrade() -> None:
    """Remove it."""
    op.drop_column("jobs", "VO")
