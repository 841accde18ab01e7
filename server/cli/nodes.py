"""`pilotkit node`: worker nodes on which jobs only fail."""

from __future__ import annotations

import click

from server.cli.client import rows
from server.cli.options import address_options, json_option, server
from server.cli.output import print_json, print_table


@click.group()
def node() -> None:
    """Worker nodes on which jobs only fail: list them, and end their pauses."""


@node.command()
@json_option
@address_options
def failing(as_json: bool) -> None:
    """List the nodes on which jobs have failed for the site's reasons since one last finished there.

    A node with a time in PAUSED UNTIL gets no jobs until then.

    \b
    Example:
      pilotkit node failing
    """
    with server() as client:
        found = rows(client.get("node/list_failing"))
    if as_json:
        print_json([*found])
        return
    keys = ("queue", "host", "failures", "last_failure", "throttled_until", "reason")
    columns = ("QUEUE", "HOST", "FAILURES", "LAST FAILURE", "PAUSED UNTIL", "REASON")
    print_table(columns, [[line.get(key) for key in keys] for line in found], right="FAILURES")


@node.command()
@click.argument("queue")
@click.argument("host")
@json_option
@address_options
def lift(queue: str, host: str, as_json: bool) -> None:
    """End the pause of HOST in QUEUE: it gets jobs again, and its failures are forgotten.

    \b
    Example:
      pilotkit node lift MY_QUEUE wn012.example.org
    """
    with server() as client:
        done, message = client.post_with_message("node/lift_pause", {"queue": queue, "host": host})
    if as_json:
        print_json(done)
    else:
        click.echo(message)
