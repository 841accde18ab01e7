"""The hooks of a machine by its name (`--hpc-resource NAME`)."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from pilot.info.jobdata import JobData
from pilot.resource import generic

_OURSELVES = "named"


def check_resource(name: str) -> None:
    """Raises ValueError for a machine that has no hooks, naming those there are. Empty: any machine."""
    known = sorted(one.name for one in pkgutil.iter_modules([str(Path(__file__).parent)]) if one.name != _OURSELVES)
    if name and name not in known:
        raise ValueError(f"--hpc-resource {name}: there are no hooks for it; there are for: {', '.join(known)}")


def setup_commands(name: str, job: JobData) -> list[str]:
    """The commands that come before a payload on a machine. name: one that check_resource has let pass."""
    module = importlib.import_module(f"pilot.resource.{name or 'generic'}")
    get_setup = getattr(module, "get_setup", generic.get_setup)
    return [str(command) for command in get_setup(job=job)]
