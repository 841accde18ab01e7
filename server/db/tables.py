"""The tables. Column names are PanDA's own where it has one; times are seconds since 1970 (UTC), floating point."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

#: 64 bits everywhere; SQLite gives its row identifier only to a column declared INTEGER.
Identifier = BigInteger().with_variant(Integer, "sqlite")

#: Diagnostic texts of jobs are cut to this by updateJob (wire.md section 5).
DIAG = 500

#: What a pilot measures and every heartbeat may carry: memory in kB, tot* in kB, rate* in kB/s.
MEASUREMENTS = (
    *(f"{kind}{what}" for kind in ("max", "avg") for what in ("RSS", "VMEM", "SWAP", "PSS")),
    *(f"{kind}{what}" for kind in ("tot", "rate") for what in ("RCHAR", "WCHAR", "RBYTES", "WBYTES")),
)

#: Who may have ended a job: each source has a code and a text (the column names of PanDA's job table).
ERROR_SOURCES = ("pilot", "exe", "sup", "ddm", "brokerage", "jobDispatcher", "taskBuffer")

#: What a claim writes and the end of an attempt takes back.
CLAIM_COLUMNS = (
    "claimID",
    "requestID",
    "requestNr",
    "claimedBy",
    "heartbeat",
    "lostHeartbeat",
    "schedulerID",
    "harvesterID",
    "workerID",
    "node",
    "pilotID",
    "batchID",
)

#: What pilots, and those who judge them, write about an attempt; empty again for the next one.
RESULT_COLUMNS = (
    "reportedStatus",
    "transExitCode",
    *(f"{source}{what}" for source in ERROR_SOURCES for what in ("ErrorCode", "ErrorDiag")),
    "jobSubStatus",
    "cpuConsumptionTime",
    "cpuConsumptionUnit",
    "cpuConversion",
    "cpu_architecture_level",
    "actualCoreCount",
    "meanCoreCount",
    "nEvents",
    "nInputFiles",
    "pilotTiming",
    "jobMetrics",
    "memory_leak",
    "memory_leak_x2",
    "grid",
    "sourceSite",
    "destinationSite",
    "corruptedFiles",
    *MEASUREMENTS,
)

jobs = Table(
    "jobs",
    metadata,
    Column("PandaID", Identifier, primary_key=True, autoincrement=False),
    # what it is and where it is
    Column("jobStatus", String(15), nullable=False),
    Column("attemptNr", Integer, nullable=False),
    Column("maxAttempt", Integer, nullable=False),
    Column("failedAttempt", Integer, nullable=False, server_default="0"),
    Column("computingSite", String(128), nullable=False),
    Column("jobName", String(255)),
    Column("prodUserName", String(250), nullable=False),
    Column("prodSourceLabel", String(20), nullable=False),
    Column("processingType", String(64), nullable=False),
    Column("workingGroup", String(64)),
    Column("taskID", BigInteger, nullable=False, server_default="0"),
    Column("jobsetID", BigInteger, nullable=False, server_default="0"),
    # what dispatch looks at; classID is set while the job is activated
    Column("classID", BigInteger),
    Column("currentPriority", Integer, nullable=False),
    Column("coreCount", Integer, nullable=False),
    Column("minRamCount", Integer, nullable=False),
    Column("maxDiskCount", Integer, nullable=False),
    Column("maxWalltime", Integer, nullable=False),
    Column("resource_type", String(16), nullable=False),
    # times
    Column("creationTime", Double, nullable=False),
    Column("stateChangeTime", Double, nullable=False),
    Column("modificationTime", Double, nullable=False),
    Column("startTime", Double),
    Column("endTime", Double),
    # When the watcher must look at this job at the latest. It is put off by the watcher, not by heartbeats: a heartbeat
    # that changed an indexed column would cost twice as much.
    Column("watchTime", Double),
    # the claim
    Column("claimID", String(36)),
    Column("requestID", String(64)),
    Column("requestNr", Integer),
    Column("claimedBy", String(128)),
    Column("heartbeat", Integer),
    Column("lostHeartbeat", Integer),
    Column("schedulerID", String(128)),
    Column("harvesterID", String(64)),
    Column("workerID", String(64)),
    Column("node", String(128)),
    Column("pilotID", String(200)),
    Column("batchID", String(80)),
    # orders
    Column("commandToPilot", String(250)),
    Column("debug", Boolean, nullable=False, server_default=text("false")),
    Column("killedBy", String(128)),
    # results
    Column("reportedStatus", String(15)),
    Column("transExitCode", Integer),
    *(
        column
        for source in ERROR_SOURCES
        for column in (
            Column(f"{source}ErrorCode", Integer, nullable=False, server_default="0"),
            Column(f"{source}ErrorDiag", String(DIAG)),
        )
    ),
    Column("jobSubStatus", String(80)),
    Column("cpuConsumptionTime", BigInteger),
    Column("cpuConsumptionUnit", String(128)),
    Column("cpuConversion", Double),
    Column("cpu_architecture_level", String(20)),
    Column("actualCoreCount", Integer),
    Column("meanCoreCount", Double),
    Column("nEvents", BigInteger),
    Column("nInputFiles", Integer),
    Column("pilotTiming", String(100)),
    Column("jobMetrics", String(DIAG)),
    Column("memory_leak", Double),
    Column("memory_leak_x2", Double),
    Column("grid", String(50)),
    Column("sourceSite", String(36)),
    Column("destinationSite", String(36)),
    Column("corruptedFiles", String(DIAG)),
    *(Column(name, BigInteger) for name in MEASUREMENTS),
)


def _partial(name: str, *columns: ColumnElement[object], where: str, unique: bool = False) -> Index:
    """An index of only the rows that fulfil a condition, on every database we know."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


