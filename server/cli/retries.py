"""`pilotkit retries`: what follows failed attempts, by rules (the retry module, chapter 20 of PanDA's documents)."""

from __future__ import annotations

import click

from server.cli.client import Json, Row, row, rows
from server.cli.errors import BadInput
from server.cli.options import address_options, json_option, server
from server.cli.output import cell, print_json, print_table


@click.group()
def retries() -> None:
    """Rules for failed attempts: which errors are not tried again, or with more memory or time."""


@retries.command("list")
@json_option
@address_options
def list_rules(as_json: bool) -> None:
    """List the rules.

    \b
    Example:
      pilotkit retries list
    """
    with server() as client:
        found = rows(client.get("retries/list"))
    if as_json:
        print_json([*found])
        return
    columns = ("RULE", "ACTION", "SOURCE", "CODE", "EXPRESSION", "PARAMETERS", "ONLY FOR", "ACTIVE", "DESCRIPTION")
    keys = ("ruleID", "action", "errorSource", "errorCode", "errorDiag", "parameters", "scope", "active", "description")
    lines = [[{**one, "scope": _scope(one)}.get(key) for key in keys] for one in found]
    print_table(columns, lines, right="RULE CODE")


def _scope(rule: Row) -> Json:
    return {name: rule[name] for name in ("architecture", "release", "workQueue", "VO") if rule.get(name)}


@retries.command()
@click.argument("action")
@click.argument("source")
@click.argument("code", type=int)
@click.option("--match", default="", metavar="REGEX", help="Only errors whose text begins with this expression.")
@click.option("--set", "settings", multiple=True, metavar="NAME=NUMBER", help="A parameter of the action.")
@click.option("--architecture", default="", metavar="TEXT", help="Only jobs with this cmtConfig.")
@click.option("--release", default="", metavar="TEXT", help="Only jobs of this software release.")
@click.option("--label", default="", metavar="TEXT", help="Only jobs of this prodSourceLabel.")
@click.option("--vo", default="", metavar="TEXT", help="Only jobs of this organisation.")
@click.option("--passive", is_flag=True, help="Only say in the history of jobs what the rule would do.")
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@json_option
@address_options
def add(
    action: str,
    source: str,
    code: int,
    match: str,
    settings: tuple[str, ...],
    architecture: str,
    release: str,
    label: str,
    vo: str,
    passive: bool,
    description: str,
    as_json: bool,
) -> None:
    """Add a rule: ACTION is done when an attempt fails with error CODE of SOURCE and would be tried again.

    \b
    Actions and their parameters:
      no_retry                the job is not tried again
      limit_retry             maxAttempt: it may fail so often
      increase_memory         step: MB a core more (1000)
      increase_memory_xtimes  factor: times as much memory (1.5)
      increase_cputime        factor: times as much wall time (1.5)
      reduce_input_per_job    said in the history, for whoever makes the jobs of the task
    Sources: pilot, exe (payload), jobDispatcher, taskBuffer, ddm, sup, brokerage, trans (the payload's exit code).

    \b
    Examples:
      pilotkit retries add no_retry pilot 1305 --match '.*No such dataset' --passive
      pilotkit retries add increase_memory pilot 1235 --set step=2000
    """
    rule: Row = {"action": action, "errorSource": source, "errorCode": code, "active": not passive}
    rule |= {"errorDiag": match, "architecture": architecture, "release": release, "workQueue": label, "VO": vo}
    rule |= {"description": description, "parameters": dict(_parameter(text) for text in settings)}
    with server() as client:
        stored = row(client.post("retries/add", rule))
    if as_json:
        print_json(stored)
    else:
        click.echo(f"rule {cell(stored.get('ruleID'))} is {'passive' if passive else 'active'}")


def _parameter(text: str) -> tuple[str, Json]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise BadInput(f"'{text}' is not of the form NAME=NUMBER, as in maxAttempt=2") from None


@retries.command()
@click.argument("rule", type=click.IntRange(1))
@address_options
def activate(rule: int) -> None:
    """Have a passive RULE applied.

    \b
    Example:
      pilotkit retries activate 3
    """
    _set_active(rule, True)


@retries.command()
@click.argument("rule", type=click.IntRange(1))
@address_options
def passivate(rule: int) -> None:
    """Have a RULE only say in the history of jobs what it would do.

    \b
    Example:
      pilotkit retries passivate 3
    """
    _set_active(rule, False)


def _set_active(rule: int, active: bool) -> None:
    with server() as client:
        client.post("retries/set_active", {"rule_id": rule, "active": active})
    click.echo(f"rule {rule} is {'active' if active else 'passive'}")


@retries.command()
@click.argument("rule", type=click.IntRange(1))
@address_options
def remove(rule: int) -> None:
    """Remove a RULE.

    \b
    Example:
      pilotkit retries remove 3
    """
    with server() as client:
        client.post("retries/remove", {"rule_id": rule})
    click.echo(f"removed: rule {rule}")
