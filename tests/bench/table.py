"""What benchmarks come to: rows, and the table of them in Markdown."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table. existing: what today's pilot needs, as measured by the project's founders."""

    what: str
    measured: str
    beside: str
    goal: str
    existing: str = ""


def show(rows: list[Row], command: str) -> None:
    """Print the table. command: what was run."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(
        f"\n{datetime.date.today()}, `{command}`, {os.cpu_count()} cores, Python {sys.version.split()[0]}, {commit}\n"
    )
    print("| what | measured | beside | goal | existing pilot |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.measured} | {row.beside} | {row.goal} | {row.existing} |")
