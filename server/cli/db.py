"""`pilotkit db`: backup, restore and migration of the database, beside the server and not through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli.errors import CommandError
from server.cli.options import Command, deployment_environment

if TYPE_CHECKING:
    from server.settings import Settings


@click.group()
def db() -> None:
    """Back up, restore and migrate the database of a server, on a machine that has it.

    PostgreSQL's own programs (pg_dump, pg_restore) must be here for a database there.
    """


def _place(command: Command) -> Command:
    """Add --data and --database."""
    data = click.option("--data", metavar="DIR", help="The server's folder.  [./pilotkit-data]")
    url = "postgresql+psycopg://USER@HOST/NAME.  [SQLite in the data folder]"
    return data(click.option("--database", metavar="URL", help=url)(command))


@contextmanager
def _settings(data: str | None, database: str | None) -> Iterator[Settings]:
    """The settings of the server that is meant; what cannot be done with it is a sentence."""
    from server.settings import ConfigurationError, Settings

    try:
        yield Settings.from_environment(deployment_environment(DATA=data, DATABASE=database))
    except ConfigurationError as error:
        raise CommandError(str(error)) from error


_FILE: Callable[[Command], Command] = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@db.command()
@_FILE
@_place
def backup(file: Path, data: str | None, database: str | None) -> None:
    """Copy the database into a new FILE while servers work with it.

    \b
    Example:
      pilotkit db backup /backups/pilotkit-$(date +%F) --data /var/lib/pilotkit
    """
    from server import recovery

    with _settings(data, database) as settings:
        recovery.back_up(settings, file)
    click.echo(f"pilotkit: the database is in {file}, {file.stat().st_size} bytes")


@db.command()
@_FILE
@_place
def restore(file: Path, data: str | None, database: str | None) -> None:
    """Make a database of a backup, where there is none yet, before servers are started.

    \b
    Example:
      pilotkit db restore /backups/pilotkit-2026-11-20 --data /var/lib/pilotkit
    """
    from server import recovery

    with _settings(data, database) as settings:
        restored = recovery.restore(settings, file, time.time())
    click.echo(
        f"pilotkit: restored; {restored.running} jobs were with pilots and count as heard of now, "
        f"the next job will be {restored.next_id}"
    )


@db.command()
@_place
def migrate(data: str | None, database: str | None) -> None:
    """Bring the database to this version of pilotkit; every server does so when it starts.

    \b
    Example:
      pilotkit db migrate --database postgresql+psycopg://pilotkit@db.example.org/pilotkit
    """
    from server import recovery

    with _settings(data, database) as settings:
        recovery.bring_up_to_date(settings)
    click.echo("pilotkit: the database is up to date")
