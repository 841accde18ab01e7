"""How results are shown: rich tables on a terminal, plain aligned columns in a pipe, JSON when asked for.

rich honours NO_COLOR by itself; it is imported where it is used, because it takes a while.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import click

from server.cli.client import Json

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d(?:\.\d+)?)(?:Z|\+00:00)?")

# Colours of the states that a person looks for in a list.
STATE_STYLES: Final = {
    "finished": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "closed": "magenta",
    "running": "cyan",
    "starting": "cyan",
    "sent": "cyan",
    "holding": "yellow",
    "transferring": "yellow",
    "online": "green",
    "offline": "red",
    "ACTIVE": "green",
}


def print_json(value: Json) -> None:
    """Print a value as JSON, for programs."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def printable(text: str) -> str:
    """What a payload or a pilot has written must not command the terminal of who reads it."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "" if sign == "\r" else "?" for sign in text)


def cell(value: Json) -> str:
    """A value as a table shows it: a dash for nothing, times without T and zone (all are UTC), one line."""
    if value is None or value == "":
        return "-"
    if isinstance(value, dict):
        if "__datetime__" in value:  # how v1 wraps times (client.md, section 0)
            return cell(value["__datetime__"])
        return " ".join(f"{key}={cell(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(cell(item) for item in value) or "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = " ".join(printable(str(value)).split())
    time = _TIME.fullmatch(text)
    return f"{time[1]} {time[2]}" if time else text


def print_table(columns: Sequence[str], lines: Iterable[Sequence[Json]], title: str = "", right: str = "") -> None:
    """Print a table.

    Args:
        columns: the headings.
        lines: a sequence of values for each line.
        title: shown above it.
        right: names of the columns whose values are numbers, separated by blanks.
    """
    texts = [[cell(value) for value in line] for line in lines]
    if sys.stdout.isatty():
        _print_rich(columns, texts, title, right.split())
        return
    if title:
        click.echo(title)
    widths = [max(len(text[place]) for text in [list(columns), *texts]) for place in range(len(columns))]
    for text in [list(columns), *texts]:
        padded = (
            value.rjust(width) if column in right.split() else value.ljust(width)
            for value, width, column in zip(text, widths, columns, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def _print_rich(columns: Sequence[str], texts: list[list[str]], title: str, right: list[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=SIMPLE_HEAD, title=Text(title) if title else None, title_justify="left", title_style="bold", pad_edge=False
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for text in texts:
        table.add_row(*(Text(value, style=STATE_STYLES.get(value, "")) for value in text))
    Console().print(table)


def heading(text: str) -> None:
    """Print a line that begins a section."""
    click.echo(click.style(text, bold=True) if _colour() else text)


def state(text: str) -> str:
    """A state's name, coloured on a terminal."""
    style = STATE_STYLES.get(text, "").split()
    return click.style(text, fg=style[-1], bold="bold" in style) if style and _colour() else text


def _colour() -> bool:
    import os

    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
