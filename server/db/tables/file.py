"""Files of jobs, output names ever promised, and reports on outputs."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Double, Index, Integer, String, Table, Text

from server.db.tables.base import Identifier, metadata, partial

files = Table(
    "files",
    metadata,
    Column("fileID", Identifier, primary_key=True, autoincrement=True),
    Column("PandaID", BigInteger, nullable=False),
    Column("attemptNr", Integer, nullable=False),
    Column("type", String(10), nullable=False),  # input, output, log
    Column("status", String(10), nullable=False),  # waiting, moving, ready, defined, ... (see below)
    Column("scope", String(64), nullable=False),
    Column("lfn", String(255), nullable=False),
    Column("local", String(255)),
    Column("dataset", String(255)),  # of an output or log: only if somebody named it
    Column("endpoint", String(128)),
    Column("guid", String(36)),
    Column("fsize", BigInteger),
    Column("checksum", String(64)),
    Column("surl", String(1024)),
    # the lists of getJob that hardly any job uses: prodDBlocks, dispatchDblock, destinationDBlockToken ...
    Column("wire", JSON),
    Index("files_by_job", "PandaID", "fileID"),
)
partial("files_given", files.c.scope, files.c.lfn, where="type = 'input' AND status = 'ready'")
# What becomes of an output: defined, then ready, moving (to its destination), merged, failed, lost (a log whose name
# another attempt has), matched (a pattern), packed (into another file). Of an input: waiting (for its maker), moving
# (to the queue's storage), ready.
partial("files_moving", files.c.scope, files.c.lfn, where="status = 'moving'")
partial("files_waiting", files.c.scope, files.c.lfn, where="status = 'waiting'")

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
    Column("dataset", String(255)),  # if somebody named one
    Column("prodUserName", String(250)),  # whose dataset it is
    Index("catalogue_by_job", "PandaID"),
)
partial("catalogue_by_dataset", catalogue.c.scope, catalogue.c.dataset, catalogue.c.lfn, where="dataset IS NOT NULL")
partial("files_by_dataset", files.c.scope, files.c.dataset, where="type <> 'input' AND dataset IS NOT NULL")

#: Final reports the adder has not looked at yet.
output_reports = Table(
    "output_reports",
    metadata,
    Column("PandaID", Identifier, primary_key=True, autoincrement=False),
    Column("attemptNr", Integer, nullable=False),
    Column("data", Text, nullable=False),
    Column("time", Double, nullable=False),
)
