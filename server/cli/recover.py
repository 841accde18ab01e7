"""`pilotkit recover`: outputs that a storage has lost are made again."""

from __future__ import annotations

import click

from server.cli.client import row, rows
from server.cli.errors import EXIT_REFUSED
from server.cli.options import address_options, json_option, server
from server.cli.output import print_json


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="SCOPE:LFN...")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
@address_options
def recover(files: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Have files made again that a storage has lost: the jobs that made them run once more.

    Exits with 1 if any file cannot be made again.

    \b
    Examples:
      pilotkit recover --dry-run user.alice:out.root
      pilotkit recover user.alice:out.root user.alice:more.root
    """
    with server() as client:
        done = row(client.post("file_server/upload_file_recovery_request", {"files": [*files], "dry_run": dry_run}))
    left, waiting = done.get("left"), done.get("waiting")
    if as_json:
        print_json(done)
    else:
        for job in rows(done["jobs"]):
            new = f" as job {job['new_PandaID']}" if job.get("new_PandaID") else ""
            click.echo(f"job {job['PandaID']}: {'would run' if dry_run else 'runs'} again{new}")
        for text in left if isinstance(left, list) else []:
            click.echo(f"pilotkit: {text}", err=True)
        for job_id in (*waiting,) if isinstance(waiting, list) else ():
            click.echo(f"job {job_id}: {'would wait' if dry_run else 'waits'} for a lost file again")
    if left:
        raise SystemExit(EXIT_REFUSED)
