"""What is really active on this node (promise N7): in the log, and with the first question for a job."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from pilot.api.memorymonitor import MemoryMonitoring
from pilot.common.exception import PilotException
from pilot.util.cgroups import MemoryGroup
from pilot.util.config import Settings
from pilot.util.container import ANY_RUNTIME, Runtime, find_runtime, may_make_namespaces, probe
from pilot.util.guarded import Launcher
from pilot.util.payloadgroup import PayloadGroup

# Library and program of which a copytool needs either one, in the pilot's Python and on its PATH; the setup of a queue
# may bring more. Those without any are always there.
_COPYTOOLS = {
    "mv": ("", ""), "https": ("", ""), "xrdcp": ("XRootD", "xrdcp"), "gfal": ("gfal2", "gfal-copy"),
    "rucio": ("rucio", ""), "s3": ("boto3", ""), "gs": ("google.cloud.storage", ""), "lsm": ("", "lsm-get"),
}  # fmt: skip


def look_at_runtime(settings: Settings, environ: Mapping[str, str], workdir: Path) -> tuple[Runtime | None, bool]:
    """The node's container runtime, if there is one, and whether this user may make user name spaces. Takes 25 ms."""
    launcher = Launcher()
    try:
        path = find_runtime(ANY_RUNTIME, environ, settings.container.runtime)
    except PilotException:  # a job that asks for one is told why
        return None, may_make_namespaces(launcher, environ, workdir)
    runtime = probe(path, launcher, environ, workdir)
    return runtime, runtime.namespaces


def payload_group(settings: Settings) -> str:
    """What a control group of a payload's own does here: kill, memory, both, or "none"."""
    group = PayloadGroup.make() if settings.payload.control_group else None
    if group is None:
        return "none"
    does = ["kill"] * group.kills + ["memory"] * (group.memory is not None)
    group.end()
    return "+".join(does)


def copytools(environ: Mapping[str, str]) -> list[str]:
    """The copytools that this node has all for."""
    path = environ.get("PATH", "")
    return [
        name
        for name, (library, program) in _COPYTOOLS.items()
        if not (library or program) or (library and _has(library)) or (program and shutil.which(program, path=path))
    ]


def capabilities(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    cores: int,
    subreaper: bool,
    slot: MemoryGroup | None,
    runtime: Runtime | None,
    namespaces: bool,
) -> str:
    """One line of name=value, separated by commas. slot: the control group of the slot that counts its memory."""
    group = payload_group(settings)
    counter = "rollup" if Path("/proc/self/smaps_rollup").exists() else "smaps"
    bash = shutil.which("bash", path="/bin:/usr/bin:/usr/local/bin") is not None
    facts = {
        "cores": cores,
        "guard": "subreaper" if subreaper else "plain",
        "group": group,
        "memory": "group" if "memory" in group else counter,
        "cgroup": f"v{slot.version}" if slot is not None else "none",
        "monitor": "prmon" if MemoryMonitoring.find(settings.payload.memory_monitor, environ) else "own",
        "shell": "bash" if bash else "sh",
        **(runtime.facts() if runtime is not None else {"container": "none", "userns": "yes" if namespaces else "no"}),
        "copytools": "+".join(copytools(environ)),
    }
    return ",".join(f"{name}={value}" for name, value in facts.items())


def _has(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # of a package that is not there either
        return False
