"""The jobs of a task are listed without a look at all others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

_OF_A_TASK = sa.text('"taskID" > 0')


def upgrade() -> None:
    """Add the index."""
    op.create_index("jobs_of_task", "jobs", ["taskID", "PandaID"], sqlite_where=_OF_A_TASK, postgresql_where=_OF_A_TASK)


def downgrade() -> None:
    """Remove it."""
    op.drop_index("jobs_of_task", "jobs")
