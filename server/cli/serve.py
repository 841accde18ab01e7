"""`pilotkit serve`: the web server and the daemon, in one command."""

from __future__ import annotations

import click

from server.cli.errors import CommandError
from server.cli.options import deployment_environment


@click.command()
@click.option("--host", help="Address to listen on; any but loopback needs --tokens.  [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.  [25080]")
@click.option("--data", metavar="DIR", help="Folder for everything the server keeps.  [./pilotkit-data]")
@click.option("--database", metavar="URL", help="postgresql+psycopg://USER@HOST/NAME.  [SQLite in the data folder]")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Web server processes.  [2]")
@click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="Threads of each of them.  [8]")
@click.option("--settings", metavar="FILE", help="File with more settings, a line PILOTKIT_NAME=VALUE each.")
@click.option("--check", is_flag=True, help="Check settings and database, say what is wrong, and leave.")
@click.option("--tokens", metavar="FILE", help='JSON file {token: {"name": ..., "roles": [...]}}.')
@click.option("--cert", metavar="FILE", help="Certificate of this server, for https.")
@click.option("--key", metavar="FILE", help="Its key.")
@click.option("--ca", metavar="PATH", help="Authorities of client certificates and proxies that are taken.")
@click.option("--public-url", metavar="URL", help="The address pilots reach this server at, if it is another one.")
def serve(
    host: str | None,
    port: int | None,
    data: str | None,
    database: str | None,
    workers: int | None,
    threads: int | None,
    settings: str | None,
    check: bool,
    tokens: str | None,
    cert: str | None,
    key: str | None,
    ca: str | None,
    public_url: str | None,
) -> None:
    """Start a server; stop it with Ctrl-C or SIGTERM; SIGHUP has it take new code and settings, and loses no request.

    Prints "pilotkit: serving http://HOST:PORT" when it is ready. Every option can also be given in the environment, as
    PILOTKIT_HOST, PILOTKIT_PORT and so on.

    \b
    Examples:
      pilotkit serve
      pilotkit serve --host 0.0.0.0 --tokens tokens.json --data /var/lib/pilotkit
      pilotkit serve --host 0.0.0.0 --cert host.pem --key host.key --ca /etc/grid-security/certificates
      pilotkit serve --database postgresql+psycopg://pilotkit@db.example.org/pilotkit
    """
    from server.serving import serve as run_server
    from server.settings import ConfigurationError, Settings

    environment = deployment_environment(
        HOST=host,
        PORT=port,
        DATA=data,
        DATABASE=database,
        WORKERS=workers,
        THREADS=threads,
        SETTINGS_FILE=settings,
        CHECK_ONLY=1 if check else None,
        TOKENS=tokens,
        CERT=cert,
        KEY=key,
        CA=ca,
        PUBLIC_URL=public_url,
    )
    try:
        code = run_server(Settings.from_environment(environment))
    except ConfigurationError as error:
        raise CommandError(str(error)) from error
    raise SystemExit(code)