# Dispatch takes the head of one of these, whatever the number of queued jobs.
_ACTIVATED = "\"jobStatus\" = 'activated'"
_BEST_FIRST = (jobs.c.currentPriority.desc(), jobs.c.PandaID)
_partial("jobs_by_class", jobs.c.classID, *_BEST_FIRST, where=_ACTIVATED)
_partial("jobs_by_task", jobs.c.taskID, jobs.c.classID, *_BEST_FIRST, where=_ACTIVATED)
_partial("jobs_by_user", jobs.c.prodUserName, jobs.c.classID, *_BEST_FIRST, where=_ACTIVATED)
# A request id claims a number of jobs once (promise D2): the second of two simultaneous requests must fail.
_partial("jobs_by_request", jobs.c.requestID, jobs.c.requestNr, where='"requestID" IS NOT NULL', unique=True)
_partial("jobs_to_watch", jobs.c.watchTime, where='"watchTime" IS NOT NULL')
Index("jobs_by_queue", jobs.c.computingSite, jobs.c.jobStatus, jobs.c.PandaID)
Index("jobs_by_status", jobs.c.jobStatus, jobs.c.PandaID)

#: Activated jobs with the same requirements form a class. getJob compares a pilot with the few classes of its queue
#: instead of with every job, and takes the best job of the classes that fit.
job_classes = Table(
    "job_classes",
    metadata,
    Column("classID", Identifier, primary_key=True, autoincrement=True),
    Column("computingSite", String(128), nullable=False),
    Column("prodSourceLabel", String(20), nullable=False),
    Column("processingType", String(64), nullable=False),
    Column("resource_type", String(16), nullable=False),
    Column("coreCount", Integer, nullable=False),
    Column("minRamCount", Integer, nullable=False),
    Column("maxDiskCount", Integer, nullable=False),
    Column("maxWalltime", Integer, nullable=False),
    Column("usedTime", Double, nullable=False),
)
#: The columns that make a class, in the order of its unique index.
CLASS_COLUMNS = (
    "computingSite",
    "prodSourceLabel",
    "processingType",
    "resource_type",
    "coreCount",
    "minRamCount",
    "maxDiskCount",
    "maxWalltime",
)
Index("job_classes_once", *(job_classes.c[name] for name in CLASS_COLUMNS), unique=True)

#: What a pilot is given beside the columns of `jobs` and the files: read once a job, so kept out of the row that every
#: heartbeat rewrites.
job_definitions = Table(
    "job_definitions",
    metadata,
    Column("PandaID", Identifier, primary_key=True, autoincrement=False),
    Column("definition", JSON, nullable=False),
)

#: Long texts a pilot sends: metaData (its job report), pilotLog, stdout.
job_texts = Table(
    "job_texts",
    metadata,
    Column("PandaID", Identifier, primary_key=True, autoincrement=False),
    Column("attemptNr", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), primary_key=True),
    Column("text", Text, nullable=False),
    Column("time", Double, nullable=False),
)

