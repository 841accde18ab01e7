"""Files on their way are found by their names."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_MOVING = sa.text("status = 'moving'")


def upgrade() -> None:
    """Make the index."""
    op.create_index("files_moving", "files", ["scope", "lfn"], sqlite_where=_MOVING, postgresql_where=_MOVING)


def downgrade() -> None:
    """Remove it."""
    op.drop_index("files_moving", "files")
