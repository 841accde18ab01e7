"""`pilotkit debug`: look into a running job."""

from __future__ import annotations

import shlex

import click

from server.cli.client import Row, row, rows
from server.cli.errors import BadInput
from server.cli.options import address_options, server
from server.cli.output import printable


@click.command(short_help="Look into a running job.", context_settings={"ignore_unknown_options": True})
@click.argument("job_id", type=click.IntRange(1), metavar="ID")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND...]")
@click.option("--off", is_flag=True, help="No longer.")
@click.option("--show", is_flag=True, help="Print what the job's pilot has sent last.")
@address_options
def debug(job_id: int, words: tuple[str, ...], off: bool, show: bool) -> None:
    """Have the pilot of the job ID report every few minutes, with the end of the payload's output.

    With a COMMAND (tail, ls, ps, du, gdb), its output comes instead: it runs in the job's directory, without a shell.
    The pilot hears of it with its next update, which may be half an hour away; from then on it answers at once.

    \b
    Examples:
      pilotkit debug 17
      pilotkit debug 17 ls -l
      pilotkit debug 17 tail -100 log.generate
      pilotkit debug 17 --show
      pilotkit debug 17 --off
    """
    if off + show + bool(words) > 1:
        raise BadInput("give one of a command, --show and --off")
    with server() as client:
        if show:
            click.echo(_shown(row(client.get("job/get_details", {"job_id": job_id}))))
        elif words:
            click.echo(client.post_with_message("job/set_command", {"job_id": job_id, "command": shlex.join(words)})[1])
        else:
            click.echo(client.post_with_message("job/set_debug_mode", {"job_id": job_id, "mode": not off})[1])


def _shown(job: Row) -> str:
    """The output that came last: that of the job's newest attempt."""
    texts = [one for one in rows(job.get("texts")) if one.get("kind") == "stdout"]
    if not texts:
        return f"the pilot of job {job.get('PandaID')} has sent no output yet"
    return printable(str(texts[-1].get("text")))
