"""`pilotkit config`: the operators' configuration, PanDA's gdpconfig table (chapter 10)."""

from __future__ import annotations

import click

from server.cli.client import Row, row, rows
from server.cli.errors import Refused
from server.cli.options import address_options, json_option, server
from server.cli.output import cell, print_json, print_table


@click.group()
def config() -> None:
    """Values all servers share: time-outs and other policy, by component and key."""


@config.command("list")
@json_option
@address_options
def list_values(as_json: bool) -> None:
    """List the values, and the parameters that have their default.

    \b
    Example:
      pilotkit config list
    """
    with server() as client:
        found = rows(client.get("metaconfig/list_config"))
    if as_json:
        print_json([*found])
        return
    keys = ("component", "key", "vo", "value", "default", "type", "description")
    columns = ("COMPONENT", "KEY", "VO", "VALUE", "DEFAULT", "TYPE", "DESCRIPTION")
    print_table(columns, [[one.get(key) for key in keys] for one in found], right="VALUE DEFAULT")


@config.command()
@click.argument("component")
@click.argument("key")
@click.option("--vo", default="", metavar="VO", help="The value of this organisation, if it has one of its own.")
@address_options
def get(component: str, key: str, vo: str) -> None:
    """Print a value. Without one in the table: nothing, and exit code 1.

    \b
    Example:
      pilotkit config get watcher TIMEOUT_holding
    """
    with server() as client:
        value = client.get("metaconfig/get_config", {"component": component, "key": key, "vo": vo})
    if value is None:
        raise Refused(f"{component} {key} has no value; `pilotkit config list` shows its default if there is one")
    click.echo(value)


@config.command("set")
@click.argument("component")
@click.argument("key")
@click.argument("value")
@click.option("--vo", default="", metavar="VO", help="Only for this organisation.")
@click.option("--type", "kind", default="", metavar="TYPE", help="int, float, str or bool; what is known needs none.")
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@address_options
def set_value(component: str, key: str, value: str, vo: str, kind: str, description: str) -> None:
    """Set a value; it is in force everywhere within half a minute.

    \b
    Example:
      pilotkit config set watcher HEARTBEAT_TIMEOUT_production 3
    """
    wanted: Row = {"component": component, "key": key, "value": value, "vo": vo}
    wanted |= {name: text for name, text in (("type", kind), ("description", description)) if text}
    with server() as client:
        stored = row(client.post("metaconfig/set_config", wanted))
    of_vo = f" (VO {vo})" if vo else ""
    click.echo(f"{component} {key}{of_vo} = {cell(stored.get('value'))}")


@config.command()
@click.argument("component")
@click.argument("key")
@click.option("--vo", default="", metavar="VO", help="Only the value of this organisation.")
@address_options
def remove(component: str, key: str, vo: str) -> None:
    """Remove a value, so that the default holds again.

    \b
    Example:
      pilotkit config remove watcher HEARTBEAT_TIMEOUT_production
    """
    with server() as client:
        client.post("metaconfig/remove_config", {"component": component, "key": key, "vo": vo})
    click.echo(f"removed: {component} {key}")
