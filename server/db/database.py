"""Connections to the database, and the only place that knows which database it is.

Three ways to talk to it: `reading` (a snapshot, never waits for writers), `durable` (one write transaction that is on
disk before the block ends) and `relaxed` (one write transaction that may be lost if the machine crashes in the next
moment: good for bare heartbeats and nothing else).

A transaction around a single statement costs PostgreSQL two more round trips, to begin and to end it. `looking` and
`at_once` are `reading` and `relaxed` without.
"""

from __future__ import annotations

import fcntl
import os
import select
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, DisconnectionError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from server import turns

#: How long a statement waits for SQLite's own lock, in ms. Our writers queue up on a lock file before they get there,
#: so this only matters when another program has the file open.
BUSY_TIMEOUT = 20_000

#: SQLite's page cache of a connection, in KiB (negative means KiB to SQLite). A process has two connections a thread,
#: and the kernel caches the same pages, so more would only cost memory.
CACHE_SIZE = -4_000

#: How long a thread waits for a connection of its pool, in s. A pool has as many as there are threads, so this only
#: matters when PostgreSQL is slow to let us in.
POOL_TIMEOUT = 20

#: What libpq is told of each connection (its documentation, "Parameter Key Words"). Whatever hangs is given up long
#: before gunicorn gives up the worker, which has 120 s: a host that does not answer (s), a peer that has gone without a
#: word (s between probes, their number; ms for what was sent).
LIBPQ = {
    "application_name": "pilotkit",
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

#: What PostgreSQL is told of each session, in ms: how long a statement may take, how long it may wait for a row that
#: somebody else has locked, and how long a transaction may do nothing (its client hangs, and others wait for its rows).
_SESSION = {"statement_timeout": 60_000, "lock_timeout": 20_000, "idle_in_transaction_session_timeout": 60_000}

#: How a reading transaction begins: all of its statements see the same state, and none can write.
_ONE_STATE = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
#: How a writing one begins, whatever the database's default is: compare-and-set needs no more.
_WRITING = "READ COMMITTED"

#: What the functions of this package take; the logic above knows no other name of the library.
Connection = sqlalchemy.Connection


class Taken(Exception):
    """Something that may exist once exists already: somebody else was faster. Nothing was changed."""


class DatabaseUnavailable(Exception):
    """The database is busy, full or away: nothing was changed, and the same may work in a while."""


class Unstorable(Exception):
    """A value does not fit the column it is meant for. Nothing was changed."""


class DatabaseUnusable(Exception):
    """The database cannot be used as it is, now or later: the text says what is wrong and what to do."""


def complaint_about_url(url: str) -> str:
    """What is wrong with a database URL; empty if nothing is."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return "it is no SQLAlchemy URL like sqlite:////var/lib/pilotkit/pilotkit.db"
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        return f"{backend} is not supported, only sqlite and postgresql are"
    if backend == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            return "a file is needed: several processes share the database"
        return "" if parsed.get_driver_name() == "pysqlite" else "its driver is not supported; use sqlite:///"
    if parsed.drivername != "postgresql+psycopg":
        return "its driver is not supported; begin the URL with postgresql+psycopg://"
    try:
        parsed.get_dialect().import_dbapi()
    except ImportError:
        return "its driver is not installed; run `pip install 'psycopg[binary]'`"
    return ""


def shown_url(url: str) -> str:
    """A database URL as it may stand in messages: without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return repr(url)


class Database:
    """A database with its connection pools. Threads may share it; processes must not (create it after a fork)."""

    def __init__(self, url: str, connections: int = 16) -> None:
        """Prepare the pools; nothing is opened yet.

        Args:
            url: SQLAlchemy URL.
            connections: how many threads use it at once.
        """
        self.url: URL = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._durable = self._engine(connections, durable=True)
        self._single = self._relaxed = self._readers = self._engine(connections, durable=False)
        if not self.is_sqlite:  # whose readers see one state anyhow. The same pool, other beginnings of transactions:
            self._relaxed = self._single.execution_options(isolation_level=_WRITING)
            self._readers = self._single.execution_options(**_ONE_STATE)
        self._queue = _WriterQueue(Path(f"{self.url.database}-writers")) if self.is_sqlite else None

    def _engine(self, connections: int, *, durable: bool) -> Engine:
        if not self.is_sqlite:
            session = {"synchronous_commit": "on" if durable else "off", **_SESSION}
            engine = create_engine(
                self.url,
                hide_parameters=True,  # a traceback goes into logs, and values may be somebody's secrets
                pool_size=connections,
                max_overflow=0,
                pool_timeout=POOL_TIMEOUT,
                isolation_level=_WRITING if durable else "AUTOCOMMIT",
                connect_args={**LIBPQ, "options": " ".join(f"-c {name}={value}" for name, value in session.items())},
            )
            event.listen(engine, "checkout", _replace_if_closed)
            return engine
        engine = create_engine(
            self.url,
            hide_parameters=True,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            connect_args={"check_same_thread": False},
        )
        _prepare_sqlite(engine, "FULL" if durable else "NORMAL")
        return engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for reading one consistent state of the database."""
        with _translated(), self._readers.connect() as connection:
            self._begin(connection, "BEGIN")
            yield connection

    @contextmanager
    def looking(self) -> Iterator[Connection]:
        """A connection for reading; each statement sees what is committed when it begins."""
        with _translated(), self._single.connect() as connection:
            yield connection

    @contextmanager
    def durable(self) -> Iterator[Connection]:
        """One write transaction; it is on disk when the block has ended, and undone if the block raises."""
        with _translated(), turns.come_back(), self._writing(self._durable) as connection:
            yield connection
            turns.let_go()  # others may compute while this is written to the disk

    @contextmanager
    def relaxed(self) -> Iterator[Connection]:
        """One write transaction that a crash of the machine in the next moment may lose."""
        with _translated(), self._writing(self._relaxed) as connection:
            yield connection

    @contextmanager
    def at_once(self) -> Iterator[Connection]:
        """A connection for one writing statement, which a crash of the machine in the next moment may undo."""
        with _translated(), self._writing(self._single) as connection:
            yield connection

    @contextmanager
    def _writing(self, engine: Engine) -> Iterator[Connection]:
        if self._queue is None:
            with engine.begin() as connection:
                yield connection
            return
        with self._queue.turn(), engine.begin() as connection:
            self._begin(connection, "BEGIN IMMEDIATE")
            yield connection

    def _begin(self, connection: Connection, statement: str) -> None:
        """Begin a transaction of SQLite's, whose driver would begin it too late, and always as a reader.

        The cursor is the driver's: through SQLAlchemy's event for this moment it takes as long as reading a job.
        """
        if self.is_sqlite:
            cursor = connection.connection.cursor()
            cursor.execute(statement)
            cursor.close()

    def close(self) -> None:
        """Close every connection."""
        self._durable.dispose()
        self._single.dispose()
        if self._queue is not None:
            self._queue.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, PoolTimeout, sqlite3.OperationalError) as error:
        raise DatabaseUnavailable(str(error.__cause__ or error)) from error
    except IntegrityError as error:
        raise Taken(_said(error)) from error
    except DataError as error:
        raise Unstorable(_said(error)) from error
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise  # a statement is wrong
        raise DatabaseUnavailable(str(error.orig)) from error


def _said(error: DBAPIError) -> str:
    """What the database said, without the details that PostgreSQL adds: they have pieces of values in them."""
    diagnosis = getattr(error.orig, "diag", None)
    return str(getattr(diagnosis, "message_primary", None) or error.orig)


def _replace_if_closed(connection: DBAPIConnection, _record: ConnectionPoolEntry, _proxy: object) -> None:
    """What a restart of PostgreSQL closed is opened again before it is used, and costs no request.

    An idle connection has something to read when it was closed, or when the server said something on its own: then it
    is safe to take another, too. To ask the server each time (`pool_pre_ping`) would be a round trip.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        raise DisconnectionError("closed while it was not used")


def _prepare_sqlite(engine: Engine, synchronous: str) -> None:
    """Set up each connection; transactions are in our own hands (`Database._begin`)."""

    @event.listens_for(engine, "connect")
    def connected(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver's "never begin a transaction for me"
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT}",
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            f"cache_size={CACHE_SIZE}",
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()


class _WriterQueue:
    """Lets the writers of all processes pass one after the other.

    SQLite has one writer at a time and lets the others poll with growing pauses, which is unfair and slow under load. A
    lock on a file makes them wait in the kernel instead, and is gone with the process that held it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()  # a file lock is one per process: threads must not share it
        self._descriptor: int | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self._threads:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        with self._threads:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
