"""`pilotkit datasets`: what jobs have written, by the names they were given for it."""

from __future__ import annotations

import click

from server.cli.client import Client, Row, row, rows
from server.cli.options import address_options, json_option, server
from server.cli.output import print_json, print_table

#: Files that are asked for at once.
_PAGE = 1000


@click.command()
@click.argument("dataset", required=False, metavar="[DATASET]")
@click.option("--state", type=click.Choice(["open", "closed"]), help="Only those in this state.")
@click.option("--user", metavar="NAME", help="Only those of this user.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many datasets."
)
@json_option
@address_options
def datasets(dataset: str | None, state: str | None, user: str | None, limit: int, as_json: bool) -> None:
    """List datasets that jobs write to, the newest first; with SCOPE:NAME, the files of one.

    A dataset is open while a job may still write to it. READY, COMING and LOST are numbers of files, as the daemon
    counted them last; SIZE is that of what is ready, in bytes. DATASET may have * for anything.

    \b
    Examples:
      pilotkit datasets
      pilotkit datasets 'user.jane.fit*' --state closed
      pilotkit datasets user.jane:user.jane.fit_out
    """
    scope, colon, name = (dataset or "").partition(":")
    with server() as client:
        if colon:
            about = row(client.get("dataset/get", {"scope": scope, "name": name, "user": user or ""}))
            about["files"] = [*_files(client, scope, name, user or "")]
        else:
            asked: dict[str, str | int | list[str]] = {"name": scope, "state": state or "", "user": user or ""}
            found = rows(client.get("dataset/list", {**asked, "limit": limit}))
    if colon:
        _print_one(about, as_json)
    elif as_json:
        print_json([*found])
    else:
        keys = ("state", "ready", "promised", "lost", "fsize", "creationTime")
        lines = [[f"{one.get('scope')}:{one.get('name')}", *(one.get(key) for key in keys)] for one in found]
        columns = ("DATASET", "STATE", "READY", "COMING", "LOST", "SIZE", "SINCE")
        print_table(columns, lines, right="READY COMING LOST SIZE")


def _files(client: Client, scope: str, name: str, user: str) -> list[Row]:
    found: list[Row] = []
    while True:
        after = str(found[-1].get("lfn")) if found else ""
        asked: dict[str, str | int | list[str]] = {"scope": scope, "name": name, "after": after, "limit": _PAGE}
        asked["user"] = user
        page = rows(client.get("dataset/list_files", asked))
        found += page
        if len(page) < _PAGE:
            return found


def _print_one(about: Row, as_json: bool) -> None:
    if as_json:
        print_json(about)
        return
    files = rows(about["files"])
    keys = ("lfn", "status", "PandaID", "fsize", "checksum", "endpoint", "surl")
    title = (
        f"{about.get('scope')}:{about.get('name')} of {about.get('prodUserName')} is {about.get('state')}: "
        f"{about.get('ready')} files with {about.get('fsize')} bytes, {about.get('promised')} to come, "
        f"{about.get('lost')} lost"
    )
    columns = ("FILE", "STATE", "JOB", "SIZE", "CHECKSUM", "STORAGE", "PLACE")
    print_table(columns, [[one.get(key) for key in keys] for one in files], title=title, right="JOB SIZE")
