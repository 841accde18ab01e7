"""The tables. Column names are PanDA's own where it has one; times are seconds since 1970 (UTC), floating point."""

from __future__ import annotations

from server.db.tables.account import tokens, users
from server.db.tables.base import Identifier, metadata, partial
from server.db.tables.event import event_ranges
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
    MEASUREMENTS,
    RESULT_COLUMNS,
    job_classes,
    job_definitions,
    job_history,
    job_texts,
    jobs,
)
from server.db.tables.service import counters, daemon_locks

__all__ = [
    "CLAIM_COLUMNS",
    "CLASS_COLUMNS",
    "DIAG",
    "ERROR_SOURCES",
    "MEASUREMENTS",
    "RESULT_COLUMNS",
    "WORKER_FACTS",
    "Identifier",
    "cache_files",
    "catalogue",
    "config",
    "counters",
    "daemon_locks",
    "event_ranges",
    "files",
    "harvester_commands",
    "harvester_dialogs",
    "harvester_instances",
    "harvester_metrics",
    "job_classes",
    "job_definitions",
    "job_history",
    "job_statistics",
    "job_texts",
    "jobs",
    "metadata",
    "output_reports",
    "partial",
    "queues",
    "resource_types",
    "storages",
    "tokens",
    "users",
    "worker_jobs",
    "worker_nodes",
    "worker_statistics",
    "workers",
]
