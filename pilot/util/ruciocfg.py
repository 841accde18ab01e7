"""Where Rucio is: what the pilot itself has to know of the rucio.cfg that Rucio's clients read."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Folders in which Rucio's clients look for etc/rucio.cfg, by the variables that name them; then /opt/rucio.
_HOMES = ("RUCIO_HOME", "VIRTUAL_ENV", "CONDA_PREFIX")
_LAST = "/opt/rucio"


@dataclass(frozen=True)
class Hosts:
    """Addresses: of Rucio, and of the host that takes traces. Empty: not known."""

    rucio: str = ""
    traces: str = ""


def find_hosts(environ: Mapping[str, str], host: str = "") -> Hosts:
    """The addresses in the node's rucio.cfg; `host`, when it is given, stands for both."""
    if host:
        return Hosts(host.rstrip("/"), host.rstrip("/"))
    homes = [environ[name] for name in _HOMES if environ.get(name)]
    candidates = [Path(home, "etc", "rucio.cfg") for home in (*homes, _LAST)]
    if environ.get("RUCIO_CONFIG"):
        candidates = [Path(environ["RUCIO_CONFIG"])]
    parser = configparser.ConfigParser(interpolation=None)
    for path in candidates:
        try:
            if parser.read(path, encoding="utf-8"):
                break
        except (configparser.Error, UnicodeDecodeError):
            return Hosts()
    rucio = parser.get("client", "rucio_host", fallback="").rstrip("/")
    return Hosts(rucio, parser.get("trace", "trace_host", fallback=rucio).rstrip("/"))
