"""Facts about the node for plugins and scripts, under the documented names.

Import them from pilot.util.workernode, as chapter 7.3.2 of PanDA's documents has it.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from pilot.util.workernode import collect, local_space

__all__ = [
    "check_hz",
    "collect_workernode_info",
    "get_cpu_model",
    "get_cpuinfo",
    "get_disk_space",
    "get_local_disk_space",
    "get_meminfo",
]

log = logging.getLogger(__name__)

_MB = 2**20


class Queue(Protocol):
    """What is needed of a queue's description. maxwdir: MB, 0 for no limit."""

    maxwdir: int


def check_hz() -> None:
    """Put the kernel's clock ticks per second into the log."""
    log.info("the kernel counts %d clock ticks a second", os.sysconf("SC_CLK_TCK"))


def get_cpuinfo() -> float:
    """The CPU's clock (MHz), 0.0 when the node does not tell."""
    return collect(os.environ).cpu_mhz


def get_meminfo() -> float:
    """The node's memory (MB)."""
    return collect(os.environ).memory


def get_local_disk_space(path: str | None) -> float:
    """Free space (MB) on the disk below a path, None for the current directory; 0.0 when it cannot be told."""
    return local_space(Path(path or ".")) / _MB


def collect_workernode_info(path: str | None = None) -> tuple[float, float, float]:
    """Memory (MB), clock of the CPU (MHz) and free space (MB) on the disk below a path."""
    facts = collect(os.environ)
    return facts.memory, facts.cpu_mhz, get_local_disk_space(path)


def get_cpu_model() -> str:
    """The CPU's model and the size of its cache: "Intel(R) Xeon(TM) CPU 2.40GHz 512 KB"."""
    cache = ""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
        cache = next((line.partition(":")[2].strip() for line in stream if line.startswith("cache size")), "")
    return f"{collect(os.environ).cpu_model} {cache}".strip()


def get_disk_space(queuedata: Queue) -> int:
    """What a job may use (MB): the free space below the current directory, or the queue's limit when that is less."""
    free = int(get_local_disk_space(None))
    return min(free, queuedata.maxwdir) if queuedata.maxwdir > 0 else free
