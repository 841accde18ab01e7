"""`pilotkit storage`: the storage endpoints (RSEs) the server knows."""

from __future__ import annotations

from typing import IO

import click

from server.cli.client import Json, Row, row
from server.cli.options import address_options, json_option, read_descriptions, server
from server.cli.output import print_json, print_table


@click.group()
def storage() -> None:
    """Storage endpoints: add, list and remove their descriptions."""


@storage.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@json_option
@address_options
def add(file: IO[str], as_json: bool) -> None:
    """Add the storage endpoints in FILE, or replace them.

    FILE holds {"RSE": {description}, ...} in the terms of ddmendpoints.json; "-" reads stdin.

    \b
    Example:
      pilotkit storage add storages.json
    where storages.json is
      {"MY_DISK": {"state": "ACTIVE", "is_deterministic": true, "arprotocols":
        {"default": [{"endpoint": "file://localhost", "flavour": "local", "id": 1, "path": "/data/"}]}}}
    """
    storages = read_descriptions(file, "storage")
    with server() as client:
        names = client.post("storage/add", {"storages": storages})
    if as_json:
        print_json(names)
    else:
        click.echo(f"added: {', '.join(storages)}")


@storage.command("list")
@json_option
@address_options
def list_storages(as_json: bool) -> None:
    """List the storage endpoints and where their files are.

    \b
    Example:
      pilotkit storage list
    """
    with server() as client:
        storages = row(client.get("storage/list"))
    if as_json:
        print_json(storages)
        return
    lines: list[list[Json]] = []
    for name, description in sorted(storages.items()):
        known = row(description)
        lines.append([name, known.get("type"), known.get("state"), known.get("site"), ", ".join(_places(known))])
    print_table(("RSE", "TYPE", "STATE", "SITE", "FILES AT"), lines)


@storage.command()
@click.argument("name", metavar="RSE")
@click.option("--force", is_flag=True, help="Although queues name it.")
@json_option
@address_options
def remove(name: str, force: bool, as_json: bool) -> None:
    """Remove the storage RSE. Its files stay where they are, but no job can read them any more.

    It is refused while a queue's description names it.

    \b
    Example:
      pilotkit storage remove MY_DISK
    """
    with server() as client:
        client.post("storage/remove", {"name": name, "force": force})
    if as_json:
        print_json({"name": name})
    else:
        click.echo(f"removed: {name}")


def _places(description: Row) -> list[str]:
    """The distinct endpoint and path pairs of all activities."""
    found: list[str] = []
    protocols = description.get("arprotocols")
    for offers in protocols.values() if isinstance(protocols, dict) else ():
        for offer in offers if isinstance(offers, list) else ():
            if isinstance(offer, dict):
                place = f"{offer.get('endpoint', '')}{offer.get('path', '')}"
                if place not in found:
                    found.append(place)
    return found
