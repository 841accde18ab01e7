"""Jobs, the classes dispatch sorts them into, what a pilot is given, what it said, and what became of each."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Index, Integer, String, Table, Text, text

from server.db.tables.base import Identifier, metadata, partial

#: Diagnostic texts of jobs are cut to this by updateJob (wire.md section 5).
DIAG = 500

#: What a pilot measures and every heartbeat may carry: memory in kB, tot* in kB, rate* in kB/s.
MEASUREMENTS = (
    *(f"{kind}{what}" for kind in ("max", "avg") for what in ("RSS", "VMEM", "SWAP", "PSS")),
    *(f"{kind}{what}" for kind in ("tot", "rate") for what in ("RCHAR", "WCHAR", "RBYTES", "WBYTES")),
)

#: What a job belongs to that no global share wants, and how long a share's name may be (the columns' length in PanDA).
NO_SHARE = "Undefined"
SHARE_LENGTH = 32

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
    Column("VO", String(16)),
    Column("countryGroup", String(64), nullable=False, server_default=""),
    Column("architecture", String(128), nullable=False, server_default=""),
    Column("gshare", String(SHARE_LENGTH), nullable=False, server_default=NO_SHARE),
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


# Dispatch takes the head of one of these, whatever the number of queued jobs.
_ACTIVATED = "\"jobStatus\" = 'activated'"
_BEST_FIRST = (jobs.c.currentPriority.desc(), jobs.c.PandaID)
partial("jobs_by_class", jobs.c.classID, *_BEST_FIRST, where=_ACTIVATED)
partial("jobs_by_task", jobs.c.taskID, jobs.c.classID, *_BEST_FIRST, where=_ACTIVATED)
partial("jobs_by_user", jobs.c.prodUserName, jobs.c.classID, *_BEST_FIRST, where=_ACTIVATED)
# A request id claims a number of jobs once (promise D2): the second of two simultaneous requests must fail.
partial("jobs_by_request", jobs.c.requestID, jobs.c.requestNr, where='"requestID" IS NOT NULL', unique=True)
partial("jobs_to_watch", jobs.c.watchTime, where='"watchTime" IS NOT NULL')
#: Which jobs are over; written into statements, not bound: only then may a database use the partial index. SQLite would
#: still take jobs_by_status and sort, were the state alone on one side.
JOB_OVER = "(\"jobStatus\" || '') IN ('finished', 'failed', 'cancelled', 'closed')"
partial("jobs_over", jobs.c.stateChangeTime, where=JOB_OVER)
#: Which jobs belong to a task; written into statements, as JOB_OVER is.
JOB_OF_TASK = '"taskID" > 0'
partial("jobs_of_task", jobs.c.taskID, jobs.c.PandaID, where=JOB_OF_TASK)
Index("jobs_by_queue", jobs.c.computingSite, jobs.c.jobStatus, jobs.c.PandaID)
Index("jobs_by_status", jobs.c.jobStatus, jobs.c.PandaID)
Index("jobs_by_owner", jobs.c.prodUserName, jobs.c.PandaID)

#: Activated jobs with the same requirements form a class. getJob compares a pilot with the few classes of its queue
#: instead of with every job, and takes the best job of the classes that fit.
job_classes = Table(
    "job_classes",
    metadata,
    Column("classID", Identifier, primary_key=True, autoincrement=True),
    Column("computingSite", String(128), nullable=False),
    Column("gshare", String(SHARE_LENGTH), nullable=False, server_default=NO_SHARE),
    Column("prodSourceLabel", String(20), nullable=False),
    Column("processingType", String(64), nullable=False),
    Column("resource_type", String(16), nullable=False),
    Column("workingGroup", String(64), nullable=False, server_default=""),
    Column("countryGroup", String(64), nullable=False, server_default=""),
    Column("architecture", String(128), nullable=False, server_default=""),
    Column("coreCount", Integer, nullable=False),
    Column("minRamCount", Integer, nullable=False),
    Column("maxDiskCount", Integer, nullable=False),
    Column("maxWalltime", Integer, nullable=False),
    Column("usedTime", Double, nullable=False),
)
#: The columns that make a class, in the order of its unique index: it also finds the classes of a queue's share.
CLASS_COLUMNS = (
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
