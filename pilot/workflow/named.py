"""Workflows by name: every module of this package that defines a `Workflow` is one (`-w NAME`)."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from pilot.workflow import generic


def find_workflow(name: str) -> type[generic.Workflow]:
    """The workflow of a name. Raises ValueError, naming those there are."""
    modules = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    found = _workflow(name) if name in modules else None
    if found is None:
        known = ", ".join(module for module in modules if _workflow(module) is not None)
        raise ValueError(f"--workflow {name}: there is no such workflow; there are: {known}")
    return found


def _workflow(module: str) -> type[generic.Workflow] | None:
    found: type[generic.Workflow] | None = getattr(
        importlib.import_module(f"pilot.workflow.{module}"), "Workflow", None
    )
    return found
