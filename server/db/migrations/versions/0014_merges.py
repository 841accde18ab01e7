"""Which archive the output of an event range is in, and which job merges it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_ARCHIVED = sa.text("archive IS NOT NULL")
_MERGED = sa.text('"mergeID" IS NOT NULL')


def upgrade() -> None:
    """Add the columns, with their indexes."""
    op.add_column("event_ranges", sa.Column("archive", sa.String(length=255)))
    op.add_column("event_ranges", sa.Column("mergeID", sa.BigInteger()))
    for name, column, where in (
        ("event_ranges_by_archive", "archive", _ARCHIVED),
        ("event_ranges_by_merge", "mergeID", _MERGED),
    ):
        op.create_index(name, "event_ranges", [column], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """Remove them."""
    for name in ("event_ranges_by_archive", "event_ranges_by_merge"):
        op.drop_index(name, "event_ranges")
    for column in ("archive", "mergeID"):
        op.drop_column("event_ranges", column)
