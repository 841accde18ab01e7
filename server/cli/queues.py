"""`pilotkit queue`: the panda queues the server knows."""

from __future__ import annotations

import json
from typing import IO

import click

from server.cli.client import Json, row, rows
from server.cli.errors import BadInput
from server.cli.options import address_options, json_option, read_descriptions, server
from server.cli.output import cell, print_json, print_table


@click.group()
def queue() -> None:
    """Panda queues: add, list, show, change and remove their descriptions."""


@queue.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@json_option
@address_options
def add(file: IO[str], as_json: bool) -> None:
    """Add the queues in FILE, or replace them.

    FILE holds {"NAME": {description}, ...} in the terms of schedconfig; "-" reads stdin. An empty description is a
    queue with sensible defaults.

    \b
    Example:
      echo '{"MY_QUEUE": {"corecount": 1, "maxrss": 2000}}' | pilotkit queue add -
    """
    queues = read_descriptions(file, "queue")
    with server() as client:
        names, remarks = client.post_with_message("queue/add", {"queues": queues})
    if as_json:
        print_json(names)
    else:
        click.echo(f"added: {', '.join(queues)}")
    _warn(remarks)


@queue.command("list")
@json_option
@address_options
def list_queues(as_json: bool) -> None:
    """List the queues and how many jobs each has in which state; of jobs that are over, those of the last hour.

    \b
    Example:
      pilotkit queue list
    """
    with server() as client:
        queues = rows(client.get("queue/list"))
    if as_json:
        print_json([*queues])
        return
    keys = ("name", "status", "state", "resource_type", "corecount", "maxrss", "jobs")
    columns = ("QUEUE", "STATUS", "STATE", "RESOURCE", "CORES", "MAXRSS", "JOBS")
    print_table(columns, [[queue.get(key) for key in keys] for queue in queues], right="CORES MAXRSS")
    if queues:
        click.echo(f"jobs as counted at {cell(queues[0].get('counted'))} UTC", err=True)


@queue.command()
@click.argument("name")
@click.option("--json", is_flag=True, expose_value=False, help="Print JSON (it always does).")
@address_options
def show(name: str) -> None:
    """Print the description of the queue NAME as pilots get it, as JSON.

    \b
    Example:
      pilotkit queue show MY_QUEUE
    """
    with server() as client:
        print_json(client.get("queue/get", {"name": name}))


@queue.command("set")
@click.argument("name")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE...")
@json_option
@address_options
def set_values(name: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Change values of the queue NAME; a VALUE that is JSON is taken as such, else as text.

    \b
    Example:
      pilotkit queue set MY_QUEUE status=offline maxrss=4000 'copytools={"mv": {"setup": ""}}'
    """
    wanted = dict(_change(text) for text in changes)
    with server() as client:
        changed, remarks = client.post_with_message("queue/set", {"name": name, "changes": wanted})
    description = row(changed)
    if as_json:
        print_json(description)
    else:
        click.echo(f"{name}: " + ", ".join(f"{key} = {json.dumps(description.get(key))}" for key in wanted))
    _warn(remarks)


@queue.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Kill the jobs that are there and not over.")
@json_option
@address_options
def remove(name: str, force: bool, as_json: bool) -> None:
    """Remove the queue NAME. It is refused while the queue has jobs that are not over.

    To stop a queue for a while, `pilotkit queue set NAME status=offline` is enough.

    \b
    Example:
      pilotkit queue remove MY_QUEUE
    """
    with server() as client:
        killed = client.post("queue/remove", {"name": name, "force": force})
    if as_json:
        print_json({"name": name, "killed": killed})
    else:
        click.echo(f"removed: {name}" + (f" (jobs killed: {killed})" if killed else ""))


@queue.command()
@click.argument("name")
@json_option
@address_options
def history(name: str, as_json: bool) -> None:
    """Show how the status of the queue NAME has changed, and what of its description was set by hand.

    \b
    Example:
      pilotkit queue history MY_QUEUE
    """
    with server() as client:
        found = row(client.get("queue/get_history", {"name": name}))
    if as_json:
        print_json(found)
        return
    keys = ("time", "status", "state", "actor", "reason")
    lines = [[change.get(key) for key in keys] for change in rows(found["history"])]
    print_table(("TIME", "STATUS", "STATE", "BY", "WHY"), lines)
    if found["vanished"]:
        click.echo(f"not in the information service since {cell(found['vanished'])}")
    elif found["described"]:
        click.echo(f"as the information service has it since {cell(found['described'])}")
    for key, values in row(found["by_hand"]).items():
        click.echo(f"set by hand: {key} = {json.dumps(row(values)['here'])}, there {json.dumps(row(values)['there'])}")
    for name_of_storage, why in row(found["closed_storages"]).items():
        click.echo(f"does not write to {name_of_storage}: {why}")


def _warn(remarks: str) -> None:
    """Show what the server has to say of a queue it accepted."""
    for remark in filter(None, remarks.split("; ")):
        click.echo(f"pilotkit: note: {remark}", err=True)


def _change(text: str) -> tuple[str, Json]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadInput(f"'{text}' is not of the form KEY=VALUE, as in status=offline")
    try:
        parsed: Json = json.loads(value)
    except ValueError:
        parsed = value
    return key, parsed
