"""The tables. Column names are PanDA's own where it has one; times are seconds since 1970 (UTC), floating point."""

from __future__ import annotations

from server.db.tables.account import tokens, users
from server.db.tables.archive import archived_days, archived_jobs
from server.db.tables.base import Identifier, metadata, partial
from server.db.tables.dataset import datasets
from server.db.tables.event import event_jobs, event_merges, event_ranges
from server.db.tables.file import catalogue, files, output_reports
from server.db.tables.harvester import (
    WORKER_FACTS,
    harvester_commands,
    harvester_dialogs,
    harvester_instances,
    harvester_metrics,
    job_statistics,
    resource_types,
    worker_jobs,
    worker_statistics,
    workers,
)
from server.db.tables.information import cache_files, config, queues, storages, worker_nodes
from server.db.tables.job import (
    CLAIM_COLUMNS,
    CLASS_COLUMNS,
    DIAG,
    ERROR_SOURCES,
    JOB_OF_TASK,
    JOB_OVER,
    MEASUREMENTS,
    NO_SHARE,
    RESULT_COLUMNS,
    SHARE_LENGTH,
    job_classes,
    job_definitions,
    job_history,
    job_texts,
    jobs,
)
from server.db.tables.metric import job_metrics
from server.db.tables.node import node_failures
from server.db.tables.retry import job_relations, retry_errors
from server.db.tables.service import counters, daemon_locks, daemons
from server.db.tables.share import global_shares, share_usage
from server.db.tables.source import network_matrix, queue_history, source_entries, sources

__all__ = [
    "CLAIM_COLUMNS",
    "CLASS_COLUMNS",
    "DIAG",
    "ERROR_SOURCES",
    "JOB_OF_TASK",
    "JOB_OVER",
    "MEASUREMENTS",
    "NO_SHARE",
    "RESULT_COLUMNS",
    "SHARE_LENGTH",
    "WORKER_FACTS",
    "Identifier",
    "archived_days",
    "archived_jobs",
    "cache_files",
    "catalogue",
    "config",
    "counters",
    "daemon_locks",
    "daemons",
    "datasets",
    "event_jobs",
    "event_merges",
    "event_ranges",
    "files",
    "global_shares",
    "harvester_commands",
    "harvester_dialogs",
    "harvester_instances",
    "harvester_metrics",
    "job_classes",
    "job_definitions",
    "job_history",
    "job_metrics",
    "job_relations",
    "job_statistics",
    "job_texts",
    "jobs",
    "metadata",
    "network_matrix",
    "node_failures",
    "output_reports",
    "partial",
    "queue_history",
    "queues",
    "resource_types",
    "retry_errors",
    "share_usage",
    "source_entries",
    "sources",
    "storages",
    "tokens",
    "users",
    "worker_jobs",
    "worker_nodes",
    "worker_statistics",
    "workers",
]
