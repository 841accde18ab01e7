"""`pilotkit job`: everything about one job, and waiting for it."""

from __future__ import annotations

import sys
import time
from typing import Final

import click

from server.cli.client import Client, Json, Row, row, rows
from server.cli.errors import JobNotFinished, StillRunning
from server.cli.options import address_options, json_option, server
from server.cli.output import cell, heading, print_json, print_table, state

# States in which this attempt is over for good (chapter 2.5 of PanDA's documents).
OVER: Final = ("finished", "failed", "cancelled", "closed")
# s between two looks at a job that is waited for: quick at first, then no burden to the server
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0

# What is shown first, under a name for people.
FACTS: Final = (
    ("name", "jobName"),
    ("user", "prodUserName"),
    ("queue", "computingSite"),
    ("attempt", "attemptNr"),
    ("label", "prodSourceLabel"),
    ("priority", "currentPriority"),
    ("cores", "coreCount"),
    ("created", "creationTime"),
    ("started", "startTime"),
    ("ended", "endTime"),
    ("pilot", "pilotID"),
    ("node", "modificationHost"),
    ("payload exit code", "transExitCode"),
    ("CPU time (s)", "cpuConsumptionTime"),
    ("largest PSS (kB)", "maxPSS"),
    ("timing (s)", "pilotTiming"),
)

HISTORY: Final = {"TIME": "time", "TRY": "attemptNr", "STATE": "status", "BY": "actor", "WHY": "reason"}
FILES: Final = {
    "TYPE": "type",
    "SCOPE": "scope",
    "LFN": "lfn",
    "STATE": "status",
    "BYTES": "fsize",
    "CHECKSUM": "checksum",
    "RSE": "endpoint",
    "SURL": "surl",
}
TRANSFERS: Final = {
    "TRY": "attemptNr",
    "FILE": "lfn",
    "WAY": "direction",
    "NO": "number",
    "TOOL": "tool",
    "RSE": "endpoint",
    "HOST": "host",
    "BYTES": "bytes",
    "SECONDS": "seconds",
    "RESULT": "kind",
    "CODE": "code",
}
PHASES: Final = {"TRY": "attemptNr", "PHASE": "phase", "MILLISECONDS": "ms"}
# A job may have thousands; what failed is shown, and the newest others.
MOST_TRANSFERS: Final = 20


@click.command(short_help="Show everything about one job, or wait for it.")
@click.argument("job_id", type=click.IntRange(1), metavar="ID")
@click.option("--wait", is_flag=True, help="Wait until the job is over; exit with 0 only if it has finished.")
@click.option("--timeout", type=click.FloatRange(0), metavar="S", help="With --wait: give up after S seconds.")
@json_option
@address_options
def job(job_id: int, wait: bool, timeout: float | None, as_json: bool) -> None:
    """Show the job ID: its states and their times, its error with who is to blame and what to do, files, metrics.

    \b
    Exit codes with --wait:
      0  finished        4  failed, cancelled or closed        5  not over after --timeout seconds

    \b
    Examples:
      pilotkit job 17
      pilotkit job 17 --wait --timeout 3600 && echo done
    """
    with server() as client:
        details = _wait(client, job_id, timeout) if wait else _details(client, job_id)
    if as_json:
        print_json(details)
    else:
        _show(details)
    status = details.get("jobStatus")
    if wait and status not in OVER:
        raise StillRunning(f"job {job_id} is still {status} after {timeout:g} s")
    if wait and status != "finished":
        raise JobNotFinished(f"job {job_id} is {status}")


def _details(client: Client, job_id: int) -> Row:
    return row(client.get("job/get_details", {"job_id": job_id}))


def _wait(client: Client, job_id: int, timeout: float | None) -> Row:
    """The details of a job once it is over, or as they are when the time is up."""
    deadline = time.monotonic() + timeout if timeout is not None else None
    pause = FIRST_PAUSE
    shown = ""
    while True:
        details = _details(client, job_id)
        status = str(details.get("jobStatus"))
        if status != shown and sys.stderr.isatty():
            click.echo(f"job {job_id}: {status}", err=True)
            shown = status
        left = deadline - time.monotonic() if deadline is not None else pause
        if status in OVER or left <= 0:
            return details
        time.sleep(min(pause, left))  # the server is asked at its leisure; nothing in here could wake us
        pause = min(1.5 * pause, LONGEST_PAUSE)


