"""`pilotkit daemon`: the periodic scripts on their own, on as many machines as wanted."""

from __future__ import annotations

from typing import Final

import click

from server.cli.errors import CommandError
from server.cli.options import deployment_environment

#: Exit code of `status` when no daemon runs, as for every service of the Linux Standard Base.
_NOT_RUNNING: Final = 3
_NONE: Final = "pilotkit: no daemon of its own runs here (the one in `pilotkit serve` comes and goes with the server)"


@click.command(short_help="Run the periodic scripts without a web server.")
@click.argument("action", type=click.Choice(["run", "start", "stop", "status"]), default="run")
@click.option("--data", metavar="DIR", help="Folder for everything the server keeps.  [./pilotkit-data]")
@click.option("--database", metavar="URL", help="postgresql+psycopg://USER@HOST/NAME.  [SQLite in the data folder]")
@click.option("--config", metavar="FILE", help="panda_server.cfg with a section [daemon], or its config as JSON.")
def daemon(action: str, data: str | None, database: str | None, config: str | None) -> None:
    """Run the daemon here until Ctrl-C or SIGTERM; or start it in the background, stop it, or see whether it runs.

    "pilotkit serve" has a daemon of its own. This is for machines that only run scripts. Every option can also be given
    in the environment, as PILOTKIT_DATA, PILOTKIT_DATABASE and PILOTKIT_DAEMON_CONFIG. In the background it writes to
    daemon.log in the data folder.

    \b
    Examples:
      pilotkit daemon
      pilotkit daemon start --config /etc/panda/panda_server.cfg --data /var/lib/pilotkit
      pilotkit daemon status --data /var/lib/pilotkit
    """
    from server.daemon import service
    from server.settings import ConfigurationError, Settings

    environment = deployment_environment(DATA=data, DATABASE=database, DAEMON_CONFIG=config)
    try:
        settings = Settings.from_environment(environment)
        if action == "run":
            service.run(settings)
        elif action == "start":
            click.echo(
                f"pilotkit: the daemon runs, pid {service.start(settings)}; it writes to {service.log_path(settings)}"
            )
        elif action == "stop":
            pid = service.stop(settings)
            click.echo(_NONE if pid is None else f"pilotkit: the daemon, pid {pid}, stopped")
        else:
            pid = service.pid_of(settings)
            click.echo(_NONE if pid is None else f"pilotkit: the daemon runs, pid {pid}")
            raise SystemExit(_NOT_RUNNING if pid is None else 0)
    except ConfigurationError as error:
        raise CommandError(str(error)) from error
