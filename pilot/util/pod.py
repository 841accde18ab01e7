"""A pilot in a Kubernetes pod: its name, what the pod may use, and the link that its other containers look for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pilot.util.cgroups import MemoryGroup, memory_group
from pilot.util.workernode import NodeFacts

# Where pods are told who they are: variables and volume of the downward API, under the names that manifests give them
# as a rule, and what every pod with a service account has.
_NAMES = ("POD_NAME", "MY_POD_NAME", "K8S_POD_NAME")
_NAMESPACES = ("POD_NAMESPACE", "MY_POD_NAMESPACE", "K8S_POD_NAMESPACE")
_NODES = ("NODE_NAME", "MY_NODE_NAME", "K8S_NODE_NAME")
_PODINFO = "etc/podinfo"
_ACCOUNT = "var/run/secrets/kubernetes.io/serviceaccount"
# The directory that the containers of a pod share, and the name of the link in it.
SHARED_VARIABLE, LINK = "SHARED_DIR", "payload_workdir"
# CPU limits of version 1 lie in a hierarchy of their own, mounted under one of these names.
_CPU_V1 = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")


@dataclass(frozen=True)
class Pod:
    """name, namespace, node: empty where nobody says. memory: MB, cores: whole ones; 0 without a limit."""

    name: str
    namespace: str
    node: str
    memory: float
    cores: int


def find_pod(environ: Mapping[str, str], root: Path = Path("/"), group: MemoryGroup | None = None) -> Pod:
    """The pod that this process runs in, as far as it is told.

    root: of the file system; group: the memory control group (both for tests).
    """
    group = group or memory_group(os.getpid())
    memory = group.limit() if group is not None else None
    return Pod(
        name=_told(environ, _NAMES, root / _PODINFO / "name") or environ.get("HOSTNAME", ""),
        namespace=_told(environ, _NAMESPACES, root / _PODINFO / "namespace", root / _ACCOUNT / "namespace"),
        node=_told(environ, _NODES, root / _PODINFO / "nodename"),
        memory=round(memory / 1024, 2) if memory else 0.0,
        cores=_cores(root, group),
    )


def in_pod(facts: NodeFacts, pod: Pod) -> NodeFacts:
    """The facts of a node for a pilot that has only a pod of it: like a slot, it is named before the node's name."""
    host = pod.node or facts.name
    return replace(
        facts,
        name=f"{pod.name}@{host}" if pod.name and pod.name != host and "@" not in host else host,
        cores=min(facts.cores, pod.cores) if pod.cores else facts.cores,
        memory=min(facts.memory, pod.memory) if pod.memory else facts.memory,
        batch_system=facts.batch_system or "Kubernetes",
        batch_id=facts.batch_id or "/".join(part for part in (pod.namespace, pod.name) if part),
    )


@contextmanager
def linked(environ: Mapping[str, str], workdir: Path, log: logging.Logger) -> Iterator[None]:
    """For the time of a block the link in SHARED_DIR leads to a job's directory; without SHARED_DIR there is none."""
    link = None
    try:
        link = link_workdir(environ, workdir)
    except OSError as exc:
        log.warning("%s: no link to it in SHARED_DIR: %s", workdir, exc)
    try:
        yield
    finally:
        # It may be another pilot's by now.
        with suppress(OSError):
            if link is not None and os.readlink(link) == str(workdir):
                link.unlink()


def link_workdir(environ: Mapping[str, str], workdir: Path) -> Path | None:
    """Make the link to a job's directory in SHARED_DIR, in the place of one that is there; None without SHARED_DIR.

    Raises OSError.
    """
    shared = Path(environ.get(SHARED_VARIABLE, ""))
    if not environ.get(SHARED_VARIABLE) or not shared.is_dir():
        return None
    beside = shared / f".{LINK}.{os.getpid()}"
    with suppress(FileNotFoundError):
        beside.unlink()
    beside.symlink_to(workdir)
    try:
        return beside.replace(shared / LINK)
    except OSError:
        beside.unlink()
        raise


def _told(environ: Mapping[str, str], names: tuple[str, ...], *files: Path) -> str:
    for name in names:
        if environ.get(name):
            return environ[name]
    for path in files:
        with suppress(OSError, UnicodeDecodeError):
            return path.read_text(encoding="utf-8").strip()
    return ""


def _cores(root: Path, group: MemoryGroup | None) -> int:
    """Whole cores that the control group may use, at least 1; 0 without a limit."""
    found: list[float] = []
    if group is not None and group.version == 2:
        above = [group.directory, *group.directory.parents]
        for one in above:
            if one == group.top or group.top in one.parents:
                found += _share(_words(one / "cpu.max"))
    for mount in _CPU_V1:
        quota, period = _words(root / mount / "cpu.cfs_quota_us"), _words(root / mount / "cpu.cfs_period_us")
        found += _share(quota + period)
    return max(1, int(min(found))) if found else 0


def _words(path: Path) -> list[str]:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").split()
    return []


def _share(words: list[str]) -> list[float]:
    """Cores of "quota period"; nothing for "max" and -1, which are no limit."""
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return []
    return [int(words[0]) / int(words[1])]
