"""Users list their own jobs without a look at everybody's."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add the index."""
    op.create_index("jobs_by_owner", "jobs", ["prodUserName", "PandaID"])


def downgrade() -> None:
    """Remove it."""
    op.drop_index("jobs_by_owner", "jobs")
