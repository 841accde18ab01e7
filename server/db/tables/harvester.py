"""Harvester: its instances, their workers, and what passes between them and this server (chapter 8.3.1)."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Index, Integer, String, Table

from server.db.tables.base import Identifier, metadata, partial
from server.db.tables.job import SHARE_LENGTH

#: What Harvester and pilots say in words is cut to this, as a job's diagnostic texts are.
TEXT = 500

harvester_instances = Table(
    "harvester_instances",
    metadata,
    Column("harvesterID", String(64), primary_key=True),
    Column("owner", String(128)),  # the name of the token it came with first; nobody else speaks for it
    Column("startTime", Double),
    Column("sw_version", String(50)),
    Column("commit_stamp", String(100)),
    Column("hostname", String(128)),
    Column("commands", JSON),  # the commands it says it obeys, with queue and resource type
    Column("maxWorkerID", BigInteger, nullable=False, server_default="0"),
    Column("creationTime", Double, nullable=False),
    Column("lastUpdate", Double, nullable=False),
)

#: What Harvester says of a worker; times are those of its own clock.
WORKER_FACTS = (
    "batchID",
    "computingSite",
    "queueName",
    "nCore",
    "nJobs",
    "jobType",
    "resourceType",
    "submitTime",
    "startTime",
    "endTime",
    "diagMessage",
    "syncLevel",
    "harvesterHost",
    "submissionHost",
    "computingElement",
    "nodeID",
    "nativeExitCode",
    "nativeStatus",
    "errorCode",
    "minRamCount",
    "stdOut",
    "stdErr",
    "batchLog",
    "jdl",
)

workers = Table(
    "workers",
    metadata,
    Column("harvesterID", String(64), primary_key=True),
    Column("workerID", String(64), primary_key=True),
    # Harvester's word; none as long as only the worker's pilot has been heard of
    Column("status", String(20)),
    Column("batchID", String(80)),
    Column("computingSite", String(128)),
    Column("queueName", String(128)),
    Column("nCore", Integer),
    Column("nJobs", Integer),
    Column("jobType", String(32)),
    Column("resourceType", String(16)),
    Column("submitTime", Double),
    Column("startTime", Double),
    Column("endTime", Double),
    Column("diagMessage", String(TEXT)),
    Column("syncLevel", Integer),
    Column("harvesterHost", String(128)),
    Column("submissionHost", String(128)),
    Column("computingElement", String(128)),
    Column("nodeID", String(128)),
    Column("nativeExitCode", Integer),
    Column("nativeStatus", String(80)),
    Column("errorCode", Integer),
    Column("minRamCount", Integer),
    Column("stdOut", String(TEXT)),
    Column("stdErr", String(TEXT)),
    Column("batchLog", String(TEXT)),
    Column("jdl", String(TEXT)),
    # the pilot's word
    Column("pilotStatus", String(20)),
    Column("pilotStartTime", Double),
    Column("pilotEndTime", Double),
    Column("lastUpdate", Double, nullable=False),
    # When the worker synchronization must look at this worker at the latest; none when there is nothing left to see.
    Column("watchTime", Double),
    Index("workers_by_queue", "computingSite", "lastUpdate"),
    Index("workers_by_update", "lastUpdate"),
)
partial("workers_to_watch", workers.c.watchTime, where='"watchTime" IS NOT NULL')

#: Which jobs a worker has, or had.
worker_jobs = Table(
    "worker_jobs",
    metadata,
    Column("harvesterID", String(64), primary_key=True),
    Column("workerID", String(64), primary_key=True),
    Column("PandaID", BigInteger, primary_key=True),
    Index("worker_jobs_by_job", "PandaID"),
)

#: How many workers each instance has: its own count, which is the only one that knows those not submitted yet.
worker_statistics = Table(
    "worker_statistics",
    metadata,
    Column("harvesterID", String(64), primary_key=True),
    Column("computingSite", String(128), primary_key=True),
    Column("jobType", String(32), primary_key=True),
    Column("resourceType", String(16), primary_key=True),
    Column("status", String(20), primary_key=True),
    Column("n", Integer, nullable=False),
    Column("lastUpdate", Double, nullable=False),
)

harvester_commands = Table(
    "harvester_commands",
    metadata,
    Column("commandID", Identifier, primary_key=True, autoincrement=True),
    Column("harvesterID", String(64), nullable=False),
    Column("command", String(160), nullable=False),
    Column("params", JSON),
    Column("ackRequested", Boolean, nullable=False),
    Column("status", String(12), nullable=False),  # new, retrieved, acknowledged, repeated, replaced
    Column("actor", String(128), nullable=False),
    Column("creationTime", Double, nullable=False),
    Column("statusTime", Double, nullable=False),
    Index("harvester_commands_by_state", "harvesterID", "status", "commandID"),
    Index("harvester_commands_by_time", "creationTime"),
)

harvester_dialogs = Table(
    "harvester_dialogs",
    metadata,
    Column("harvesterID", String(64), primary_key=True),
    Column("diagID", Identifier, primary_key=True, autoincrement=False),
    Column("moduleName", String(100)),
    Column("identifier", String(100)),
    Column("messageLevel", String(10)),
    Column("diagMessage", String(TEXT)),
    Column("creationTime", Double, nullable=False),
    Index("harvester_dialogs_by_time", "creationTime"),
)

harvester_metrics = Table(
    "harvester_metrics",
    metadata,
    Column("harvesterID", String(64), primary_key=True),
    Column("creationTime", Double, primary_key=True),
    Column("hostName", String(128), primary_key=True),
    Column("metrics", JSON, nullable=False),
    Index("harvester_metrics_by_time", "creationTime"),
)

#: The resource types that jobs are sorted into, the first that fits; an empty table means PanDA's own.
resource_types = Table(
    "resource_types",
    metadata,
    Column("resource_name", String(16), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("mincore", Integer),
    Column("maxcore", Integer),
    Column("minrampercore", Integer),
    Column("maxrampercore", Integer),
)

#: How many jobs each queue has that are not over: counted now and then, since many ask and a count reads all of them.
job_statistics = Table(
    "job_statistics",
    metadata,
    Column("computingSite", String(128), primary_key=True),
    Column("prodSourceLabel", String(20), primary_key=True),
    Column("resource_type", String(16), primary_key=True),
    Column("jobStatus", String(15), primary_key=True),
    Column("gshare", String(SHARE_LENGTH), primary_key=True),
    Column("n", BigInteger, nullable=False),
    Column("maxPriority", Integer, nullable=False),
)
