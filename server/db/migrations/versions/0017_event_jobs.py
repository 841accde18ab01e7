"""Which jobs share which event ranges, and how those are merged."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

_DUE = sa.text('"lookTime" IS NOT NULL')
#: The names of pools, as `server.logic.events.pool_of` makes them.
_POOLS = (
    "'job ' || \"PandaID\"",
    "'jobset ' || \"taskID\" || '/' || \"jobsetID\" || ' of ' || \"prodUserName\"",
)


def upgrade() -> None:
    """Make the tables; jobs that are there already are found by the names of their pools."""
    op.create_table(
        "event_jobs",
        sa.Column(
            "PandaID",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("pool", sa.String(length=320), nullable=False),
    )
    op.create_index("event_jobs_by_pool", "event_jobs", ["pool"])
    op.create_table(
        "event_merges",
        sa.Column("pool", sa.String(length=320), primary_key=True),
        sa.Column("prodUserName", sa.String(length=250), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("creationTime", sa.Double(), nullable=False),
        sa.Column("lookTime", sa.Double()),
    )
    op.create_index("event_merges_by_time", "event_merges", ["lookTime"], sqlite_where=_DUE, postgresql_where=_DUE)
    for pool in _POOLS:
        op.execute(
            f'INSERT INTO event_jobs ("PandaID", pool) SELECT "PandaID", {pool} FROM jobs '
            f"WHERE {pool} IN (SELECT pool FROM event_ranges)"
        )


def downgrade() -> None:
    """Remove them."""
    op.drop_table("event_merges")
    op.drop_table("event_jobs")
