"""`pilotkit token`: tokens that pilots, users and operators show to the server."""

from __future__ import annotations

import re
from typing import Final

import click

from server.cli.client import Json, row, rows
from server.cli.errors import BadInput
from server.cli.options import address_options, json_option, server
from server.cli.output import print_json, print_table

ROLES: Final = ("pilot", "harvester", "user", "operator")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group()
def token() -> None:
    """Tokens: make, list and revoke them (for operators)."""


@token.command()
@click.option("--name", required=True, help="Whom it is for: a user's name, or one for the pilots of a site.")
@click.option("--role", "roles", type=click.Choice(ROLES), multiple=True, required=True, help="May be given again.")
@click.option("--queue", metavar="Q", help="The queue a pilot may have jobs of; '*' for every queue.")
@click.option("--label", metavar="L", help="The prodSourceLabel a pilot may ask for.  [any]")
@click.option("--expires", metavar="TIME", default="30d", show_default=True, help="How long it is good for: 12h, 30d.")
@json_option
@address_options
def create(
    name: str, roles: tuple[str, ...], queue: str | None, label: str | None, expires: str, as_json: bool
) -> None:
    """Make a token and print it. It is shown once: the server keeps no copy.

    \b
    Examples:
      pilotkit token create --role pilot --queue MY_QUEUE --label managed --name my-site > my-site.token
      pilotkit token create --role user --name alice --expires 90d
    """
    wanted: dict[str, Json] = {"name": name, "roles": [*roles], "lifetime": _seconds(expires)}
    wanted |= {key: value for key, value in (("queue", queue), ("label", label)) if value is not None}
    with server() as client:
        data, remark = client.post_with_message("token/create", wanted)
    made = row(data)
    if as_json:
        print_json(made)
    else:
        click.echo(str(made["token"]))
        click.echo(f"pilotkit: token {made['token_id']} for {name}, good until {made['ends']}", err=True)
    if remark:
        click.echo(f"pilotkit: note: {remark}", err=True)


@token.command("list")
@json_option
@address_options
def list_tokens(as_json: bool) -> None:
    """List the tokens that were made, without the tokens themselves.

    \b
    Example:
      pilotkit token list
    """
    with server() as client:
        found = rows(client.get("token/list"))
    if as_json:
        print_json([*found])
        return
    keys = ("token_id", "name", "roles", "queue", "label", "ends", "revoked")
    columns = ("TOKEN", "NAME", "ROLES", "QUEUE", "LABEL", "ENDS", "REVOKED")
    print_table(columns, [[line.get(key) for key in keys] for line in found])


@token.command()
@click.argument("number", required=False)
@click.option("--name", help="Revoke all tokens of this name instead.")
@json_option
@address_options
def revoke(number: str | None, name: str | None, as_json: bool) -> None:
    """Revoke the token NUMBER, as `pilotkit token list` shows it, and all that it was exchanged for.

    No web server takes it any more 5 s later.

    \b
    Examples:
      pilotkit token revoke 0f3a5d7c9b1e2468
      pilotkit token revoke --name my-site
    """
    if bool(number) == bool(name):
        raise BadInput("give the NUMBER of a token, or --name, one of them")
    with server() as client:
        revoked = client.post("token/revoke", {"token_id": number} if number else {"name": name})
    if as_json:
        print_json(revoked)
    elif isinstance(revoked, list):
        click.echo(f"revoked: {', '.join(map(str, revoked))}")


def _seconds(text: str) -> int:
    """A time like 90s, 30m, 12h or 30d in seconds."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    if found is None:
        raise BadInput(f"'{text}' is no time; write it as 12h or 30d (s, m, h, d)")
    return int(found[1]) * _UNITS[found[2]]
