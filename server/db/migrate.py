"""Bringing a database to the present tables: alembic's migrations, run at start-up by whoever comes first."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, inspect, pool, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from server.db.database import LIBPQ, DatabaseUnusable, shown_url

#: The newest migration. It is compared before alembic is imported, which takes longer than everything else at start-up.
HEAD = "0018"

_MIGRATIONS = Path(__file__).with_name("migrations")
#: PostgreSQL's advisory lock of this application: any number nobody else uses.
_LOCK_NUMBER = 0x70696C6F
#: What to look at, whatever PostgreSQL or its driver complain about.
_ADVICE = (
    " PostgreSQL must be running there, with a database of that name in which this user may create tables"
    " (createdb -O USER -E UTF8 NAME)."
)


def migrate(url: str) -> None:
    """Run the migrations a database is missing. Safe when several processes do so at once: one works, the others wait.

    Raises:
        DatabaseUnusable: it cannot be reached or written, is no database, or a newer version of this server made it.
    """
    try:
        _migrate(url)
    except DBAPIError as error:
        # What a server says has a first line of its own; a driver's complaint has not, and may have several.
        said = getattr(getattr(error.orig, "diag", None), "message_primary", None) or str(error.orig)
        what = " ".join(said.split()).rstrip(".?")
        advice = "" if make_url(url).get_backend_name() == "sqlite" else _ADVICE
        raise DatabaseUnusable(f"The database {shown_url(url)} cannot be used: {what}.{advice}") from error
    except OSError as error:
        raise DatabaseUnusable(f"The database {shown_url(url)} cannot be opened: {error}.") from error


def _migrate(url: str) -> None:
    parsed = make_url(url)
    file = Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, poolclass=pool.NullPool, connect_args=LIBPQ if file is None else {})
    try:
        with _alone(file), engine.connect() as connection:
            if file is None:
                connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": _LOCK_NUMBER})
                _check_encoding(connection, url)
            else:  # here, where we are alone: of several processes that switch at once SQLite refuses all but one
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            if revision_of(connection) != HEAD:
                _upgrade(connection)
            connection.commit()
    finally:
        engine.dispose()


@contextmanager
def _alone(file: Path | None) -> Iterator[None]:
    """Keep other processes out while a SQLite database is migrated."""
    if file is None:
        yield
        return
    with open(f"{file}-migration", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check_encoding(connection: Connection, url: str) -> None:
    """Refuse a PostgreSQL database that cannot store every text; that cannot be changed later."""
    encoding = connection.execute(text("SHOW server_encoding")).scalar()
    if encoding != "UTF8":
        what = f"its encoding is {encoding} and must be UTF8; make it anew (createdb -T template0 -E UTF8 NAME)"
        raise DatabaseUnusable(f"The database {shown_url(url)} cannot be used: {what}.")


def revision_of(connection: Connection) -> str | None:
    """The last migration a database has had; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if revision is None else str(revision)


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, HEAD)
    except CommandError as error:
        what = f"The database has the version of another pilotkit, perhaps a newer one: {error}."
        raise DatabaseUnusable(what) from error