job_history = Table(
    "job_history",
    metadata,
    Column("historyID", Identifier, primary_key=True, autoincrement=True),
    Column("PandaID", BigInteger, nullable=False),
    Column("attemptNr", Integer, nullable=False),
    Column("status", String(15), nullable=False),
    Column("time", Double, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("reason", String(DIAG), nullable=False),
    Index("job_history_by_job", "PandaID", "historyID"),
)

files = Table(
    "files",
    metadata,
    Column("fileID", Identifier, primary_key=True, autoincrement=True),
    Column("PandaID", BigInteger, nullable=False),
    Column("attemptNr", Integer, nullable=False),
    Column("type", String(10), nullable=False),  # input, output, log
    Column("status", String(10), nullable=False),  # waiting, ready, defined, failed, lost, matched, packed
    Column("scope", String(64), nullable=False),
    Column("lfn", String(255), nullable=False),
    Column("local", String(255)),
    Column("dataset", String(255)),
    Column("endpoint", String(128)),
    Column("guid", String(36)),
    Column("fsize", BigInteger),
    Column("checksum", String(64)),
    Column("surl", String(1024)),
    # the lists of getJob that hardly any job uses: prodDBlocks, dispatchDblock, destinationDBlockToken ...
    Column("wire", JSON),
    Index("files_by_job", "PandaID", "fileID"),
)
_partial("files_given", files.c.scope, files.c.lfn, where="type = 'input' AND status = 'ready'")
_partial("files_waiting", files.c.scope, files.c.lfn, where="status = 'waiting'")

#: Every output name ever promised, once: whose it is, and what became of it.
catalogue = Table(
    "catalogue",
    metadata,
    Column("scope", String(64), primary_key=True),
    Column("lfn", String(255), primary_key=True),
    Column("status", String(10), nullable=False),  # promised, ready, lost
    Column("PandaID", BigInteger, nullable=False),
    Column("endpoint", String(128)),
    Column("guid", String(36)),
    Column("fsize", BigInteger),
    Column("checksum", String(64)),
    Column("surl", String(1024)),
    Column("modificationTime", Double, nullable=False),
    Index("catalogue_by_job", "PandaID"),
)

#: Pieces of work of the event service. `PandaID` and `jobAttempt` say who has one.
event_ranges = Table(
    "event_ranges",
    metadata,
    Column("rangeID", Identifier, primary_key=True, autoincrement=True),
    # Whose jobs may have it: "job 7", or "jobset 3/12 of user" (task, jobset).
    Column("pool", String(320), nullable=False),
    Column("PandaID", BigInteger),
    Column("jobAttempt", Integer),
    Column("attemptNr", Integer, nullable=False),
    Column("maxAttempt", Integer, nullable=False),
    Column("fileID", BigInteger),
    Column("startEvent", BigInteger, nullable=False),
    Column("lastEvent", BigInteger, nullable=False),
    Column("status", String(10), nullable=False),
    Column("facts", JSON),  # what its pilot says: coreCount, cpuConsumptionTime, objstoreID, zipFile
    Column("modificationTime", Double, nullable=False),
    Index("event_ranges_by_pool", "pool", "status", "rangeID"),
    Index("event_ranges_by_job", "PandaID", "status"),
)

#: Final reports the adder has not looked at yet.
output_reports = Table(
    "output_reports",
    metadata,
    Column("PandaID", Identifier, primary_key=True, autoincrement=False),
    Column("attemptNr", Integer, nullable=False),
    Column("data", Text, nullable=False),
    Column("time", Double, nullable=False),
)

queues = Table(
    "queues",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("status", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    Column("description", JSON, nullable=False),
    Column("modificationTime", Double, nullable=False),
)

storages = Table(
    "storages",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("description", JSON, nullable=False),
    Column("modificationTime", Double, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("harvesterID", String(64), primary_key=True),
    Column("workerID", String(64), primary_key=True),
    Column("status", String(20), nullable=False),
    Column("site", String(128), nullable=False),
    Column("nodeID", String(128)),
    Column("startTime", Double),
    Column("endTime", Double),
    Column("modificationTime", Double, nullable=False),
)

#: What pilots say of the machines they run on: one row for the node itself (kind "node"), one for each GPU model.
worker_nodes = Table(
    "worker_nodes",
    metadata,
    Column("site", String(128), primary_key=True),
    Column("host_name", String(128), primary_key=True),
    Column("kind", String(160), primary_key=True),
    Column("facts", JSON, nullable=False),
    Column("modificationTime", Double, nullable=False),
)

cache_files = Table(
    "cache_files",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("creationTime", Double, nullable=False),
    Column("usedTime", Double, nullable=False),
    Index("cache_files_by_content", "size", "checksum"),
)

#: PanDA's gdpconfig table (chapter 10 of its documents).
config = Table(
    "config",
    metadata,
    Column("application", String(64), primary_key=True),
    Column("component", String(64), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("vo", String(16), primary_key=True),
    Column("value", String(256), nullable=False),
    Column("type", String(16), nullable=False),
    Column("description", String(256)),
)

#: Which daemon runs a synchronised script now, and when it was last begun anywhere.
daemon_locks = Table(
    "daemon_locks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", String(128)),
    Column("lockedUntil", Double, nullable=False),
    Column("begunTime", Double, nullable=False),
)

#: Number ranges: PandaIDs must be known before their rows are made, because file names may contain them.
counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
