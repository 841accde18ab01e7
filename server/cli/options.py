"""Options that every command has, written once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Final, TypeVar

import click

from server.cli.client import Client, Json
from server.cli.errors import BadInput

DEFAULT_URL: Final = "http://127.0.0.1:25080"  # PanDA's own port for http

Command = TypeVar("Command", bound=Callable[..., None])


@dataclass
class Address:
    """Where the server is, and who asks; from the environment unless options say otherwise."""

    url: str = field(default_factory=lambda: os.environ.get("PILOTKIT_URL") or DEFAULT_URL)
    token: str = field(default_factory=lambda: os.environ.get("PILOTKIT_TOKEN", ""))


def _set_url(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Address).url = value


def _set_token(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Address).token = value


def address_options(command: Command) -> Command:
    """Add --url and --token. They may stand before or after the name of the command; the one after it wins."""
    url = click.option(
        "--url",
        metavar="URL",
        expose_value=False,
        callback=_set_url,
        help=f"Address of the server (PILOTKIT_URL, {DEFAULT_URL}).",
    )
    token = click.option(
        "--token", metavar="TEXT", expose_value=False, callback=_set_token, help="Your token (PILOTKIT_TOKEN)."
    )
    return url(token(command))


def deployment_environment(**options: str | int | None) -> dict[str, str]:
    """The environment of this process, with what was given on the command line as PILOTKIT_* variables."""
    given = {f"PILOTKIT_{name}": str(value) for name, value in options.items() if value is not None}
    return {**os.environ, **given}


def json_option(command: Command) -> Command:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


@contextmanager
def server() -> Iterator[Client]:
    """A client for the server that the options of the current command name."""
    address = click.get_current_context().ensure_object(Address)
    client = Client(address.url, address.token)
    try:
        yield client
    finally:
        client.close()


def read_json(file: IO[str]) -> Json:
    """The JSON value in a file. Raises BadInput with the place of the mistake."""
    try:
        value: Json = json.load(file)
    except json.JSONDecodeError as error:
        raise BadInput(f"{file.name}: not JSON, line {error.lineno} column {error.colno}: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{file.name}: not JSON: {error}") from error
    return value


def read_descriptions(file: IO[str], noun: str) -> dict[str, Json]:
    """A file of the form {name: description}. Raises BadInput when it is something else."""
    value = read_json(file)
    if not isinstance(value, dict) or not value:
        raise BadInput(f'{file.name}: expected {{"NAME": {{description of the {noun}}}, ...}}')
    for name, description in value.items():
        if not isinstance(description, dict):
            raise BadInput(
                f"{file.name}: the description of {noun} '{name}' is not an object; "
                f'the file has the form {{"NAME": {{description}}, ...}}'
            )
    return value
