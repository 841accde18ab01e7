"""Experiment plugins: `pilot/user/<name>/` defines any of the hooks, `generic` has the rest."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Callable

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException

GENERIC = "generic"


class Plugins:
    """The hooks of one experiment. Resolved once, at start-up."""

    def __init__(self, experiment: str) -> None:
        """Raises PilotException(NOTDEFINED), with the plugins there are, when `experiment` is none of them."""
        self.experiment = experiment
        known = [module.name for module in pkgutil.iter_modules(importlib.import_module("pilot.user").__path__)]
        if experiment not in known:
            text = f"there is no experiment plugin '{experiment}'; there are: {', '.join(sorted(known))}"
            raise PilotException(text, code=ErrorCodes.NOTDEFINED)

    def hook(self, module: str, name: str) -> Callable[..., object]:
        """The function `name` of pilot.user.<experiment>.<module>, or generic's."""
        for experiment in (self.experiment, GENERIC):
            found = _load(experiment, module)
            function = getattr(found, name, None) if found is not None else None
            if callable(function):
                return function  # type: ignore[no-any-return]  # a plugin's functions are typed by the table in the docs
        raise PilotException(f"no plugin has the hook {module}.{name}", code=ErrorCodes.NOTDEFINED)


def _load(experiment: str, module: str) -> ModuleType | None:
    name = f"pilot.user.{experiment}.{module}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        # A module that is there but cannot import something of its own is an error, not a missing hook.
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise
        return None
