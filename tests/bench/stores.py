"""The databases that the dispatcher is measured on, and what each of them does without a dispatcher: the floor.

The floor is one row of a running job updated by its primary key and committed, over and over; each commit is on disk
before the next begins.
"""

from __future__ import annotations

import random
import re
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

from server.db.database import CACHE_SIZE, Database
from tests.bench.table import cpu_of_those_left
from tests.postgres import PROGRAMS, Postgres, running_postgres

#: s the floor is measured, each time.
_FLOOR_SECONDS = 1.5
#: s filling and settling a database may take.
_PATIENCE = 600
_FLOOR = (
    'UPDATE jobs SET "modificationTime" = {time}, "cpuConsumptionTime" = {number}, "maxRSS" = {number}, '
    '"maxPSS" = {number} WHERE "PandaID" = {job}'
)
#: PostgreSQL as somebody would set it up who has read the chapter on memory and on the log of its manual: all that is
#: safe stays so (fsync, synchronous_commit, full_page_writes are on).
_POSTGRES = {
    "fsync": "on",
    "synchronous_commit": "on",
    "autovacuum": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "wal_compression": "lz4",
    "random_page_cost": "1.1",
}


class Store(Protocol):
    """A database for a dispatcher of the benchmarks.

    Attributes:
        name: for the rows of the table.
        floor: what `commits` measures, for the rows of the table.
        environment: the dispatcher's settings for it.
    """

    @property
    def name(self) -> str: ...

    @property
    def floor(self) -> str: ...

    @property
    def environment(self) -> Mapping[str, str]: ...

    def open(self) -> Database:
        """The database, for what the benchmark does by SQL. The caller closes it."""

    def settle(self) -> None:
        """See what was filled in written and analysed: what is measured next should not pay for it."""

    def commits(self, running: range) -> float:
        """Rows of running jobs updated and committed a second, without a dispatcher."""


@dataclass(frozen=True)
class Sqlite:
    """SQLite in the dispatcher's data directory."""

    data: Path
    name: str = "SQLite"
    floor: str = "updates committed in SQLite without a server"
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def _file(self) -> Path:
        return self.data / "pilotkit.db"

    def open(self) -> Database:
        return Database(f"sqlite:///{self._file}", connections=2)

    def settle(self) -> None:
        with closing(sqlite3.connect(self._file, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def commits(self, running: range) -> float:
        with closing(sqlite3.connect(self._file, isolation_level=None)) as connection:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", f"cache_size={CACHE_SIZE}", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")
            statement = _FLOOR.format(time=":time", number=":number", job=":job")
            begun, number = time.perf_counter(), 0
            while (took := time.perf_counter() - begun) < _FLOOR_SECONDS:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(statement, {"time": time.time(), "number": number, "job": random.choice(running)})
                connection.execute("COMMIT")
                number += 1
        return number / took


@dataclass(frozen=True)
class PostgreSQL:
    """A PostgreSQL of its own."""

    server: Postgres
    url: str
    name: str = "PostgreSQL"
    floor: str = "updates committed by pgbench with as many clients"

    @property
    def environment(self) -> Mapping[str, str]:
        return {"PILOTKIT_DATABASE": self.url}

    def open(self) -> Database:
        return Database(self.url, connections=2)

    def settle(self) -> None:
        with self.server.connect(_DATABASE) as connection:
            connection.execute("VACUUM (ANALYZE)")
            connection.execute("CHECKPOINT")

    def cpu(self) -> float:
        """CPU of its processes so far, in s."""
        first = psutil.Process(self.server.pid())
        return cpu_of_those_left(first, *first.children())

    def commits(self, running: range) -> float:
        statement = _FLOOR.format(time="extract(epoch FROM clock_timestamp())", number=":number", job=":job")
        lines = (f"\\set job random({running[0]}, {running[-1]})", "\\set number random(1, 1000000)", f"{statement};")
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write("\n".join(lines) + "\n")
            script.flush()
            seconds = str(round(2 * _FLOOR_SECONDS))  # pgbench takes whole seconds
            ran = subprocess.run(
                [
                    PROGRAMS / "pgbench", "--no-vacuum", "--protocol=prepared", f"--file={script.name}",
                    "--client=16", "--jobs=1", f"--time={seconds}", "--host=127.0.0.1", f"--port={self.server.port}",
                    "--username=postgres", _DATABASE,
                ],
                capture_output=True, text=True, timeout=_PATIENCE, check=False,
            )  # fmt: skip
        found = re.search(r"^tps = ([0-9.]+)", ran.stdout, re.MULTILINE)
        assert found is not None, f"pgbench failed:\n{ran.stdout}{ran.stderr}"
        return float(found.group(1))


_DATABASE = "bench"


@contextmanager
def running_store() -> Iterator[PostgreSQL]:
    """A PostgreSQL for the time of a block, with all its safety on, as a dispatcher at scale needs it."""
    with running_postgres(_POSTGRES) as postgres:
        yield PostgreSQL(postgres, postgres.create(_DATABASE))
