"""How the daemon runs and which scripts: the [daemon] section of PanDA's documents (chapter 11), or its `config` alone.

A file in the documents' form is an INI file, perhaps with other sections that are not for us; `config` in it is JSON
over several lines. A file that begins with a brace is that JSON alone. Either way the scripts that come with the server
run as well: a file changes them, adds to them and switches them off.
"""

from __future__ import annotations

import configparser
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from server.settings import ConfigurationError

#: Where our own scripts are.
PACKAGE = "server.daemon.scripts"
#: What existing configurations call the package of these scripts; ours have the same names.
_PACKAGE_OF_DOCUMENTS = "pandaserver.daemons.scripts"

_Entries = dict[str, dict[str, object]]


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
        package: where its module is looked for before it is looked for among ours.
    """

    name: str
    module: str
    period: float
    arguments: tuple[str, ...] = ()
    sync: bool = False
    loop: bool = False
    timeout: float = 0.0
    package: str = PACKAGE


@dataclass(frozen=True)
class DaemonConfig:
    """What the [daemon] section says.

    Attributes:
        enable: False: no daemon is to run here.
        uname, gname: the user and group it runs as when root starts it; empty: whoever starts it.
        n_proc: worker processes. One is kept for scripts in loop mode, so that the adder never waits for a long script.
        proc_lifetime: s after which a worker is replaced, against leaks in scripts.
        scripts: those to run.
    """

    enable: bool = True
    uname: str = ""
    gname: str = ""
    n_proc: int = 4  # as in the example of the documents
    proc_lifetime: float = 28800  # the documents' default
    scripts: tuple[Script, ...] = field(default_factory=tuple)


#: Most of these wait for the bell; the period is for what was missed.
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "add_main": {"period": 10, "loop": True, "timeout": 300},
    "activator": {"period": 60, "timeout": 600},
    "setupper": {"period": 60, "sync": True, "timeout": 600},
    "finisher": {"period": 60, "sync": True, "timeout": 600},
    "event_merger": {"period": 5, "sync": True, "timeout": 600},
    "watcher": {"period": 2, "loop": True, "timeout": 300},
    "fast_rebrokerage": {"period": 300, "sync": True, "timeout": 600},
    "presence": {"period": 30, "timeout": 60},
    "copyArchive": {"period": 600, "sync": True, "timeout": 3600},
    "datasetManager": {"period": 600, "sync": True, "timeout": 3600},
    "metric_collector": {"period": 300, "sync": True, "timeout": 300},
    "tmpwatch": {"period": 3600, "timeout": 600},
    "global_shares": {"period": 20, "sync": True, "loop": True, "timeout": 600},
    "class_cleaner": {"period": 3600, "sync": True, "timeout": 600},
    # not one machine for all: each has its own files
    "proxyCache": {"module": "panda_activeusers_query", "period": 600, "timeout": 3600},
    # what has no address (cric_url_...) is not asked
    "configurator": {"period": 200, "sync": True},
    "network_configurator": {"module": "configurator", "arguments": ["--network"], "period": 400, "sync": True},
    "sw_tags": {"module": "configurator", "arguments": ["--sw_tags"], "period": 200, "sync": True},
    "recover_lost_files_daemon": {"period": 600},
    # not one machine for all: each has its own files
    "schedconfig_json": {"module": "configurator", "arguments": ["--json_dump"], "period": 200},
    "pilot_streaming": {"module": "pilotStreaming", "period": 300, "sync": True, "timeout": 600},
    "worker_synchronization": {"period": 300, "sync": True, "timeout": 900},
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
#: s of a period or a time-out: a year.
_LONGEST = 366 * 86400
#: Characters of a script's name: those of the lock of that name.
_NAME_LENGTH = 64
_SECTION = "daemon"
_KEYS = ("enable", "uname", "gname", "package", "n_proc", "proc_lifetime", "config")


def read_config(path: str) -> DaemonConfig:
    """What a file says, with our own scripts.

    Args:
        path: the file; empty for none.

    Raises:
        ConfigurationError: the file cannot be read, or something in it cannot be used.
    """
    if not path:
        return DaemonConfig(scripts=_scripts({}, PACKAGE))
    where = f"The daemon configuration {path}"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{where} is no text in UTF-8: {error.reason} at byte {error.start}.") from None
    if text.lstrip().startswith("{"):
        return DaemonConfig(scripts=_scripts(_read_json(text, where), PACKAGE))
    return _read_section(text, where)


def _read_section(text: str, where: str) -> DaemonConfig:
    """The documents' form. Other sections are those of a whole panda_server.cfg."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        what = " ".join(str(error).split())
        raise ConfigurationError(f"{where} is neither JSON nor an INI file: {what}.") from None
    if not parser.has_section(_SECTION):
        raise ConfigurationError(f"{where} has no section [{_SECTION}].")
    section = {key: (value or "").strip() for key, value in parser.items(_SECTION) if key not in parser.defaults()}
    for key in section:
        if key not in _KEYS:
            raise ConfigurationError(f"{where}: there is no setting {key!r}; there are {', '.join(_KEYS)}.")
    for key in ("package", "config"):
        if not section.get(key):
            raise ConfigurationError(f"{where}: it needs {key} in [{_SECTION}].")
    package = PACKAGE if section["package"] == _PACKAGE_OF_DOCUMENTS else section["package"]
    defaults = DaemonConfig()
    return DaemonConfig(
        enable=_truth(section.get("enable", "False"), where),
        uname=section.get("uname", ""),
        gname=section.get("gname", ""),
        n_proc=_whole_number(section.get("n_proc"), defaults.n_proc, "n_proc", where),
        proc_lifetime=_whole_number(section.get("proc_lifetime"), int(defaults.proc_lifetime), "proc_lifetime", where),
        scripts=_scripts(_read_json(section["config"], f"{where}, config"), package),
    )


