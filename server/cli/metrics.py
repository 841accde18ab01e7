"""`pilotkit metrics`: numbers of jobs over time."""

from __future__ import annotations

import click

from server.cli.client import rows
from server.cli.options import address_options, json_option, server
from server.cli.output import print_json, print_table


@click.command()
@click.option("--queue", metavar="NAME", help="Of this queue alone.")
@click.option("--share", metavar="NAME", help="Of this global share instead of queues.")
@click.option("--shares", is_flag=True, help="Of all global shares instead of queues.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="How far back.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="At most so many lines."
)
@json_option
@address_options
def metrics(queue: str | None, share: str | None, shares: bool, hours: float, limit: int, as_json: bool) -> None:
    """Show how many jobs there were in each state, the newest numbers first; the daemon notes them every 5 minutes.

    Of jobs that are over it is how many ended since the time before.

    \b
    Examples:
      pilotkit metrics --queue MY_QUEUE
      pilotkit metrics --shares --hours 24 --json
    """
    if queue and (share or shares):
        raise click.UsageError("give --queue or --share, not both")
    asked: dict[str, str | int | list[str]] = {
        "kind": "share" if share or shares else "queue",
        "name": queue or share or "",
        "hours": str(hours),
        "limit": limit,
    }
    with server() as client:
        found = rows(client.get("statistics/job_metrics", asked))
    if as_json:
        print_json([*found])
        return
    lines = [[one.get(key) for key in ("time", "name", "status", "n")] for one in found]
    print_table(("TIME", "OF", "STATE", "JOBS"), lines, right="JOBS")
