"""`pilotkit log`: what the payload of a job has written so far."""

from __future__ import annotations

import json
import sys
import time
from typing import Final

import click

from server.cli.client import Client, Json, Row, row, rows
from server.cli.options import address_options, json_option, server
from server.cli.output import printable

# s between two looks at a log that is followed: pilots send no more often than once a second.
PAUSE: Final = 1.0


@click.command(short_help="Show what a job's payload has written so far.")
@click.argument("job_id", type=click.IntRange(1), metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is over.")
@click.option("--name", metavar="FILE", help="Only this file, for instance payload.stderr.")
@click.option("--attempt", type=click.IntRange(0), metavar="N", help="An earlier attempt instead of the present one.")
@json_option
@address_options
def log(job_id: int, follow: bool, name: str | None, attempt: int | None, as_json: bool) -> None:
    """Show the live log of the job ID. There is one if its pilot was started with --use-realtime-logging.

    With --json each record is an object on a line of its own: time, name of the file, offset in it, text, and how many
    bytes before it were left out.

    \b
    Examples:
      pilotkit log 17
      pilotkit log 17 --follow --name payload.stdout
    """
    shown, position, quiet = "", 0, False
    with server() as client:
        while True:
            answer = _ask(client, job_id, attempt, position)
            records = [one for one in rows(answer.get("records")) if name in (None, one.get("name"))]
            for record in records:
                if as_json:
                    click.echo(_line(record))
                else:
                    shown = _show(record, shown, alone=name is not None)
            before, position = position, _number(answer.get("position"))
            if position > before:
                quiet = False
                continue  # there may be more than one answer holds
            if not follow or quiet:
                break
            # The end of the output may come a moment after the end of the job.
            quiet = bool(answer.get("over"))
            attempt = _number(answer.get("attempt"))
            time.sleep(PAUSE)  # the server is asked at its leisure; nothing in here could wake us
    if not position and not as_json:
        click.echo(f"pilotkit: job {job_id} has no live log (it is {answer.get('status')})", err=True)


def _ask(client: Client, job_id: int, attempt: int | None, position: int) -> Row:
    asked: dict[str, str | int | list[str]] = {"job_id": job_id, "position": position}
    if attempt is not None:
        asked["attempt_nr"] = attempt
    return row(client.get("job/get_log", asked))


def _show(record: Row, shown: str, *, alone: bool) -> str:
    """Print a record, under the name of its file where that changes; the name."""
    name = str(record.get("name"))
    if name != shown and not alone:
        click.echo(("\n" if shown else "") + f"==> {printable(name)} <==")
    if record.get("dropped"):
        click.echo(f"[{record['dropped']} bytes were left out here]")
    click.echo(printable(str(record.get("text"))), nl=False)
    sys.stdout.flush()
    return name


def _line(record: Row) -> str:
    return json.dumps(record, ensure_ascii=False)


def _number(value: Json) -> int:
    return value if isinstance(value, int) else 0
