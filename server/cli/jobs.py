"""`pilotkit submit`, `jobs` and `kill`: jobs by the dozen. One job in detail is in job.py."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import IO, Final

import click

from server.cli.client import Json, Row, row, rows
from server.cli.errors import EXIT_REFUSED, BadInput
from server.cli.options import address_options, json_option, read_json, server
from server.cli.output import print_json, print_table

DIAG_WIDTH: Final = 60  # characters of a diagnosis in a list; `pilotkit job ID` shows all of it

FORCE: Final = 9  # PanDA's code of a kill that waits for nobody


@click.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option(
    "--sandbox",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A tar.gz file to upload; it is unpacked where each job runs.",
)
@json_option
@address_options
def submit(file: IO[str], sandbox: Path | None, as_json: bool) -> None:
    """Submit the job, or the list of jobs, in FILE ("-" reads stdin). All are taken or none.

    \b
    A job needs a queue and a command; the rest has defaults:
      queue, command, outputs, inputs, name, sandbox, scope, label, cores, memory (MB), disk (MB),
      walltime (s), priority, max_attempts, environment, user; and any field of getJob by its own name.

    A job whose input is another job's output waits until that job has finished.

    \b
    Example:
      echo '{"queue": "MY_QUEUE", "command": "date > out.txt", "outputs": ["out.txt"]}' | pilotkit submit -
    """
    jobs = _read_jobs(file)
    with server() as client:
        if sandbox is not None:
            name = f"jobO.{uuid.uuid4()}.tar.gz"  # the form of panda-client's sandboxes (client.md, section 1.2)
            client.upload(sandbox, name)
            for wanted in jobs:
                wanted.setdefault("sandbox", name)
        taken = rows(client.post("job/submit_jobs", {"jobs": [*jobs]}))
    if as_json:
        print_json([*taken])
    else:
        lines = [[one.get("PandaID"), one.get("jobStatus"), _outputs(one)] for one in taken]
        print_table(("JOB", "STATE", "OUTPUTS"), lines, right="JOB")


def _read_jobs(file: IO[str]) -> list[Row]:
    value = read_json(file)
    found = value if isinstance(value, list) else [value]
    if not found or not all(isinstance(item, dict) for item in found):
        raise BadInput(f'{file.name}: expected a job, {{"queue": ..., "command": ...}}, or a list of jobs')
    return [dict(row(item)) for item in found]


def _outputs(taken: Row) -> str:
    outputs = taken.get("outputs")
    return ", ".join(f"{one.get('scope')}:{one.get('lfn')}" for one in rows(outputs)) if outputs else ""


@click.command()
@click.option("--status", metavar="STATE", help="Only jobs in this state: assigned, activated, running, failed, ...")
@click.option("--queue", metavar="NAME", help="Only jobs of this queue.")
@click.option("--task", "task_id", type=click.IntRange(1), metavar="TASK", help="Only jobs of this task.")
@click.option("--user", metavar="NAME", help="Only jobs of this user; operators see those of others.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@json_option
@address_options
def jobs(
    status: str | None, queue: str | None, task_id: int | None, user: str | None, limit: int, as_json: bool
) -> None:
    """List jobs, the newest first.

    \b
    Examples:
      pilotkit jobs --status failed
      pilotkit jobs --task 4711 --user alice
      pilotkit jobs --queue MY_QUEUE --json | jq '.[].PandaID'
    """
    parameters: dict[str, str | int | list[str]] = {"limit": limit}
    if status:
        parameters["status"] = status
    if queue:
        parameters["queue"] = queue
    if task_id:
        parameters["task_id"] = task_id
    if user:
        parameters["user"] = user
    with server() as client:
        found = rows(client.get("job/list", parameters))
    if as_json:
        print_json([*found])
        return
    columns = ("JOB", "STATE", "QUEUE", "TRY", "NAME", "USER", "CHANGED", "ERROR")
    print_table(columns, [_line(one) for one in found], right="JOB TRY")


def _line(one: Row) -> list[Json]:
    keys = ("PandaID", "jobStatus", "computingSite", "attemptNr", "jobName", "prodUserName", "modificationTime")
    return [*(one.get(key) for key in keys), _error(one)]


def _error(one: Row) -> str:
    """The first error a job has, in PanDA's names, shortened for a list."""
    for source in ("pilot", "exe", "sup", "ddm", "brokerage", "jobDispatcher", "taskBuffer"):
        code = one.get(f"{source}ErrorCode")
        if code:
            diag = " ".join(str(one.get(f"{source}ErrorDiag") or "").split())
            return f"{source} {code}: {diag if len(diag) <= DIAG_WIDTH else diag[: DIAG_WIDTH - 1] + '…'}"
    exit_code = one.get("transExitCode")
    return f"payload exit code {exit_code}" if exit_code not in (None, "", 0, "0") else ""


@click.command(short_help="Kill jobs, waiting or running.")
@click.argument("job_ids", nargs=-1, required=True, type=click.IntRange(1), metavar="ID...")
@click.option("--force", is_flag=True, help="Do not wait for the pilots of jobs that run: they are told afterwards.")
@click.option("--soft", is_flag=True, help="Jobs of the event service: let them do the event ranges they have.")
@json_option
@address_options
def kill(job_ids: tuple[int, ...], force: bool, soft: bool, as_json: bool) -> None:
    """Kill jobs. One that waits is cancelled at once, one that runs is ended by its pilot at its next report.

    Exits with 1 if any of them could not be killed.

    \b
    Examples:
      pilotkit kill 17 18
      pilotkit kill --force 17
    """
    if force and soft:
        raise BadInput("give --force or --soft, not both")
    with server() as client:
        if soft:
            for job_id in job_ids:
                click.echo(client.post_with_message("job/softkill", {"job_id": job_id})[1])
            return
        body: Row = {"job_ids": [*job_ids], **({"code": FORCE} if force else {})}
        answers, message = client.post_with_message("job/kill", body)
    accepted = [bool(answer) for answer in answers] if isinstance(answers, list) else [False] * len(job_ids)
    if as_json:
        print_json([{"PandaID": job_id, "accepted": taken} for job_id, taken in zip(job_ids, accepted, strict=True)])
    elif message:
        click.echo(message)
    if not all(accepted):
        raise SystemExit(EXIT_REFUSED)
