"""Experiment plugins: a folder `<name>` defines any hooks, `pilot/user/generic` has the rest (docs/plugins.md)."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType
from typing import Callable

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException

GENERIC = "generic"


class Plugins:
    """The hooks of one experiment. Resolved once, at start-up."""

    def __init__(self, experiment: str, folders: Sequence[str] = ()) -> None:
        """folders: where plugins are looked for besides pilot/user.

        Raises PilotException(NOTDEFINED), with the plugins there are, when `experiment` is none of them.
        """
        self.experiment = experiment
        places = importlib.import_module("pilot.user").__path__
        # Behind ours: nobody's folder takes the place of generic.
        places.extend(folder for folder in folders if folder not in places)
        known = {module.name for module in pkgutil.iter_modules(places)}
        if experiment not in known:
            also = f" (looked for in {', '.join(folders)} too)" if folders else ""
            text = f"there is no experiment plugin '{experiment}'; there are: {', '.join(sorted(known))}{also}"
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


def folders_of(path: str) -> list[str]:
    """The folders of the setting [Experiment] path, which are separated by colons."""
    return [folder for folder in path.split(":") if folder]


def find_plugins(experiment: str, path: str) -> Plugins:
    """The plugin of an experiment, if it finds that it can work here. path: folders, separated by colons.

    Raises PilotException.
    """
    plugins = Plugins(experiment, folders_of(path))
    code = plugins.hook("common", "sanity_check")()
    if code:
        text = f"the plugin {experiment} cannot work on this node (its sanity_check says {code})"
        raise PilotException(text, code=code if isinstance(code, int) else ErrorCodes.GENERALERROR)
    return plugins


def texts(answer: object) -> list[str]:
    """The texts of a hook's answer that is a list of them; nothing for any other answer."""
    return [str(item) for item in answer] if isinstance(answer, (list, tuple, set, frozenset)) else []


def coded(answer: object) -> tuple[int, str]:
    """Error code and text of a hook's answer (code, text); a number alone is a code, any other answer none."""
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], int):
        return answer[0], str(answer[1])
    return (answer if isinstance(answer, int) and not isinstance(answer, bool) else 0), ""
