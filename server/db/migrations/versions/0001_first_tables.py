"""The first tables. What is written here stays as it is; later changes are migrations of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Parts = tuple[sa.Column[object] | sa.PrimaryKeyConstraint, ...]
_Identifier = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ACTIVATED = sa.text("\"jobStatus\" = 'activated'")
_REQUESTED = sa.text('"requestID" IS NOT NULL')
_WATCHED = sa.text('"watchTime" IS NOT NULL')
_WAITING = sa.text("status = 'waiting'")
_GIVEN = sa.text("type = 'input' AND status = 'ready'")
_BEST_FIRST: tuple[sa.ColumnElement[object] | str, ...] = (sa.literal_column('"currentPriority" DESC'), "PandaID")

_CACHE_FILES: _Parts = (
    sa.Column("name", sa.String(length=255), nullable=False),
    sa.Column("owner", sa.String(length=128), nullable=False),
    sa.Column("size", sa.BigInteger(), nullable=False),
    sa.Column("checksum", sa.BigInteger(), nullable=False),
    sa.Column("creationTime", sa.Double(), nullable=False),
    sa.Column("usedTime", sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint("name"),
)
_CATALOGUE: _Parts = (
    sa.Column("scope", sa.String(length=64), nullable=False),
    sa.Column("lfn", sa.String(length=255), nullable=False),
    sa.Column("status", sa.String(length=10), nullable=False),
    sa.Column("PandaID", sa.BigInteger(), nullable=False),
    sa.Column("endpoint", sa.String(length=128)),
    sa.Column("guid", sa.String(length=36)),
    sa.Column("fsize", sa.BigInteger()),
    sa.Column("checksum", sa.String(length=64)),
    sa.Column("surl", sa.String(length=1024)),
    sa.Column("modificationTime", sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint("scope", "lfn"),
)
_CONFIG: _Parts = (
    sa.Column("application", sa.String(length=64), nullable=False),
    sa.Column("component", sa.String(length=64), nullable=False),
    sa.Column("key", sa.String(length=64), nullable=False),
    sa.Column("vo", sa.String(length=16), nullable=False),
    sa.Column("value", sa.String(length=256), nullable=False),
    sa.Column("type", sa.String(length=16), nullable=False),
    sa.Column("description", sa.String(length=256)),
    sa.PrimaryKeyConstraint("application", "component", "key", "vo"),
)
_COUNTERS: _Parts = (
    sa.Column("name", sa.String(length=32), nullable=False),
    sa.Column("value", sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint("name"),
)
_DAEMON_LOCKS: _Parts = (
    sa.Column("name", sa.String(length=64), nullable=False),
    sa.Column("owner", sa.String(length=128)),
    sa.Column("lockedUntil", sa.Double(), nullable=False),
    sa.Column("begunTime", sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint("name"),
)
_FILES: _Parts = (
    sa.Column("fileID", _Identifier, autoincrement=True, nullable=False),
    sa.Column("PandaID", sa.BigInteger(), nullable=False),
    sa.Column("attemptNr", sa.Integer(), nullable=False),
    sa.Column("type", sa.String(length=10), nullable=False),
    sa.Column("status", sa.String(length=10), nullable=False),
    sa.Column("scope", sa.String(length=64), nullable=False),
    sa.Column("lfn", sa.String(length=255), nullable=False),
    sa.Column("local", sa.String(length=255)),
    sa.Column("dataset", sa.String(length=255)),
    sa.Column("endpoint", sa.String(length=128)),
    sa.Column("guid", sa.String(length=36)),
    sa.Column("fsize", sa.BigInteger()),
    sa.Column("checksum", sa.String(length=64)),
    sa.Column("surl", sa.String(length=1024)),
    sa.Column("wire", sa.JSON()),
    sa.PrimaryKeyConstraint("fileID"),
)
_JOB_CLASSES: _Parts = (
    sa.Column("classID", _Identifier, autoincrement=True, nullable=False),
    sa.Column("computingSite", sa.String(length=128), nullable=False),
    sa.Column("prodSourceLabel", sa.String(length=20), nullable=False),
    sa.Column("processingType", sa.String(length=64), nullable=False),
    sa.Column("resource_type", sa.String(length=16), nullable=False),
    sa.Column("coreCount", sa.Integer(), nullable=False),
    sa.Column("minRamCount", sa.Integer(), nullable=False),
    sa.Column("maxDiskCount", sa.Integer(), nullable=False),
    sa.Column("maxWalltime", sa.Integer(), nullable=False),
    sa.Column("usedTime", sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint("classID"),
)
_JOB_DEFINITIONS: _Parts = (
    sa.Column("PandaID", _Identifier, autoincrement=False, nullable=False),
    sa.Column("definition", sa.JSON(), nullable=False),
    sa.PrimaryKeyConstraint("PandaID"),
)
_JOB_HISTORY: _Parts = (
    sa.Column("historyID", _Identifier, autoincrement=True, nullable=False),
    sa.Column("PandaID", sa.BigInteger(), nullable=False),
    sa.Column("attemptNr", sa.Integer(), nullable=False),
    sa.Column("status", sa.String(length=15), nullable=False),
    sa.Column("time", sa.Double(), nullable=False),
    sa.Column("actor", sa.String(length=128), nullable=False),
    sa.Column("reason", sa.String(length=500), nullable=False),
    sa.PrimaryKeyConstraint("historyID"),
)
_JOB_TEXTS: _Parts = (
    sa.Column("PandaID", _Identifier, autoincrement=False, nullable=False),
    sa.Column("attemptNr", sa.Integer(), autoincrement=False, nullable=False),
    sa.Column("kind", sa.String(length=16), nullable=False),
    sa.Column("text", sa.Text(), nullable=False),
    sa.Column("time", sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint("PandaID", "attemptNr", "kind"),
)
_JOBS: _Parts = (
    sa.Column("PandaID", _Identifier, autoincrement=False, nullable=False),
    sa.Column("jobStatus", sa.String(length=15), nullable=False),
    sa.Column("attemptNr", sa.Integer(), nullable=False),
    sa.Column("maxAttempt", sa.Integer(), nullable=False),
    sa.Column("failedAttempt", sa.Integer(), server_default="0", nullable=False),
    sa.Column("computingSite", sa.String(length=128), nullable=False),
    sa.Column("jobName", sa.String(length=255)),
    sa.Column("prodUserName", sa.String(length=250), nullable=False),
    sa.Column("prodSourceLabel", sa.String(length=20), nullable=False),
    sa.Column("processingType", sa.String(length=64), nullable=False),
    sa.Column("workingGroup", sa.String(length=64)),
    sa.Column("taskID", sa.BigInteger(), server_default="0", nullable=False),
    sa.Column("jobsetID", sa.BigInteger(), server_default="0", nullable=False),
    sa.Column("classID", sa.BigInteger()),
    sa.Column("currentPriority", sa.Integer(), nullable=False),
    sa.Column("coreCount", sa.Integer(), nullable=False),
    sa.Column("minRamCount", sa.Integer(), nullable=False),
    sa.Column("maxDiskCount", sa.Integer(), nullable=False),
    sa.Column("maxWalltime", sa.Integer(), nullable=False),
    sa.Column("resource_type", sa.String(length=16), nullable=False),
    sa.Column("creationTime", sa.Double(), nullable=False),
    sa.Column("stateChangeTime", sa.Double(), nullable=False),
    sa.Column("modificationTime", sa.Double(), nullable=False),
    sa.Column("startTime", sa.Double()),
    sa.Column("endTime", sa.Double()),
    sa.Column("watchTime", sa.Double()),
    sa.Column("claimID", sa.String(length=36)),
    sa.Column("requestID", sa.String(length=64)),
    sa.Column("requestNr", sa.Integer()),
    sa.Column("claimedBy", sa.String(length=128)),
    sa.Column("heartbeat", sa.Integer()),
    sa.Column("lostHeartbeat", sa.Integer()),
    sa.Column("schedulerID", sa.String(length=128)),
    sa.Column("harvesterID", sa.String(length=64)),
    sa.Column("workerID", sa.String(length=64)),
    sa.Column("node", sa.String(length=128)),
    sa.Column("pilotID", sa.String(length=200)),
    sa.Column("batchID", sa.String(length=80)),
    sa.Column("commandToPilot", sa.String(length=250)),
    sa.Column("debug", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    sa.Column("killedBy", sa.String(length=128)),
    sa.Column("reportedStatus", sa.String(length=15)),
    sa.Column("transExitCode", sa.Integer()),
    sa.Column("pilotErrorCode", sa.Integer(), server_default="0", nullable=False),
    sa.Column("pilotErrorDiag", sa.String(length=500)),
    sa.Column("exeErrorCode", sa.Integer(), server_default="0", nullable=False),
    sa.Column("exeErrorDiag", sa.String(length=500)),
    sa.Column("supErrorCode", sa.Integer(), server_default="0", nullable=False),
    sa.Column("supErrorDiag", sa.String(length=500)),
    sa.Column("ddmErrorCode", sa.Integer(), server_default="0", nullable=False),
    sa.Column("ddmErrorDiag", sa.String(length=500)),
    sa.Column("brokerageErrorCode", sa.Integer(), server_default="0", nullable=False),
    sa.Column("brokerageErrorDiag", sa.String(length=500)),
    sa.Column("jobDispatcherErrorCode", sa.Integer(), server_default="0", nullable=False),
    sa.Column("jobDispatcherErrorDiag", sa.String(length=500)),
    sa.Column("taskBufferErrorCode", sa.Integer(), server_default="0", nullable=False),
    sa.Column("taskBufferErrorDiag", sa.String(length=500)),
    sa.Column("jobSubStatus", sa.String(length=80)),
    sa.Column("cpuConsumptionTime", sa.BigInteger()),
    sa.Column("cpuConsumptionUnit", sa.String(length=128)),
    sa.Column("cpuConversion", sa.Double()),
    sa.Column("cpu_architecture_level", sa.String(length=20)),
    sa.Column("actualCoreCount", sa.Integer()),
    sa.Column("meanCoreCount", sa.Double()),
    sa.Column("nEvents", sa.BigInteger()),
    sa.Column("nInputFiles", sa.Integer()),
    sa.Column("pilotTiming", sa.String(length=100)),
    sa.Column("jobMetrics", sa.String(length=500)),
    sa.Column("memory_leak", sa.Double()),
    sa.Column("memory_leak_x2", sa.Double()),
    sa.Column("grid", sa.String(length=50)),
    sa.Column("sourceSite", sa.String(length=36)),
    sa.Column("destinationSite", sa.String(length=36)),
    sa.Column("corruptedFiles", sa.String(length=500)),
    sa.Column("maxRSS", sa.BigInteger()),
    sa.Column("maxVMEM", sa.BigInteger()),
    sa.Column("maxSWAP", sa.BigInteger()),
    sa.Column("maxPSS", sa.BigInteger()),
    sa.Column("avgRSS", sa.BigInteger()),
    sa.Column("avgVMEM", sa.BigInteger()),
    sa.Column("avgSWAP", sa.BigInteger()),
    sa.Column("avgPSS", sa.BigInteger()),
    sa.Column("totRCHAR", sa.BigInteger()),
    sa.Column("totWCHAR", sa.BigInteger()),
    sa.Column("totRBYTES", sa.BigInteger()),
    sa.Column("totWBYTES", sa.BigInteger()),
    sa.Column("rateRCHAR", sa.BigInteger()),
    sa.Column("rateWCHAR", sa.BigInteger()),
    sa.Column("rateRBYTES", sa.BigInteger()),
    sa.Column("rateWBYTES", sa.BigInteger()),
    sa.PrimaryKeyConstraint("PandaID"),
)
_OUTPUT_REPORTS: _Parts = (
    sa.Column("PandaID", _Identifier, autoincrement=False, nullable=False),
    sa.Column("attemptNr", sa.Integer(), nullable=False),
    sa.Column("data", sa.Text(), nullable=False),
    sa.Column("time", sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint("PandaID"),
)
_QUEUES: _Parts = (
    sa.Column("name", sa.String(length=128), nullable=False),
    sa.Column("status", sa.String(length=20), nullable=False),
    sa.Column("state", sa.String(length=20), nullable=False),
    sa.Column("description", sa.JSON(), nullable=False),
    sa.Column("modificationTime", sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint("name"),
)
_STORAGES: _Parts = (
    sa.Column("name", sa.String(length=128), nullable=False),
    sa.Column("description", sa.JSON(), nullable=False),
    sa.Column("modificationTime", sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint("name"),
)
_WORKER_NODES: _Parts = (
    sa.Column("site", sa.String(length=128), nullable=False),
    sa.Column("host_name", sa.String(length=128), nullable=False),
    sa.Column("kind", sa.String(length=160), nullable=False),
    sa.Column("facts", sa.JSON(), nullable=False),
    sa.Column("modificationTime", sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint("site", "host_name", "kind"),
)
_WORKERS: _Parts = (
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

_TABLES = {
    "cache_files": _CACHE_FILES,
    "catalogue": _CATALOGUE,
    "config": _CONFIG,
    "counters": _COUNTERS,
    "daemon_locks": _DAEMON_LOCKS,
    "files": _FILES,
    "job_classes": _JOB_CLASSES,
    "job_definitions": _JOB_DEFINITIONS,
    "job_history": _JOB_HISTORY,
    "job_texts": _JOB_TEXTS,
    "jobs": _JOBS,
    "output_reports": _OUTPUT_REPORTS,
    "queues": _QUEUES,
    "storages": _STORAGES,
    "worker_nodes": _WORKER_NODES,
    "workers": _WORKERS,
}


def upgrade() -> None:
    """Make the tables and their indexes."""
    for name, columns in _TABLES.items():
        op.create_table(name, *columns)
    op.create_index("cache_files_by_content", "cache_files", ["size", "checksum"])
    op.create_index("catalogue_by_job", "catalogue", ["PandaID"])
    op.create_index("files_by_job", "files", ["PandaID", "fileID"])
    op.create_index("files_given", "files", ["scope", "lfn"], sqlite_where=_GIVEN, postgresql_where=_GIVEN)
    op.create_index("files_waiting", "files", ["scope", "lfn"], sqlite_where=_WAITING, postgresql_where=_WAITING)
    op.create_index(
        "job_classes_once",
        "job_classes",
        [
            "computingSite",
            "prodSourceLabel",
            "processingType",
            "resource_type",
            "coreCount",
            "minRamCount",
            "maxDiskCount",
            "maxWalltime",
        ],
        unique=True,
    )
    op.create_index("job_history_by_job", "job_history", ["PandaID", "historyID"])
    op.create_index(
        "jobs_by_class", "jobs", ["classID", *_BEST_FIRST], sqlite_where=_ACTIVATED, postgresql_where=_ACTIVATED
    )
    op.create_index("jobs_by_queue", "jobs", ["computingSite", "jobStatus", "PandaID"])
    op.create_index(
        "jobs_by_request",
        "jobs",
        ["requestID", "requestNr"],
        unique=True,
        sqlite_where=_REQUESTED,
        postgresql_where=_REQUESTED,
    )
    op.create_index("jobs_by_status", "jobs", ["jobStatus", "PandaID"])
    op.create_index(
        "jobs_by_task",
        "jobs",
        ["taskID", "classID", *_BEST_FIRST],
        sqlite_where=_ACTIVATED,
        postgresql_where=_ACTIVATED,
    )
    op.create_index(
        "jobs_by_user",
        "jobs",
        ["prodUserName", "classID", *_BEST_FIRST],
        sqlite_where=_ACTIVATED,
        postgresql_where=_ACTIVATED,
    )
    op.create_index("jobs_to_watch", "jobs", ["watchTime"], sqlite_where=_WATCHED, postgresql_where=_WATCHED)


def downgrade() -> None:
    """Remove them all."""
    for name in _TABLES:
        op.drop_table(name)
