"""What a person sees of the demo: the progress while it runs, the table at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING

import click

from server.cli.client import Json, Row, rows
from server.cli.output import print_table

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

OVER = ("finished", "failed", "cancelled", "closed")


class Ticker:
    """Shows how jobs go on: bars on a terminal, otherwise a line for each change of state."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._states: dict[int, str] = {}
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Ticker:
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                TextColumn("{task.description:<10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[states]}"),
            )
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def say(self, text: str) -> None:
        """A line with the time (s) since the start."""
        line = f"{time.monotonic() - self._start:5.1f} s  {text}"
        if self._progress is not None:
            self._progress.console.print(line, markup=False, highlight=False)
        else:
            click.echo(line)

    def update(self, jobs: Iterable[Row], pilots: int) -> None:
        """Show the states of all jobs (rows of job/list)."""
        steps: dict[str, list[str]] = {}
        for job in jobs:
            number, status, name = int(str(job.get("PandaID"))), str(job.get("jobStatus")), str(job.get("jobName"))
            steps.setdefault(name.partition("-")[0], []).append(status)
            if self._progress is None and self._states.get(number) != status:
                self.say(f"job {number} ({name}): {status}")
            self._states[number] = status
        if self._progress is not None:
            for step, states in sorted(steps.items(), reverse=True):  # generate before fit
                self._show_step(self._progress, step, states, pilots)

    def _show_step(self, progress: Progress, step: str, states: list[str], pilots: int) -> None:
        done = sum(status == "finished" for status in states)
        open_states = sorted({status for status in states if status != "finished"})
        text = ", ".join(f"{states.count(status)} {status}" for status in open_states) or "done"
        if step not in self._tasks:
            self._tasks[step] = progress.add_task(step, total=len(states), states=text)
        progress.update(self._tasks[step], completed=done, states=f"{text}; {pilots} pilots" if open_states else text)


def print_summary(details: Iterable[Row]) -> None:
    """The table of all jobs (answers of job/get_details)."""
    columns = ("JOB", "NAME", "STATE", "WALL", "OVERHEAD", "CPU", "MEMORY", "OUTPUTS")
    print_table(columns, [_line(job) for job in details], right="JOB WALL OVERHEAD CPU MEMORY")


def _line(job: Row) -> list[Json]:
    """One job; wall is from the claim to the pilot's final report, overhead what the payload did not use of it."""
    metrics = job.get("metrics")
    payload = metrics.get("payloadWall") if isinstance(metrics, dict) else None
    wall = _wall(job)
    overhead = wall - float(str(payload)) if wall is not None and payload is not None else None
    memory = job.get("maxPSS")
    outputs: Json = [file.get("lfn") for file in rows(job.get("files") or []) if file.get("type") == "output"]
    return [
        job.get("PandaID"),
        job.get("jobName"),
        job.get("jobStatus"),
        _seconds(wall),
        _seconds(overhead),
        f"{job.get('cpuConsumptionTime')} s" if job.get("cpuConsumptionTime") is not None else None,
        f"{int(str(memory)) / 1024:.0f} MB" if memory else None,
        outputs,
    ]


def _wall(job: Row) -> float | None:
    """Seconds between the claim (sent) and the final report (holding), from the history of the last attempt."""
    times = {str(entry.get("status")): moment(entry.get("time")) for entry in rows(job.get("history") or [])}
    begin, end = times.get("sent"), times.get("holding")
    return (end - begin).total_seconds() if begin and end else None


def moment(value: Json) -> datetime | None:
    """A time of the server: ISO 8601, alone or wrapped as v1 does it; None when it is none."""
    if isinstance(value, dict):
        value = value.get("__datetime__")
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return None


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f} s"
