"""Facts about the node this pilot runs on."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.util.lazynames import lazily

if TYPE_CHECKING:
    from pilot.util.nodetools import *  # noqa: F403
else:
    __getattr__ = lazily(__name__, "pilot.util.nodetools")

# Batch systems and the variable in which each tells its job's id, the most particular first.
_BATCH_SYSTEMS = (
    ("Slurm", "SLURM_JOB_ID"),
    ("HTCondor", "_CONDOR_JOB_AD"),
    ("LSF", "LSB_JOBID"),
    ("PBS", "PBS_JOBID"),
    ("SGE", "JOB_ID"),
)


@dataclass(frozen=True)
class NodeFacts:
    """cores: usable by this process; cpu_mhz: clock; memory: MB; name: host name, with HTCondor's slot before it."""

    name: str
    cpu_model: str
    cores: int
    cpu_mhz: float
    memory: float
    batch_system: str
    batch_id: str
    system: str


def collect(environ: Mapping[str, str]) -> NodeFacts:
    """Look the facts up; nothing is raised, what the node does not tell is empty or 0."""
    model, mhz = _cpu()
    system, batch_id = _batch_job(environ)
    return NodeFacts(
        name=get_node_name(environ),
        cpu_model=model,
        cores=len(os.sched_getaffinity(0)),
        cpu_mhz=mhz,
        memory=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20, 2),
        batch_system=system,
        batch_id=batch_id,
        system=platform.platform(terse=True),
    )


def get_node_name(environ: Mapping[str, str] | None = None) -> str:
    """The host's name; in an HTCondor slot `slot@host`, so that the slots of one node can be told apart.

    environ: instead of this process's own.
    """
    given = os.environ if environ is None else environ
    return get_condor_node_name(given.get("PANDA_HOSTNAME") or socket.gethostname(), given)


def get_condor_node_name(nodename: str, environ: Mapping[str, str] | None = None) -> str:
    """A node's name with HTCondor's slot before it, or as it is outside of one. environ: as above."""
    slot = (os.environ if environ is None else environ).get("_CONDOR_SLOT", "")
    return f"{slot}@{nodename}" if slot and "@" not in nodename else nodename


def local_space(path: Path) -> int:
    """Free bytes on the disk below `path` for this user; 0 when it cannot be told."""
    with suppress(OSError):
        return shutil.disk_usage(path).free
    return 0


def _batch_job(environ: Mapping[str, str]) -> tuple[str, str]:
    for name, variable in _BATCH_SYSTEMS:
        value = environ.get(variable, "")
        if not value:
            continue
        if variable == "_CONDOR_JOB_AD":
            value = _condor_id(Path(value))
        return name, value
    return "", ""


def _condor_id(job_ad: Path) -> str:
    """GlobalJobId of HTCondor's job description file."""
    with suppress(OSError):
        for line in job_ad.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "GlobalJobId":
                return value.strip().strip('"')
    return ""


def _cpu() -> tuple[str, float]:
    """Model and clock (MHz) of the first processor; /proc/cpuinfo has both, other systems tell at least the model."""
    model, mhz = "", 0.0
    with suppress(OSError, ValueError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            name, _, value = line.partition(":")
            if name.strip() == "model name" and not model:
                model = value.strip()
            elif name.strip() == "cpu MHz" and not mhz:
                mhz = float(value)
            elif not line.strip():
                break
    return model or platform.processor(), mhz
