"""Jobs for the dispatcher's benchmarks: a few submitted like any others, and as many copies as are wanted, by SQL."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, text

from server.db import jobs
from server.db.database import Connection, Database
from server.db.tables import catalogue, files, job_definitions, job_history
from server.db.tables import jobs as job_table

#: Copies made in one transaction: meanwhile no other writer of SQLite's has its turn.
_BATCH = 10_000
#: Columns that are not as in the original. Priorities are all over the place, so that the best jobs are no neighbours
#: on disk; names of files belong to one job alone.
_OWN = {
    "PandaID": "{id}",
    "currentPriority": "({id}) * 7919 % 1000",
    "lfn": "({id}) || '.' || source.lfn",
}
_NUMBERED = ("fileID", "historyID")  # the database counts these itself
_TABLES = (job_table, job_definitions, files, catalogue, job_history)
_QUEUED = select(func.count()).where(job_table.c.jobStatus == text("'activated'"))


def _copy_statement(table: str, columns: list[str]) -> str:
    """Copies of the originals :first to :last, `:rounds` times, with PandaIDs from :next on in order."""
    own = ':next + round * (:last - :first + 1) + source."PandaID" - :first'
    kept = [name for name in columns if name not in _NUMBERED]
    values = [_OWN[name].format(id=own) if name in _OWN else f'source."{name}"' for name in kept]
    names = ", ".join(f'"{name}"' for name in kept)
    return (
        "WITH RECURSIVE rounds(round) AS (SELECT 0 UNION ALL SELECT round + 1 FROM rounds WHERE round + 1 < :rounds) "
        f"INSERT INTO {table} ({names}) SELECT {', '.join(values)} FROM rounds CROSS JOIN stock_{table} AS source "
        'WHERE source."PandaID" BETWEEN :first AND :last'
    )


_COPY = [text(_copy_statement(table.name, [column.name for column in table.columns])) for table in _TABLES]


class Stock:
    """Originals, in tables of their own where no pilot gets them, and what copies them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.durable() as connection:
            for table in _TABLES:
                connection.execute(text(f"CREATE TABLE stock_{table.name} AS SELECT * FROM {table.name} WHERE 1 = 0"))

    def add(self, originals: Sequence[int]) -> range:
        """Take jobs of one submission, whose PandaIDs follow each other, out of the dispatcher's tables."""
        taken = range(min(originals), max(originals) + 1)
        assert sorted(originals) == list(taken)
        key = {"first": taken[0], "last": taken[-1]}
        which = '"PandaID" BETWEEN :first AND :last'
        with self._database.durable() as connection:
            for table in _TABLES:
                columns = text(f"INSERT INTO stock_{table.name} SELECT * FROM {table.name} WHERE {which}")
                connection.execute(columns, key)
                connection.execute(text(f"DELETE FROM {table.name} WHERE {which}"), key)
        return taken

    def copy(self, originals: range, number: int) -> range:
        """Copy originals with all that belongs to them.

        Args:
            originals: some of those that `add` gave.
            number: of copies; of each original the same, so that it is rounded up.

        Returns:
            The PandaIDs of the copies.
        """
        rounds = -(-number // len(originals))
        begin = end = 0
        while rounds > 0:
            some = min(rounds, max(1, _BATCH // len(originals)))
            with self._database.durable() as connection:
                reserved = jobs.reserve_ids(connection, "PandaID", some * len(originals))
                key = {"first": originals[0], "last": originals[-1], "next": reserved, "rounds": some}
                for statement in _COPY:
                    connection.execute(statement, key)
            begin, end = begin or reserved, reserved + some * len(originals)
            rounds -= some
        return range(begin, end)


def queued_jobs(connection: Connection) -> int:
    """How many jobs are activated."""
    return int(connection.execute(_QUEUED).scalar() or 0)
