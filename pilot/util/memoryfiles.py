"""The memory monitor's two files in a job's directory: a table of samples, and a summary.

Their names and formats are prmon's, which many sites run and all tools of the field read (pilot.md, section 3): the
pilot writes them itself where there is no prmon, and reads them wherever they come from.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pilot.util.filehandling import write_atomically
from pilot.util.https import parse_json
from pilot.util.processes import TreeSample
from pilot.util.sockets import device_counters, own_network

OUTPUT, SUMMARY = "memory_monitor_output.txt", "memory_monitor_summary.json"
# First line of the table. Memory in kB, times in seconds (Time since 1970, wtime since the payload's start), I/O in
# bytes.
COLUMNS = (
    "Time", "nprocs", "nthreads", "pss", "rss", "vmem", "swap", "utime", "stime", "wtime", "rchar", "wchar",
    "read_bytes", "write_bytes", "rx_bytes", "tx_bytes", "rx_packets", "tx_packets",
)  # fmt: skip
# A summary that is larger (bytes) is none: the payload may write anything under this name.
_SUMMARY_LIMIT = 1048576
# Names of memory figures: column -> how the two parts of the older summary call it.
_FIGURES = {"vmem": "VMEM", "pss": "PSS", "rss": "RSS", "swap": "Swap"}
_IO = {"rchar": "rchar", "wchar": "wchar", "read_bytes": "rbytes", "write_bytes": "wbytes"}


@dataclass(frozen=True)
class Summary:
    """Largest and mean values by column (kB), and the last I/O figures (bytes) as rchar, wchar, rbytes, wbytes."""

    maximum: dict[str, int] = field(default_factory=dict)
    average: dict[str, int] = field(default_factory=dict)
    io: dict[str, int] = field(default_factory=dict)


def row(sample: TreeSample, root: int, now: float, wall: float) -> str:
    """One line of the table. root: the tree's first process; now: seconds since 1970; wall: since its start.

    The counters of network devices are the payload's only in a network namespace of its own; elsewhere they are 0,
    rather than the whole node's.
    """
    network = device_counters(root) if own_network(root) else (0, 0, 0, 0)
    values = (
        int(now), sample.processes, sample.threads, sample.pss, sample.rss, sample.vmem, sample.swap,
        round(sample.cpu_user), round(sample.cpu_system), round(wall), sample.rchar, sample.wchar, sample.rbytes,
        sample.wbytes, *network,
    )  # fmt: skip
    return "\t".join(str(value) for value in values) + "\n"


def append_row(workdir: Path, line: str, *, first: bool) -> None:
    """Add a line to the table; the first one begins it anew, with the names. Raises OSError.

    No link is followed: the payload could have made one.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_TRUNC if first else 0)
    descriptor = os.open(workdir / OUTPUT, flags, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write("\t".join(COLUMNS) + "\n" + line if first else line)


def write_summary(workdir: Path, summary: Summary) -> None:
    """Write the summary. Raises OSError."""
    contents = {
        "Max": {f"max{name}": summary.maximum.get(column, 0) for column, name in _FIGURES.items()},
        "Avg": {f"avg{name}": summary.average.get(column, 0) for column, name in _FIGURES.items()},
        "Other": dict(summary.io),
    }
    write_atomically(workdir / SUMMARY, json.dumps(contents, indent=4).encode())


def read_summary(workdir: Path) -> Summary | None:
    """A summary, as prmon writes it ({"Max": {"pss": ...}}) or in the older form ({"Max": {"maxPSS": ...}}).

    None when there is none, or when it makes no sense.
    """
    path = workdir / SUMMARY
    with suppress(OSError, ValueError):
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _SUMMARY_LIMIT:
            return None
        contents = parse_json(path.read_bytes())
        if isinstance(contents, dict):
            most, mean, other = (contents.get(part) for part in ("Max", "Avg", "Other"))
            maximum = _figures(most, {column: (column, f"max{name}") for column, name in _FIGURES.items()})
            average = _figures(mean, {column: (column, f"avg{name}") for column, name in _FIGURES.items()})
            # prmon has the totals of I/O, which only grow, as maxima.
            io = _figures(other, {short: (short,) for short in _IO.values()}) or _figures(
                most, {short: (column,) for column, short in _IO.items()}
            )
            return Summary(maximum, average, io) if maximum else None
    return None


def _figures(part: object, names: dict[str, tuple[str, ...]]) -> dict[str, int]:
    """The numbers of one part, by our name; `names` says under which names each may stand there."""
    found: dict[str, int] = {}
    if isinstance(part, dict):
        for ours, theirs in names.items():
            value = next((part[name] for name in theirs if name in part), None)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**63:
                found[ours] = int(value)
    return found
