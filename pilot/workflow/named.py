"""Workflows by name: every module of this package that defines a `Workflow` is one (`-w NAME`)."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from pilot.workflow import generic

# Modules of this package that are none.
_OTHERS = frozenset({"capabilities", "named", "start"})


def find_workflow(name: str) -> type[generic.Workflow]:
    """The workflow of a name. Raises ValueError, naming those there are."""
    known = sorted(
        module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name not in _OTHERS
    )
    if name not in known:
        raise ValueError(f"--workflow {name}: there is no such workflow; there are: {', '.join(known)}")
    found: type[generic.Workflow] = importlib.import_module(f"pilot.workflow.{name}").Workflow
    return found
