"""Harvester's side: instances, all that is known of workers, commands, dialogs, metrics; resource types and counts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_Identifier = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_WATCHED = sa.text('"watchTime" IS NOT NULL')
_NEW = (
    "harvester_instances",
    "worker_jobs",
    "worker_statistics",
    "harvester_commands",
    "harvester_dialogs",
    "harvester_metrics",
    "resource_types",
    "job_statistics",
)


def upgrade() -> None:
    """Make the tables, and bring what pilots have said of their workers into the new one."""
    op.rename_table("workers", "workers_before")
    _make_workers()
    _take_over()
    op.drop_table("workers_before")
    _make_harvester()
    _make_traffic()
    _make_counts()


def downgrade() -> None:
    """Remove them. What is known of workers is lost: Harvester and pilots tell it again."""
    for name in (*_NEW, "workers"):
        op.drop_table(name)
    op.create_table(
        "workers",
        sa.Column("harvesterID", sa.String(length=64), nullable=False),
        sa.Column("workerID", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("site", sa.String(length=128), nullable=False),
        sa.Column("nodeID", sa.String(length=128)),
        sa.Column("startTime", sa.Double()),
        sa.Column("endTime", sa.Double()),
        sa.Column("modificationTime", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("harvesterID", "workerID"),
    )


def _take_over() -> None:
    names = {
        "harvesterID": "harvesterID",
        "workerID": "workerID",
        "status": "pilotStatus",
        "site": "computingSite",
        "nodeID": "nodeID",
        "startTime": "pilotStartTime",
        "endTime": "pilotEndTime",
        "modificationTime": "lastUpdate",
    }
    before = sa.table("workers_before", *(sa.column(name) for name in names))
    now = sa.table("workers", *(sa.column(name) for name in names.values()))
    op.execute(sa.insert(now).from_select(list(names.values()), sa.select(*(before.c[name] for name in names))))


def _make_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("harvesterID", sa.String(length=64), nullable=False),
        sa.Column("workerID", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=20)),
        sa.Column("batchID", sa.String(length=80)),
        sa.Column("computingSite", sa.String(length=128)),
        sa.Column("queueName", sa.String(length=128)),
        sa.Column("nCore", sa.Integer()),
        sa.Column("nJobs", sa.Integer()),
        sa.Column("jobType", sa.String(length=32)),
        sa.Column("resourceType", sa.String(length=16)),
        sa.Column("submitTime", sa.Double()),
        sa.Column("startTime", sa.Double()),
        sa.Column("endTime", sa.Double()),
        sa.Column("diagMessage", sa.String(length=500)),
        sa.Column("syncLevel", sa.Integer()),
        sa.Column("harvesterHost", sa.String(length=128)),
        sa.Column("submissionHost", sa.String(length=128)),
        sa.Column("computingElement", sa.String(length=128)),
        sa.Column("nodeID", sa.String(length=128)),
        sa.Column("nativeExitCode", sa.Integer()),
        sa.Column("nativeStatus", sa.String(length=80)),
        sa.Column("errorCode", sa.Integer()),
        sa.Column("minRamCount", sa.Integer()),
        sa.Column("stdOut", sa.String(length=500)),
        sa.Column("stdErr", sa.String(length=500)),
        sa.Column("batchLog", sa.String(length=500)),
        sa.Column("jdl", sa.String(length=500)),
        sa.Column("pilotStatus", sa.String(length=20)),
        sa.Column("pilotStartTime", sa.Double()),
        sa.Column("pilotEndTime", sa.Double()),
        sa.Column("lastUpdate", sa.Double(), nullable=False),
        sa.Column("watchTime", sa.Double()),
        sa.PrimaryKeyConstraint("harvesterID", "workerID"),
    )
    op.create_index("workers_by_queue", "workers", ["computingSite", "lastUpdate"])
    op.create_index("workers_by_update", "workers", ["lastUpdate"])
    op.create_index("workers_to_watch", "workers", ["watchTime"], sqlite_where=_WATCHED, postgresql_where=_WATCHED)
    op.create_table(
        "worker_jobs",
        sa.Column("harvesterID", sa.String(length=64), nullable=False),
        sa.Column("workerID", sa.String(length=64), nullable=False),
        sa.Column("PandaID", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("harvesterID", "workerID", "PandaID"),
    )
    op.create_index("worker_jobs_by_job", "worker_jobs", ["PandaID"])


def _make_harvester() -> None:
    op.create_table(
        "harvester_instances",
        sa.Column("harvesterID", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=128)),
        sa.Column("startTime", sa.Double()),
        sa.Column("sw_version", sa.String(length=50)),
        sa.Column("commit_stamp", sa.String(length=100)),
        sa.Column("hostname", sa.String(length=128)),
        sa.Column("commands", sa.JSON()),
        sa.Column("maxWorkerID", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("creationTime", sa.Double(), nullable=False),
        sa.Column("lastUpdate", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("harvesterID"),
    )
    op.create_table(
        "worker_statistics",
        sa.Column("harvesterID", sa.String(length=64), nullable=False),
        sa.Column("computingSite", sa.String(length=128), nullable=False),
        sa.Column("jobType", sa.String(length=32), nullable=False),
        sa.Column("resourceType", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("lastUpdate", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("harvesterID", "computingSite", "jobType", "resourceType", "status"),
    )


def _make_traffic() -> None:
    op.create_table(
        "harvester_commands",
        sa.Column("commandID", _Identifier, autoincrement=True, nullable=False),
        sa.Column("harvesterID", sa.String(length=64), nullable=False),
        sa.Column("command", sa.String(length=160), nullable=False),
        sa.Column("params", sa.JSON()),
        sa.Column("ackRequested", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("creationTime", sa.Double(), nullable=False),
        sa.Column("statusTime", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("commandID"),
    )
    op.create_index("harvester_commands_by_state", "harvester_commands", ["harvesterID", "status", "commandID"])
    op.create_index("harvester_commands_by_time", "harvester_commands", ["creationTime"])
    op.create_table(
        "harvester_dialogs",
        sa.Column("harvesterID", sa.String(length=64), nullable=False),
        sa.Column("diagID", _Identifier, nullable=False),
        sa.Column("moduleName", sa.String(length=100)),
        sa.Column("identifier", sa.String(length=100)),
        sa.Column("messageLevel", sa.String(length=10)),
        sa.Column("diagMessage", sa.String(length=500)),
        sa.Column("creationTime", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("harvesterID", "diagID"),
    )
    op.create_index("harvester_dialogs_by_time", "harvester_dialogs", ["creationTime"])
    op.create_table(
        "harvester_metrics",
        sa.Column("harvesterID", sa.String(length=64), nullable=False),
        sa.Column("creationTime", sa.Double(), nullable=False),
        sa.Column("hostName", sa.String(length=128), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("harvesterID", "creationTime", "hostName"),
    )
    op.create_index("harvester_metrics_by_time", "harvester_metrics", ["creationTime"])


def _make_counts() -> None:
    op.create_table(
        "resource_types",
        sa.Column("resource_name", sa.String(length=16), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("mincore", sa.Integer()),
        sa.Column("maxcore", sa.Integer()),
        sa.Column("minrampercore", sa.Integer()),
        sa.Column("maxrampercore", sa.Integer()),
        sa.PrimaryKeyConstraint("resource_name"),
    )
    op.create_table(
        "job_statistics",
        sa.Column("computingSite", sa.String(length=128), nullable=False),
        sa.Column("prodSourceLabel", sa.String(length=20), nullable=False),
        sa.Column("resource_type", sa.String(length=16), nullable=False),
        sa.Column("jobStatus", sa.String(length=15), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("maxPriority", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("computingSite", "prodSourceLabel", "resource_type", "jobStatus"),
    )
