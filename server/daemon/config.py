"""Which scripts the daemon runs: the JSON configuration of PanDA's [daemon] section (chapter 11 of its documents)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.settings import ConfigurationError

#: Where scripts are looked for.
PACKAGE = "server.daemon.scripts"


@dataclass(frozen=True)
class Script:
    """A script and when it runs.

    Attributes:
        name: what it is called in the configuration, in logs and when the bell is rung.
        module: its module in the package.
        period: s between two starts.
        arguments: passed to it.
        sync: one machine at a time, and the period counts over all machines.
        loop: it is called again as long as it returns True.
        timeout: s after which its process is killed; in loop mode it counts for each call.
    """

    name: str
    module: str
    period: float
    arguments: tuple[str, ...] = ()
    sync: bool = False
    loop: bool = False
    timeout: float = 0.0


#: Most of these wait for the bell; the period is for what was missed.
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "add_main": {"period": 10, "loop": True, "timeout": 300},
    "activator": {"period": 60, "timeout": 600},
    "watcher": {"period": 2, "loop": True, "timeout": 300},
    "tmpwatch": {"period": 3600, "timeout": 600},
    "class_cleaner": {"period": 3600, "sync": True, "timeout": 600},
}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "enable": (bool,),
    "period": (int, float),
    "module": (str,),
    "arguments": (list,),
    "sync": (bool,),
    "loop": (bool,),
    "timeout": (int, float),
}


def read_scripts(path: str) -> list[Script]:
    """The scripts to run: our own, changed and added to by a JSON file {name: {period, enable, ...}}.

    Args:
        path: the file; empty for none.

    Raises:
        ConfigurationError: the file cannot be read, or an entry cannot be used.
    """
    entries = {name: dict(entry) for name, entry in DEFAULTS.items()}
    for name, entry in (_read_file(Path(path)) if path else {}).items():
        if not isinstance(entry, dict):
            raise ConfigurationError(f"The daemon configuration {path}: {name} must be an object.")
        entries.setdefault(name, {}).update(entry)
    return [_script(name, entry) for name, entry in entries.items() if entry.get("enable", True)]


def _read_file(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"The daemon configuration {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigurationError(f"The daemon configuration {path} is not JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"The daemon configuration {path} must be an object of scripts by name.")
    return content


def _script(name: str, entry: Mapping[str, object]) -> Script:
    where = f"The daemon configuration of {name}"
    for key, value in entry.items():
        types = _TYPES.get(key)
        if types is None:
            raise ConfigurationError(f"{where}: there is no setting {key!r}; there are {', '.join(_TYPES)}.")
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ConfigurationError(f"{where}: {key} cannot be {value!r}.")
    period = entry.get("period")
    if not isinstance(period, int | float) or period <= 0:
        raise ConfigurationError(f"{where}: it needs a period in seconds.")
    timeout = entry.get("timeout")
    arguments = entry.get("arguments", [])
    return Script(
        name=name,
        module=str(entry.get("module", name)),
        period=float(period),
        arguments=tuple(str(item) for item in arguments) if isinstance(arguments, list) else (),
        sync=entry.get("sync") is True,
        loop=entry.get("loop") is True,
        # PanDA's own default
        timeout=float(timeout) if isinstance(timeout, int | float) else min(period * 3, period + 3600),
    )
