"""What benchmarks come to: rows, the table of them in Markdown, and the CPU time that they measure."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Row:
    """One line of the table. existing: what today's pilot or server needs, as measured by the project's founders."""

    what: str
    measured: str
    beside: str
    goal: str
    existing: str = ""


def cpu_seconds(*processes: psutil.Process) -> float:
    """CPU time of processes so far, from the scheduler's own account in nanoseconds."""
    total = 0.0
    for process in processes:
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0]) / 1e9
    return total


def cpu_of_those_left(*processes: psutil.Process) -> float:
    """The same for processes that may have ended: those count nothing any more."""
    total = 0.0
    for process in processes:
        with suppress(FileNotFoundError):
            total += cpu_seconds(process)
    return total


def show(rows: list[Row], command: str) -> None:
    """Print the table. command: what was run."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(
        f"\n{datetime.date.today()}, `{command}`, {os.cpu_count()} cores, Python {sys.version.split()[0]}, {commit}\n"
    )
    print("| what | measured | beside | goal | existing |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.measured} | {row.beside} | {row.goal} | {row.existing} |")