def _truth(text: str, where: str) -> bool:
    value = configparser.ConfigParser.BOOLEAN_STATES.get(text.lower())
    if value is None:
        raise ConfigurationError(f"{where}: enable must be True or False, not {text!r}.")
    return value


def _whole_number(text: str | None, default: int, key: str, where: str) -> int:
    if text is None:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise ConfigurationError(f"{where}: {key} must be a whole number above 0, not {text!r}.")
    return int(text)


def _read_json(text: str, where: str) -> Mapping[str, object]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{where} is not JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{where} must be an object of scripts by name.")
    return content


def _scripts(changes: Mapping[str, object], package: str) -> tuple[Script, ...]:
    """Our own scripts with these changes and additions. What is ours is looked for among ours, whatever the package."""
    entries: _Entries = {name: dict(entry) for name, entry in DEFAULTS.items()}
    for name, entry in changes.items():
        if not isinstance(entry, dict):
            raise ConfigurationError(f"The daemon configuration of {name} must be an object.")
        entries.setdefault(name, {}).update(entry)
    wanted = {name: entry for name, entry in entries.items() if entry.get("enable", True)}
    return tuple(_script(name, entry, package if name in changes else PACKAGE) for name, entry in wanted.items())


def _script(name: str, entry: Mapping[str, object], package: str) -> Script:
    where = f"The daemon configuration of {name}"
    for key, value in entry.items():
        types = _TYPES.get(key)
        if types is None:
            raise ConfigurationError(f"{where}: there is no setting {key!r}; there are {', '.join(_TYPES)}.")
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ConfigurationError(f"{where}: {key} cannot be {value!r}.")
    period, timeout = entry.get("period"), entry.get("timeout")
    if not isinstance(period, int | float):
        raise ConfigurationError(f"{where}: it needs a period in seconds.")
    for key, value in (("period", period), ("timeout", timeout)):
        if isinstance(value, int | float) and not 0 < value <= _LONGEST:
            raise ConfigurationError(f"{where}: {key} must be between 0 and {_LONGEST} s, not {value}.")
    if len(name) > _NAME_LENGTH:
        raise ConfigurationError(f"{where}: its name has more than {_NAME_LENGTH} characters.")
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
        package=package,
    )
