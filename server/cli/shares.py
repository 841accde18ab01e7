"""`pilotkit shares`: what part of the resources belongs to whom."""

from __future__ import annotations

from typing import IO

import click

from server.cli.client import row, rows
from server.cli.errors import BadInput
from server.cli.options import address_options, json_option, read_json, server
from server.cli.output import print_json, print_table


@click.group()
def shares() -> None:
    """Global shares: list what each is to have and has, and set them."""


@shares.command("list")
@json_option
@address_options
def list_shares(as_json: bool) -> None:
    """List the shares as a tree, with their targets and what their jobs use.

    TARGET and USED are HS06 (cores times the core power of their queues). The daemon counts about every 20 s.

    \b
    Example:
      pilotkit shares list
    """
    with server() as client:
        lines = rows(client.get("share/list"))
    if as_json:
        print_json([*lines])
        return
    keys = ("value", "target_percent", "target_hs06", "hs06", "running", "cores", "queued")
    columns = ("SHARE", "VALUE", "PERCENT", "TARGET", "USED", "RUNNING", "CORES", "QUEUED")
    # Dots, since a table drops leading blanks.
    table = [["· " * int(str(line["depth"])) + str(line["name"]), *(line[key] for key in keys)] for line in lines]
    print_table(columns, table, right=" ".join(columns[1:]))


@shares.command()
@click.option("--json", is_flag=True, expose_value=False, help="Print JSON (it always does).")
@address_options
def show() -> None:
    """Print the shares in the form in which `set` takes them, as JSON.

    \b
    Example:
      pilotkit shares show > shares.json
    """
    with server() as client:
        print_json(row(client.get("share/get")))


@shares.command("set")
@click.argument("file", type=click.File(encoding="utf-8"))
@json_option
@address_options
def set_shares(file: IO[str], as_json: bool) -> None:
    """Put the shares in FILE in the place of all others; "-" reads stdin, {} removes them.

    FILE holds {"NAME": {"value": 60, "children": {...}}, ...}. A share without children has a rule: regular expressions
    for prodSourceLabel, workingGroup, campaign, processingType, transPath and resource_type. A job belongs to the first
    share all of whose expressions match the whole of its values.

    \b
    Example:
      echo '{"Production": {"value": 80, "prodSourceLabel": "managed|test"},
             "Analysis": {"value": 20, "prodSourceLabel": "user|panda"}}' | pilotkit shares set -
    """
    tree = read_json(file)
    if not isinstance(tree, dict):
        raise BadInput(f'{file.name}: expected {{"NAME": {{"value": 60, ...}}, ...}}')
    with server() as client:
        number, message = client.post_with_message("share/set", {"shares": tree})
    if as_json:
        print_json(number)
    else:
        click.echo(message)
