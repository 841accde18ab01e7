"""Copies of the whole database: made while others work with it, and put back where there is none.

SQLite copies itself (its backup interface), PostgreSQL through its own programs, pg_dump and pg_restore. Either way the
copy is one state of the database, and one file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from pathlib import Path

from sqlalchemy import Connection, case, create_engine, inspect, pool, text, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from server.db.database import LIBPQ, DatabaseUnusable, shown_url
from server.db.jobs import reserve_ids
from server.db.tables import jobs

#: s a copy waits for a writer that has SQLite's database to itself, which is while it is migrated.
_PATIENCE = 60.0
#: What pg_restore prints before the reason.
_PREFIXES = ("pg_dump: error: ", "pg_restore: error: ", "error: ")


class BackupFailed(Exception):
    """A copy cannot be made or put back; nothing was changed. The text says why and what to do."""


def copy_out(url: str, target: Path) -> None:
    """Write a copy of a database into a file that does not exist yet; it is whole, and on disk, or not there.

    Raises:
        BackupFailed: it cannot be made.
    """
    parsed = make_url(url)
    part = target.with_name(f".{target.name}.part")
    if target.exists():
        raise BackupFailed(f"{target} exists already; give the backup another name.")
    try:
        _make(part)
        if parsed.get_backend_name() == "sqlite":
            _copy_sqlite(Path(parsed.database or ""), part)
        else:
            _run_postgres("pg_dump", parsed, "--format=custom", "--no-owner", "--no-privileges", f"--file={part}")
        _rename_durably(part, target)
    except OSError as error:
        raise BackupFailed(f"The backup cannot be written to {target}: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _make(path: Path) -> None:
    """An empty file for its owner alone: a backup has everybody's jobs and the tokens' hashes in it."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _copy_sqlite(source: Path, target: Path) -> None:
    """All pages in one step: readers see one state, and writers need not wait for them."""
    if not source.exists():
        raise BackupFailed(f"There is no database {source}.")
    try:
        with (
            contextlib.closing(sqlite3.connect(source, timeout=_PATIENCE)) as original,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            original.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without another for what is not in it yet
            _check_sqlite(copy)
    except sqlite3.Error as error:
        raise BackupFailed(f"The database {source} cannot be copied: {error}.") from error


def _check_sqlite(copy: sqlite3.Connection) -> None:
    (said,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        raise BackupFailed(f"The copy is damaged, and perhaps the database is, too: {said}.")
    if copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone() is None:
        raise BackupFailed("This is a database of another program.")


def copy_in(url: str, source: Path) -> None:
    """Put a copy into a database that is not there yet, or has no tables.

    Raises:
        BackupFailed: it is no copy of ours, or there is something already.
        DatabaseUnusable: the database cannot be reached.
    """
    if not source.is_file():
        raise BackupFailed(f"There is no backup {source}.")
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        _restore_sqlite(source, Path(parsed.database or ""))
        return
    _refuse_tables(url)
    options = ("--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error")
    _run_postgres("pg_restore", parsed, *options, str(source))
    _analyse(url)


def _restore_sqlite(source: Path, target: Path) -> None:
    if target.exists():
        raise BackupFailed(f"There is a database {target} already; move it away first, with its -wal and -shm.")
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(part)
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as original,
            contextlib.closing(sqlite3.connect(part)) as copy,
        ):
            original.backup(copy)
            _check_sqlite(copy)
        for left in ("-wal", "-shm"):  # of a database that was moved away without them
            Path(f"{target}{left}").unlink(missing_ok=True)
        _rename_durably(part, target)
    except sqlite3.Error as error:
        raise BackupFailed(f"The backup {source} cannot be read: {error}.") from error
    except OSError as error:
        raise BackupFailed(f"The database {target} cannot be written: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _rename_durably(part: Path, target: Path) -> None:
    _force(part)
    part.rename(target)
    _force(target.parent)


def _force(path: Path) -> None:
    """Have a file, or the names in a directory, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _run_postgres(program: str, url: URL, *arguments: str) -> None:
    """Run one of PostgreSQL's programs; the password is in its environment, where other users cannot read it."""
    # Not url.set(password=None): that leaves the password as it is.
    address = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    password = {"PGPASSWORD": str(url.password)} if url.password else {}
    command = [program, f"--dbname={address.render_as_string()}", "--no-password", *arguments]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **password, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise BackupFailed(f"{program} is not here; install the client programs of PostgreSQL.") from None
    if done.returncode != 0:
        raise BackupFailed(f"{program} failed: {_reason(done.stderr)}")


def _reason(said: str) -> str:
    """The first error among what a program has printed, in one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    first = next((line for line in lines if "error:" in line), lines[0])
    for prefix in _PREFIXES:
        first = first.removeprefix(prefix)
    return first if first.endswith(".") else f"{first}."


def _refuse_tables(url: str) -> None:
    engine = create_engine(url, poolclass=pool.NullPool, connect_args=LIBPQ)
    try:
        with engine.connect() as connection:
            if inspect(connection).get_table_names():
                raise BackupFailed(
                    f"The database {shown_url(url)} has tables already; restore into a new one (createdb -E UTF8 NAME)."
                )
    except DBAPIError as error:
        what = " ".join(str(error.orig).split())
        raise DatabaseUnusable(f"The database {shown_url(url)} cannot be reached: {what}.") from error
    finally:
        engine.dispose()


def _analyse(url: str) -> None:
    """Have PostgreSQL look at what it has, which a dump does not contain: without, it would plan badly for a while."""
    engine = create_engine(url, poolclass=pool.NullPool, connect_args=LIBPQ, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("ANALYZE"))
    engine.dispose()


def skip_numbers(connection: Connection, counter: str, number: int) -> int:
    """Leave out so many numbers of a counter: those given out after the copy must not be given again.

    Returns:
        The last one left out.
    """
    return reserve_ids(connection, counter, number) + number - 1


def forgive_silence(connection: Connection, claimed: frozenset[str], now: float) -> int:
    """Take jobs in these states as heard of now: their pilots could not report while there was no server."""
    sent_now = case((jobs.c.jobStatus == "sent", now), else_=jobs.c.stateChangeTime)  # what its time-out counts from
    heard = {"modificationTime": now, "stateChangeTime": sent_now, "watchTime": now}
    return connection.execute(update(jobs).where(jobs.c.jobStatus.in_(sorted(claimed))).values(heard)).rowcount
