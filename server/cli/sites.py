"""`pilotkit site`: sites, their links, and the information service they are known from."""

from __future__ import annotations

import click

from server.cli.client import row, rows
from server.cli.options import address_options, json_option, server
from server.cli.output import cell, heading, print_json, print_table


@click.group()
def site() -> None:
    """Sites: their queues and storages, and what the information service says of them."""


@site.command("list")
@json_option
@address_options
def list_sites(as_json: bool) -> None:
    """List the sites with their queues and storages.

    DESCRIBED is since when the information service describes a site as it does now.

    \b
    Example:
      pilotkit site list
    """
    with server() as client:
        sites = rows(client.get("site/list"))
    if as_json:
        print_json([*sites])
        return
    keys = ("name", "state", "queues", "storages", "described")
    print_table(("SITE", "STATE", "QUEUES", "STORAGES", "DESCRIBED"), [[one.get(key) for key in keys] for one in sites])


@site.command()
@click.argument("name")
@json_option
@address_options
def show(name: str, as_json: bool) -> None:
    """Show the queues and storages of the site NAME, and which storages are closed.

    \b
    Example:
      pilotkit site show MY_SITE
    """
    with server() as client:
        found = row(client.get("site/get", {"name": name}))
    if as_json:
        print_json(found)
        return
    heading(f"site {name}")
    of_queue = ("name", "status", "state", "closed_storages", "described")
    lines = [[one.get(key) for key in of_queue] for one in rows(found["queues"])]
    print_table(("QUEUE", "STATUS", "STATE", "CLOSED FOR IT", "DESCRIBED"), lines)
    of_storage = ("name", "state", "closed", "described")
    lines = [[one.get(key) for key in of_storage] for one in rows(found["storages"])]
    print_table(("STORAGE", "STATE", "CLOSED", "DESCRIBED"), lines)


@site.command()
@json_option
@address_options
def sources(as_json: bool) -> None:
    """List the information service's addresses, when each was asked, and what could not be used.

    \b
    Example:
      pilotkit site sources
    """
    with server() as client:
        found = rows(client.get("site/list_sources"))
    if as_json:
        print_json([*found])
        return
    keys = ("name", "entries", "checked", "fetched", "address")
    lines = [[one.get(key) for key in keys] for one in found]
    print_table(("SOURCE", "ENTRIES", "ASKED", "LAST NEW", "ADDRESS"), lines, right="ENTRIES")
    for one in found:
        complaints = one.get("complaints")
        for line in filter(None, [one.get("failure"), *(complaints if isinstance(complaints, list) else ())]):
            click.echo(f"{one.get('name')}: {cell(line)}")


@site.command()
@click.option("--from", "source", metavar="SITE", help="Only links from this site.")
@click.option("--to", "destination", metavar="SITE", help="Only links to this site.")
@click.option("--key", metavar="KEY", help="Only this number, for instance closeness.")
@json_option
@address_options
def network(source: str | None, destination: str | None, key: str | None, as_json: bool) -> None:
    """List how well sites are connected.

    \b
    Example:
      pilotkit site network --from MY_SITE --key closeness
    """
    asked = {"source": source, "destination": destination, "key": key}
    with server() as client:
        links = rows(client.get("site/get_network", {name: text for name, text in asked.items() if text}))
    if as_json:
        print_json([*links])
        return
    keys = ("source", "destination", "key", "value", "time")
    print_table(
        ("FROM", "TO", "KEY", "VALUE", "SINCE"), [[one.get(key) for key in keys] for one in links], right="VALUE"
    )
