"""`pilotkit harvester`: Harvester's instances, their workers, and what operators order of them."""

from __future__ import annotations

from typing import IO, Final

import click

from server.cli.client import Json, Row, row, rows
from server.cli.errors import BadInput
from server.cli.options import address_options, json_option, read_json, server
from server.cli.output import print_json, print_table

LINES: Final = 50  # of a list when nobody says how many: what a screen shows

_limit = click.option(
    "--limit", type=click.IntRange(1), default=LINES, show_default=True, help="At most so many lines."
)
_instance = click.option("--id", "harvester_id", metavar="ID", help="Of this instance alone.")


@click.group()
def harvester() -> None:
    """Harvester: instances, workers, commands (orders are for operators)."""


@harvester.command("list")
@json_option
@address_options
def list_instances(as_json: bool) -> None:
    """List the instances that have been heard of, with the numbers of their workers.

    \b
    Example:
      pilotkit harvester list
    """
    keys = ("harvesterID", "owner", "hostname", "sw_version", "startTime", "lastUpdate", "workers")
    columns = ("INSTANCE", "OWNER", "HOST", "VERSION", "STARTED", "LAST HEARD", "WORKERS")
    _print_list("harvester/list", {}, columns, keys, as_json)


@harvester.command()
@_instance
@click.option("--queue", metavar="NAME", help="Of this queue alone.")
@click.option("--state", "states", multiple=True, metavar="STATE", help="In this state; may be given again.")
@_limit
@json_option
@address_options
def workers(harvester_id: str | None, queue: str | None, states: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List the workers heard of last, with their jobs. PILOT is what a worker's pilot says, STATE what Harvester does.

    \b
    Example:
      pilotkit harvester workers --queue MY_QUEUE --state running
    """
    asked: dict[str, str | int | list[str]] = {"limit": limit}
    if states:
        asked["status"] = [*states]
    asked |= {key: value for key, value in (("harvester_id", harvester_id), ("panda_queue", queue)) if value}
    keys = (
        "harvesterID",
        "workerID",
        "status",
        "pilotStatus",
        "computingSite",
        "batchID",
        "pandaid_list",
        "lastUpdate",
    )
    columns = ("INSTANCE", "WORKER", "STATE", "PILOT", "QUEUE", "BATCH ID", "JOBS", "LAST HEARD")
    _print_list("harvester/list_workers", asked, columns, keys, as_json, right="WORKER")


@harvester.command()
@click.option("--queue", metavar="NAME", help="Of this queue alone.")
@json_option
@address_options
def statistics(queue: str | None, as_json: bool) -> None:
    """Show how many workers instances say they have, by queue, job type, resource type and state.

    \b
    Example:
      pilotkit harvester statistics --queue MY_QUEUE
    """
    with server() as client:
        said = row(client.get("harvester/get_worker_statistics"))
    found: dict[str, Json] = {name: known for name, known in said.items() if queue in (None, name)}
    if as_json:
        print_json(found)
        return
    lines: list[list[Json]] = [
        [name, instance, job_type, resource_type, states]
        for name, instances in sorted(found.items())
        for instance, types in sorted(row(instances).items())
        for job_type, resources in sorted(row(types).items())
        for resource_type, states in sorted(row(resources).items())
    ]
    print_table(("QUEUE", "INSTANCE", "TYPE", "RESOURCE", "WORKERS"), lines)


@harvester.command()
@_instance
@click.option("--level", metavar="WORD", help="Of this level alone: ERROR, WARNING ...")
@_limit
@json_option
@address_options
def dialogs(harvester_id: str | None, level: str | None, limit: int, as_json: bool) -> None:
    """List what the logs of instances say, the newest first.

    \b
    Example:
      pilotkit harvester dialogs --level ERROR
    """
    asked = _asked(harvester_id, limit) | ({"level": level} if level else {})
    keys = ("harvesterID", "creationTime", "messageLevel", "moduleName", "diagMessage")
    columns = ("INSTANCE", "TIME", "LEVEL", "MODULE", "MESSAGE")
    _print_list("harvester/list_dialogs", asked, columns, keys, as_json)


@harvester.command()
@_instance
@_limit
@json_option
@address_options
def metrics(harvester_id: str | None, limit: int, as_json: bool) -> None:
    """List memory, CPU, disks and credentials of the hosts of instances, the newest first.

    \b
    Example:
      pilotkit harvester metrics --id harvester-1 --limit 1
    """
    keys = ("harvesterID", "creationTime", "hostName", "metrics")
    columns = ("INSTANCE", "TIME", "HOST", "METRICS")
    _print_list("harvester/list_metrics", _asked(harvester_id, limit), columns, keys, as_json)


@harvester.command()
@_instance
@_limit
@json_option
@address_options
def commands(harvester_id: str | None, limit: int, as_json: bool) -> None:
    """List the newest commands to instances, and what became of them.

    \b
    Example:
      pilotkit harvester commands
    """
    keys = ("commandID", "harvesterID", "command", "params", "status", "actor", "creationTime")
    columns = ("NUMBER", "INSTANCE", "COMMAND", "PARAMETERS", "STATE", "BY", "GIVEN")
    _print_list("harvester/list_commands", _asked(harvester_id, limit), columns, keys, as_json, right="NUMBER")


@harvester.command("set-workers")
@click.argument("harvester_id", metavar="INSTANCE")
@click.argument("queue")
@click.argument("numbers", nargs=-1, required=True, metavar="TYPE/RESOURCE=N...")
@address_options
def set_workers(harvester_id: str, queue: str, numbers: tuple[str, ...]) -> None:
    """Have INSTANCE make new workers for QUEUE: N for each job type (managed, user) and resource type.

    \b
    Example:
      pilotkit harvester set-workers harvester-1 MY_QUEUE managed/SCORE=2 managed/MCORE=1
    """
    wanted: dict[str, Json] = {}
    for text in numbers:
        kind, _, number = text.partition("=")
        job_type, _, resource_type = kind.partition("/")
        if not (job_type and resource_type and number.isdecimal()):
            raise BadInput(f"'{text}' is not of the form TYPE/RESOURCE=N, as in managed/SCORE=2")
        of_type = wanted.setdefault(job_type, {})
        assert isinstance(of_type, dict)
        of_type[resource_type] = int(number)
    _order(harvester_id, "SET_N_WORKERS_JOBTYPE", queue, wanted)


@harvester.command("report")
@click.argument("harvester_id", metavar="INSTANCE")
@click.argument("queue")
@address_options
def report(harvester_id: str, queue: str) -> None:
    """Have INSTANCE say how many workers QUEUE has.

    \b
    Example:
      pilotkit harvester report harvester-1 MY_QUEUE
    """
    _order(harvester_id, "REPORT_WORKER_STATS", queue, None)


@harvester.command("kill-workers")
@click.argument("harvester_id", metavar="INSTANCE")
@click.argument("worker_ids", nargs=-1, type=click.IntRange(0), metavar="[WORKER...]")
@click.option("--state", "status", multiple=True, metavar="STATE", help="Those in this state: submitted, running ...")
@click.option("--queue", "computingSite", multiple=True, metavar="NAME", help="Those of this queue.")
@click.option("--ce", "computingElement", multiple=True, metavar="NAME", help="Those of this computing element.")
@click.option("--submission-host", "submissionHost", multiple=True, metavar="NAME", help="Those submitted from there.")
@address_options
def kill_workers(harvester_id: str, worker_ids: tuple[int, ...], **choice: tuple[str, ...]) -> None:
    """Have INSTANCE end workers: those named, or those that fit all options. Options may be given again.

    \b
    Examples:
      pilotkit harvester kill-workers harvester-1 17 18
      pilotkit harvester kill-workers harvester-1 --queue MY_QUEUE --state submitted
    """
    chosen: dict[str, Json] = {key: [*names] for key, names in choice.items() if names}
    if bool(chosen) == bool(worker_ids):
        raise BadInput("say which workers: either their numbers, or --queue, --state ...")
    if worker_ids:
        _order(harvester_id, "SYNC_WORKERS_KILL", "", [*worker_ids])
    else:
        _order(harvester_id, "KILL_WORKERS", "", chosen)


@harvester.command("resource-types")
@click.argument("file", type=click.File(encoding="utf-8"), required=False)
@json_option
@address_options
def resource_types(file: IO[str] | None, as_json: bool) -> None:
    """List the resource types that jobs are sorted into, or set them to the list in FILE ("-" reads stdin).

    A job is of the first type it fits, by cores and MB of memory a core. An empty list brings PanDA's own types back.

    \b
    Example:
      pilotkit harvester resource-types --json > types.json
      pilotkit harvester resource-types types.json
    """
    with server() as client:
        if file is not None:
            client.post("metaconfig/set_resource_types", {"resource_types": read_json(file)})
    keys = ("resource_name", "mincore", "maxcore", "minrampercore", "maxrampercore")
    columns = ("TYPE", "MIN CORES", "MAX CORES", "MIN MB A CORE", "MAX MB A CORE")
    _print_list("metaconfig/get_resource_types", {}, columns, keys, as_json)


def _asked(harvester_id: str | None, limit: int) -> dict[str, str | int | list[str]]:
    asked: dict[str, str | int | list[str]] = {"limit": limit}
    return asked | ({"harvester_id": harvester_id} if harvester_id else {})


def _order(harvester_id: str, command: str, queue: str, params: Json) -> None:
    body: Row = {"harvester_id": harvester_id, "command": command, "params": params}
    if queue:
        body["panda_queue"] = queue
    with server() as client:
        number = client.post("harvester/add_command", body)
    click.echo(f"command {number}: {harvester_id} fetches it within seconds, if it runs")


def _print_list(
    method: str,
    asked: dict[str, str | int | list[str]],
    columns: tuple[str, ...],
    keys: tuple[str, ...],
    as_json: bool,
    right: str = "",
) -> None:
    with server() as client:
        found = rows(client.get(method, asked))
    if as_json:
        print_json([*found])
    else:
        print_table(columns, [[row(one).get(key) for key in keys] for one in found], right=right)
