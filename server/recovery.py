"""Backup and restore of a server: whole deployments, as its operator sees them. docs/backup.md has the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server import pidfile
from server.db import backup
from server.db.backup import BackupFailed
from server.db.database import Database, DatabaseUnusable, complaint_about_url, shown_url
from server.db.migrate import migrate
from server.logic.states import CLAIMED
from server.settings import ConfigurationError, Settings

#: PandaIDs that are not given out after a restore, since they may have been after the backup. 25 jobs a second, what
#: ATLAS has, need ten million in four days and a half; there are 2**63.
SKIPPED_IDS = 10_000_000


@dataclass(frozen=True)
class Restored:
    """What a restored database has.

    Attributes:
        running: jobs that pilots had when the copy was made.
        next_id: the first PandaID that it gives out.
    """

    running: int
    next_id: int


def back_up(settings: Settings, target: Path) -> None:
    """Copy the database into a file, while servers work with it.

    Raises:
        ConfigurationError: it cannot be done.
    """
    with _refusals(settings):
        backup.copy_out(settings.database_url(), target)


def restore(settings: Settings, source: Path, now: float) -> Restored:
    """Make a database of a copy, and bring it to the present version.

    Jobs that were running count as heard of now; PandaIDs go on far behind those that were given out.

    Raises:
        ConfigurationError: there is a database already, a server runs here, or it is no copy of ours.
    """
    settings.data_path().mkdir(mode=0o700, parents=True, exist_ok=True)
    with _refusals(settings), pidfile.hold(settings.data_path() / "server.lock"):
        backup.copy_in(settings.database_url(), source)
        migrate(settings.database_url())
        database = Database(settings.database_url(), connections=1)
        try:
            with database.durable() as connection:
                running = backup.forgive_silence(connection, CLAIMED, now)
                last = backup.skip_numbers(connection, "PandaID", SKIPPED_IDS)
        finally:
            database.close()
    return Restored(running, last + 1)


def bring_up_to_date(settings: Settings) -> None:
    """Bring the database to the present version, as a server does when it starts.

    Raises:
        ConfigurationError: it cannot be done.
    """
    with _refusals(settings):
        migrate(settings.database_url())


@contextlib.contextmanager
def _refusals(settings: Settings) -> Iterator[None]:
    """Say everything that cannot be done as one kind of error."""
    url = settings.database_url()
    if complaint := complaint_about_url(url):
        raise ConfigurationError(f"The database {shown_url(url)} cannot be used: {complaint}.")
    try:
        yield
    except pidfile.Held as error:
        raise ConfigurationError(
            f"A server uses {settings.data_path()}, pid {error.pid or 'unknown'}; stop it first."
        ) from error
    except (BackupFailed, DatabaseUnusable, pidfile.Unusable) as error:
        raise ConfigurationError(str(error)) from error
