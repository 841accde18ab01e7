"""Global shares, what jobs are sorted by beside them, and nodes that get a pause."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_CLASS_COLUMNS = [
    "computingSite",
    "gshare",
    "prodSourceLabel",
    "processingType",
    "resource_type",
    "workingGroup",
    "countryGroup",
    "architecture",
    "coreCount",
    "minRamCount",
    "maxDiskCount",
    "maxWalltime",
]
_RULE_COLUMNS = ("prodSourceLabel", "workingGroup", "campaign", "processingType", "transPath", "resource_type")
_THROTTLED = sa.text('"throttledUntil" IS NOT NULL')


def upgrade() -> None:
    """Make the tables and columns; the daemon sorts the jobs that are queued anew."""
    for table, columns in (
        ("jobs", ("countryGroup", "architecture")),
        ("job_classes", ("workingGroup", "countryGroup", "architecture")),
    ):
        op.add_column(table, sa.Column("gshare", sa.String(32), nullable=False, server_default="Undefined"))
        for name in columns:
            length = 128 if name == "architecture" else 64
            op.add_column(table, sa.Column(name, sa.String(length), nullable=False, server_default=""))
    op.drop_index("job_classes_once", "job_classes")
    op.create_index("job_classes_once", "job_classes", _CLASS_COLUMNS, unique=True)
    op.create_table(
        "global_shares",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("parent", sa.String(32)),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        *(sa.Column(name, sa.String(256)) for name in _RULE_COLUMNS),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "share_usage",
        sa.Column("gshare", sa.String(32), nullable=False),
        sa.Column("running", sa.BigInteger(), nullable=False),
        sa.Column("cores", sa.BigInteger(), nullable=False),
        sa.Column("hs06", sa.Double(), nullable=False),
        sa.Column("queued", sa.BigInteger(), nullable=False),
        sa.Column("countedTime", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("gshare"),
    )
    _make_nodes()
    op.execute("INSERT INTO counters (name, value) SELECT 'retag', 0 WHERE EXISTS (SELECT 1 FROM jobs)")


def _make_nodes() -> None:
    op.create_table(
        "node_failures",
        sa.Column("computingSite", sa.String(128), nullable=False),
        sa.Column("host", sa.String(128), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("pauses", sa.Integer(), nullable=False),
        sa.Column("failedTime", sa.Double(), nullable=False),
        sa.Column("throttledUntil", sa.Double()),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.PrimaryKeyConstraint("computingSite", "host"),
    )
    op.create_index(
        "nodes_throttled",
        "node_failures",
        ["throttledUntil"],
        sqlite_where=_THROTTLED,
        postgresql_where=_THROTTLED,
    )


def downgrade() -> None:
    """Remove them; classes that differed only in what is gone become one when their jobs are activated again."""
    raise NotImplementedError("classes cannot be put together again; restore a backup")
