"""The rules of the retry module, and which job is the next attempt of which."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


_Identifier = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add them."""
    op.create_table(
        "retry_errors",
        sa.Column("ruleID", _Identifier, autoincrement=True, nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("errorSource", sa.String(length=20), nullable=False),
        sa.Column("errorCode", sa.Integer(), nullable=False),
        sa.Column("errorDiag", sa.String(length=256), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("architecture", sa.String(length=256), nullable=False),
        sa.Column("release", sa.String(length=64), nullable=False),
        sa.Column("workQueue", sa.String(length=64), nullable=False),
        sa.Column("VO", sa.String(length=16), nullable=False),
        sa.Column("description", sa.String(length=256)),
        sa.Column("creator", sa.String(length=128), nullable=False),
        sa.Column("modificationTime", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("ruleID"),
    )
    op.create_index("retry_errors_by_code", "retry_errors", ["errorCode"])
    op.create_table(
        "job_relations",
        sa.Column("PandaID", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("parentID", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("PandaID", "parentID"),
    )
    op.create_index("job_relations_by_parent", "job_relations", ["parentID"])


def downgrade() -> None:
    """Remove them."""
    op.drop_table("job_relations")
    op.drop_table("retry_errors")
