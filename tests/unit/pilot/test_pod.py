"""A pilot in a Kubernetes pod: who it is, what it may use, and the link to the job's directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.util.cgroups import MemoryGroup
from pilot.util.pod import LINK, Pod, find_pod, in_pod, link_workdir, linked
from pilot.util.workernode import NodeFacts
from tests.unit.pilot.builders import LOG

NODE = NodeFacts("node-7", "EPYC", 64, 2500.0, 257000.0, "", "", "Linux")


def tree(root: Path, **files: str) -> None:
    """Files by path; two underscores stand for a slash, one at the end for a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_pod_is_told_who_it_is_by_variables(tmp_path: Path) -> None:
    environ = {"POD_NAME": "pilot-x", "POD_NAMESPACE": "atlas", "NODE_NAME": "node-7", "HOSTNAME": "other"}
    pod = find_pod(environ, tmp_path)
    assert (pod.name, pod.namespace, pod.node) == ("pilot-x", "atlas", "node-7")


def test_a_pod_is_told_who_it_is_by_files(tmp_path: Path) -> None:
    tree(tmp_path, etc__podinfo__name="pilot-y\n", var__run__secrets__kubernetes__io__x="")
    account = tmp_path / "var/run/secrets/kubernetes.io/serviceaccount"
    account.mkdir(parents=True)
    (account / "namespace").write_text("atlas")
    pod = find_pod({"HOSTNAME": "other"}, tmp_path)
    assert (pod.name, pod.namespace, pod.node) == ("pilot-y", "atlas", "")
    assert find_pod({"HOSTNAME": "pod-host"}, tmp_path / "empty").name == "pod-host"


@pytest.mark.parametrize(
    ("own", "above", "cores"),
    [("200000 100000", "max 100000", 2), ("250000 100000", "150000 100000", 1), ("50000 100000", "max 100000", 1),
     ("max 100000", "max 100000", 0), ("nonsense", "", 0), ("5 0", "", 0)],
)  # fmt: skip
def test_the_limits_of_version_2_are_those_of_all_groups_above(
    tmp_path: Path, own: str, above: str, cores: int
) -> None:
    top = tmp_path / "cgroup"
    group = MemoryGroup(top / "kubepods" / "pod1", top, 2)
    group.directory.mkdir(parents=True)
    (group.directory / "memory.max").write_text(str(4 * 2**30))
    (group.directory / "cpu.max").write_text(own)
    (group.directory.parent / "cpu.max").write_text(above)
    pod = find_pod({}, tmp_path, group)
    assert (pod.memory, pod.cores) == (4096.0, cores)


def test_the_limits_of_version_1_lie_in_two_hierarchies(tmp_path: Path) -> None:
    group = MemoryGroup(tmp_path / "memory", tmp_path / "memory", 1)
    tree(
        tmp_path,
        memory__memory_stat="",
        sys__fs__cgroup__cpu__x="",
    )
    (tmp_path / "memory" / "memory.stat").write_text("hierarchical_memory_limit 2147483648\n")
    (tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_quota_us").write_text("400000\n")
    (tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_period_us").write_text("100000\n")
    pod = find_pod({}, tmp_path, group)
    assert (pod.memory, pod.cores) == (2048.0, 4)
    (tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert find_pod({}, tmp_path, group).cores == 0


def test_a_pods_limits_hold_for_the_node_and_its_name_comes_first() -> None:
    found = in_pod(NODE, Pod("pilot-x", "atlas", "node-7", 4096.0, 2))
    assert (found.name, found.cores, found.memory) == ("pilot-x@node-7", 2, 4096.0)
    assert (found.batch_system, found.batch_id) == ("Kubernetes", "atlas/pilot-x")
    assert in_pod(NODE, Pod("", "", "", 0.0, 0)).name == "node-7"
    assert in_pod(NODE, Pod("node-7", "", "", 10.0**9, 1000)).memory == 257000.0


def test_the_link_leads_to_the_job_that_runs_and_goes_with_it(tmp_path: Path) -> None:
    shared, first, second = (tmp_path / name for name in ("shared", "first", "second"))
    for folder in (shared, first, second):
        folder.mkdir()
    environ = {"SHARED_DIR": str(shared)}
    with linked(environ, second, LOG):
        with linked(environ, first, LOG):
            assert (shared / LINK).resolve() == first
            assert link_workdir(environ, second) == shared / LINK
        assert (shared / LINK).resolve() == second, "it was not the first job's any more"
    assert list(shared.iterdir()) == []


def test_without_a_shared_directory_there_is_no_link(tmp_path: Path) -> None:
    assert link_workdir({}, tmp_path) is None
    assert link_workdir({"SHARED_DIR": str(tmp_path / "not-there")}, tmp_path) is None


def test_a_link_that_cannot_be_made_is_told_and_keeps_no_job_from_running(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / LINK).mkdir()
    with linked({"SHARED_DIR": str(tmp_path)}, tmp_path / "job", LOG):
        pass
    assert "no link to it in SHARED_DIR" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [LINK]
