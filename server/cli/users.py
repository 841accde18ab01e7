"""`pilotkit user`: what the server knows of the people and robots behind credentials."""

from __future__ import annotations

import click

from server.cli.client import Json, Row, row, rows
from server.cli.options import address_options, json_option, server
from server.cli.output import print_json, print_table
from server.cli.token import ROLES

_KEYS = ("name", "roles", "rights", "status", "subject")


@click.group()
def user() -> None:
    """Users: list them, give them roles and rights, ban them (for operators)."""


@user.command("list")
@json_option
@address_options
def list_users(as_json: bool) -> None:
    """List the users the server has seen or was told of.

    \b
    Example:
      pilotkit user list
    """
    with server() as client:
        found = rows(client.get("user/list"))
    if as_json:
        print_json([*found])
    else:
        _print(found)


@user.command("set")
@click.argument("name")
@click.option(
    "--subject", metavar="TEXT", help="Name of a certificate (/DC=.../CN=...), or 'ISSUER SUBJECT' of ID tokens."
)
@click.option("--role", "roles", type=click.Choice([*ROLES, "none"]), multiple=True, help="May be given again.")
@click.option("--rights", metavar="KPT", help="k: all key pairs, p: all proxies and tokens, t: all token keys.")
@json_option
@address_options
def set_user(name: str, subject: str | None, roles: tuple[str, ...], rights: str | None, as_json: bool) -> None:
    """Add the user NAME, or change what is given.

    Roles are added to those of a certificate or ID token; a token of this server keeps its own.

    \b
    Examples:
      pilotkit user set alice --subject "/DC=org/DC=site/CN=Alice" --role operator
      pilotkit user set my-site --rights kp
    """
    wanted: dict[str, Json] = {"name": name}
    wanted |= {key: value for key, value in (("subject", subject), ("rights", rights)) if value is not None}
    if roles:
        wanted["roles"] = [role for role in roles if role != "none"]
    _change(wanted, as_json)


@user.command()
@click.argument("name")
@json_option
@address_options
def ban(name: str, as_json: bool) -> None:
    """Turn the user NAME away, whatever the credential. It takes 5 s to reach every web server.

    \b
    Example:
      pilotkit user ban mallory
    """
    _change({"name": name, "banned": True}, as_json)


@user.command()
@click.argument("name")
@json_option
@address_options
def unban(name: str, as_json: bool) -> None:
    """Let the user NAME in again.

    \b
    Example:
      pilotkit user unban mallory
    """
    _change({"name": name, "banned": False}, as_json)


def _change(wanted: dict[str, Json], as_json: bool) -> None:
    with server() as client:
        changed = row(client.post("user/set", wanted))
    if as_json:
        print_json(changed)
    else:
        _print([changed])


def _print(found: list[Row]) -> None:
    print_table([key.upper() for key in _KEYS], [[line.get(key) for key in _KEYS] for line in found])
