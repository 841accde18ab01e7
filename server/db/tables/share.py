"""Global shares: what part of the resources belongs to whom, which jobs belong to which share, and what is in use."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Integer, String, Table

from server.db.tables.base import metadata
from server.db.tables.job import SHARE_LENGTH

#: What a share's rule may look at: columns of `jobs` and two facts of a job's definition. A rule is a regular
#: expression for each, and fits the jobs that fulfil all of them.
RULE_COLUMNS = ("prodSourceLabel", "workingGroup", "campaign", "processingType", "transPath", "resource_type")

global_shares = Table(
    "global_shares",
    metadata,
    Column("name", String(SHARE_LENGTH), primary_key=True),
    Column("parent", String(SHARE_LENGTH)),
    Column("position", Integer, nullable=False),
    Column("value", Double, nullable=False),
    *(Column(name, String(256)) for name in RULE_COLUMNS),
)

#: What the jobs of a share occupy, as it was when it was counted last: HS06 is cores times the queues' core power.
share_usage = Table(
    "share_usage",
    metadata,
    Column("gshare", String(SHARE_LENGTH), primary_key=True),
    Column("running", BigInteger, nullable=False),
    Column("cores", BigInteger, nullable=False),
    Column("hs06", Double, nullable=False),
    Column("queued", BigInteger, nullable=False),
    Column("countedTime", Double, nullable=False),
)
