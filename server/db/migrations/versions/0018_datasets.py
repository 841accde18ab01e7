"""Datasets that jobs name, and which of them each output belongs to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

_DUE = sa.text('"lookTime" IS NOT NULL')
_NAMED = sa.text("dataset IS NOT NULL")
_NAMED_OUTPUT = sa.text("type <> 'input' AND dataset IS NOT NULL")
#: What a job's files have stood in when nobody had named anything.
_OWN = "scope || '.' || \"PandaID\""


def upgrade() -> None:
    """Make the table, and fill it from the jobs that are not in the archive; their datasets are looked at soon."""
    op.create_table(
        "datasets",
        sa.Column("scope", sa.String(length=64), primary_key=True),
        sa.Column("name", sa.String(length=255), primary_key=True),
        sa.Column("prodUserName", sa.String(length=250), primary_key=True),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("VO", sa.String(length=16)),
        sa.Column("creationTime", sa.Double(), nullable=False),
        sa.Column("stateChangeTime", sa.Double(), nullable=False),
        sa.Column("ready", sa.BigInteger(), nullable=False),
        sa.Column("promised", sa.BigInteger(), nullable=False),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.Column("fsize", sa.BigInteger(), nullable=False),
        sa.Column("lookTime", sa.Double()),
    )
    op.create_index("datasets_by_age", "datasets", ["creationTime"])
    op.create_index("datasets_by_time", "datasets", ["lookTime"], sqlite_where=_DUE, postgresql_where=_DUE)
    op.add_column("catalogue", sa.Column("dataset", sa.String(length=255)))
    op.add_column("catalogue", sa.Column("prodUserName", sa.String(length=250)))
    op.execute(f"UPDATE files SET dataset = NULL WHERE type <> 'input' AND dataset = {_OWN}")
    op.execute(
        'WITH RECURSIVE ancestors(job, ancestor) AS (SELECT "PandaID", "parentID" FROM job_relations UNION '
        'SELECT a.job, r."parentID" FROM ancestors a JOIN job_relations r ON r."PandaID" = a.ancestor) '
        "UPDATE files SET dataset = NULL WHERE type <> 'input' AND dataset IS NOT NULL AND "
        '"PandaID" IN (SELECT job FROM ancestors) AND EXISTS (SELECT 1 FROM ancestors a WHERE '
        "a.job = files.\"PandaID\" AND files.dataset = files.scope || '.' || a.ancestor)"
    )
    op.execute(
        'UPDATE catalogue SET dataset = f.dataset, "prodUserName" = j."prodUserName" '
        'FROM files f JOIN jobs j ON j."PandaID" = f."PandaID" '
        "WHERE f.dataset IS NOT NULL AND f.type <> 'input' "
        'AND f."PandaID" = catalogue."PandaID" AND f.scope = catalogue.scope AND f.lfn = catalogue.lfn'
    )
    op.create_index(
        "catalogue_by_dataset",
        "catalogue",
        ["scope", "dataset", "lfn"],
        sqlite_where=_NAMED,
        postgresql_where=_NAMED,
    )
    op.create_index(
        "files_by_dataset",
        "files",
        ["scope", "dataset"],
        sqlite_where=_NAMED_OUTPUT,
        postgresql_where=_NAMED_OUTPUT,
    )
    op.execute(
        'INSERT INTO datasets (scope, name, "prodUserName", state, "VO", "creationTime", "stateChangeTime", ready, '
        'promised, lost, fsize, "lookTime") '
        'SELECT f.scope, f.dataset, j."prodUserName", \'open\', j."VO", j."creationTime", j."creationTime", 0, 0, 0, '
        '0, j."creationTime" FROM (SELECT f.scope, f.dataset, MIN(f."PandaID") AS first FROM files f '
        'JOIN jobs j ON j."PandaID" = f."PandaID" WHERE f.type <> \'input\' AND f.dataset IS NOT NULL '
        'GROUP BY f.scope, f.dataset, j."prodUserName") f JOIN jobs j ON j."PandaID" = f.first'
    )


def downgrade() -> None:
    """Remove it."""
    op.drop_index("files_by_dataset", "files")
    op.drop_index("catalogue_by_dataset", "catalogue")
    op.drop_column("catalogue", "dataset")
    op.drop_column("catalogue", "prodUserName")
    op.drop_table("datasets")