def _show(details: Row) -> None:
    heading(f"job {details.get('PandaID')}: {state(str(details.get('jobStatus')))}")
    for label, key in FACTS:
        value = details.get(key)
        if value not in (None, "", [], "NULL"):
            click.echo(f"  {label:<18} {cell(value)}")
    for file in rows(details.get("waiting_for") or []):
        maker = f", an output of job {file['PandaID']}" if file.get("PandaID") else ", which no job makes"
        click.echo(f"  {'waits for':<18} {file.get('scope')}:{file.get('lfn')}{maker}")
    for label, key in (("comes from", "parents"), ("goes on as", "children")):
        for other in rows(details.get(key) or []):
            click.echo(f"  {label:<18} job {other.get('PandaID')} ({other.get('kind')})")
    _show_events(details)
    autopsies = rows(details.get("autopsies") or [])
    _show_error(details.get("error"))
    for one in autopsies:
        _show_autopsy(one, details.get("error"))
    _show_rows("states", details.get("history"), HISTORY)
    _show_rows("files", details.get("files"), FILES)
    timeline: list[Json] = [
        {**row, "attemptNr": one["attemptNr"]} for one in autopsies for row in rows(one["timeline"])
    ]
    _show_rows("phases", timeline, PHASES)
    _show_transfers(rows(details.get("transfers") or []))
    metrics = details.get("metrics")
    if isinstance(metrics, dict) and metrics:
        heading("\nmetrics")
        lines: list[list[Json]] = [[name, value] for name, value in metrics.items()]
        print_table(("NAME", "VALUE"), lines, right="VALUE")


def _show_events(details: Row) -> None:
    """How many event ranges are in which state, and how far their merging is."""
    ranges, merge = details.get("events"), details.get("merge")
    if isinstance(ranges, dict) and ranges:
        text = ", ".join(f"{number} {status}" for status, number in ranges.items())
        click.echo(f"  {'event ranges':<18} {cell(text)}")
    if isinstance(merge, dict):
        click.echo(f"  {'their merging':<18} {cell(merge.get('state'))}: {cell(merge.get('reason'))}")


def _show_transfers(found: list[Row]) -> None:
    """All that failed, and as many of the others as there is room for, in their order."""
    good = [one for one in found if one.get("kind") == "ok"]
    room = max(0, MOST_TRANSFERS - (len(found) - len(good)))
    passed_over = {id(one) for one in good[: len(good) - room]}
    _show_rows("transfers", [one for one in found if id(one) not in passed_over], TRANSFERS)
    if passed_over:
        click.echo(f"({len(passed_over)} more that went well; --json has them all)")


def _show_rows(title: str, data: Json, columns: dict[str, str]) -> None:
    found = rows(data or [])
    if found:
        heading(f"\n{title}")
        print_table(
            tuple(columns),
            [[one.get(key) for key in columns.values()] for one in found],
            right="TRY NO BYTES SECONDS MILLISECONDS CODE",
        )


def _show_error(error: Json) -> None:
    if not isinstance(error, dict):
        return
    heading("\nerror")
    click.echo(
        f"  {cell(error.get('source'))} {cell(error.get('code'))} {cell(error.get('name'))}: "
        f"{cell(error.get('message'))}"
    )
    for label, key in (("what happened", "diag"), ("to blame", "blame"), ("what to do", "advice")):
        if error.get(key):
            click.echo(f"  {label:<18} {cell(error.get(key))}")


def _show_autopsy(one: Row, error: Json) -> None:
    """How a failed attempt came to its end, as its pilot tells it, without what the job's error has said already."""
    if not one.get("code"):
        return
    heading(f"\nend of attempt {cell(one.get('attemptNr'))}")
    click.echo(f"  {'decided by':<18} {cell(one.get('decided_by'))}")
    if not isinstance(error, dict) or error.get("code") != one.get("code"):
        click.echo(f"  {'cause':<18} {cell(one.get('code'))} {cell(one.get('name'))}: {cell(one.get('text'))}")
        click.echo(f"  {'to blame':<18} {cell(one.get('blame'))}")
        click.echo(f"  {'what to do':<18} {cell(one.get('advice'))}")
    evidence = one.get("evidence")
    for text in evidence if isinstance(evidence, list) else []:
        click.echo(f"  {'evidence':<18} {cell(text)}")
