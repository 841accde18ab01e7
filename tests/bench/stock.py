"""Jobs for the dispatcher's benchmarks: a few submitted like any others, and as many copies as are wanted, by SQL."""

from __future__ import annotations

from sqlalchemy import func, select, text

from server.db import jobs
from server.db.database import Connection, Database
from server.db.tables import catalogue, files, job_definitions, job_history
from server.db.tables import jobs as job_table

#: Copies made in one transaction: meanwhile no other writer has its turn.
_BATCH = 10_000
#: Columns that are not as in the original. Priorities are all over the place, so that the best jobs are no neighbours
#: on disk; names of files belong to one job alone.
_OWN = {
    "PandaID": "{id}",
    "currentPriority": "({id}) * 7919 % 1000",
    "lfn": "({id}) || '.' || source.lfn",
}
_NUMBERED = ("fileID", "historyID")  # the database counts these itself


def _copy_statement(table: str, columns: list[str]) -> str:
    """Copies of the rows of jobs :first to :last, `:rounds` times, with PandaIDs from :next on in order."""
    own = ':next + round * (:last - :first + 1) + source."PandaID" - :first'
    kept = [name for name in columns if name not in _NUMBERED]
    values = [_OWN[name].format(id=own) if name in _OWN else f'source."{name}"' for name in kept]
    names = ", ".join(f'"{name}"' for name in kept)
    return (
        "WITH RECURSIVE rounds(round) AS (SELECT 0 UNION ALL SELECT round + 1 FROM rounds WHERE round + 1 < :rounds) "
        f"INSERT INTO {table} ({names}) SELECT {', '.join(values)} FROM rounds CROSS JOIN {table} AS source "
        'WHERE source."PandaID" BETWEEN :first AND :last'
    )


_TABLES = (job_table, job_definitions, files, catalogue, job_history)
_COPY = [text(_copy_statement(table.name, [column.name for column in table.columns])) for table in _TABLES]
_QUEUED = select(func.count()).where(job_table.c.jobStatus == text("'activated'"))


def copy_jobs(database: Database, originals: list[int], number: int) -> range:
    """Copy jobs with all that belongs to them.

    Args:
        originals: jobs of one submission, so that their PandaIDs follow each other. They stay as they are.
        number: of copies; of each original the same, so that it is rounded up.

    Returns:
        The PandaIDs of the copies.
    """
    first, last = min(originals), max(originals)
    assert sorted(originals) == list(range(first, last + 1))
    rounds = -(-number // len(originals))
    begin = 0
    while rounds > 0:
        some = min(rounds, max(1, _BATCH // len(originals)))
        with database.durable() as connection:
            reserved = jobs.reserve_ids(connection, "PandaID", some * len(originals))
            for statement in _COPY:
                connection.execute(statement, {"first": first, "last": last, "next": reserved, "rounds": some})
        begin = begin or reserved
        rounds -= some
    return range(begin, reserved + some * len(originals)) if begin else range(0)


def queued_jobs(connection: Connection) -> int:
    """How many jobs are activated."""
    return int(connection.execute(_QUEUED).scalar() or 0)
