"""Memory control groups of both versions on trees made for the test, the kernel's log, and what they tell of an end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilot.control.oom import OomWatch
from pilot.util.cgroups import MemoryGroup, memory_group, oom_victims, own_memory_group, since_boot
from pilot.util.processes import TreeSample

V2_STAT = "anon 104857600\nfile 900000000\nkernel 1234\nshmem 10485760\nfile_mapped 5\n"
V1_STAT = (
    "cache 900000000\nrss 1\nshmem 2\nhierarchical_memory_limit {limit}\ntotal_cache 900000000\n"
    "total_rss 104857600\ntotal_shmem 10485760\n"
)
NO_LIMIT_V1 = 9223372036854771712


class Tree:
    """A /proc with our own process and one of a payload, and hierarchies beside it."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroup = root / "proc", root / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.cgroup.mkdir()

    def mounted(self, *mounts: tuple[str, str, str, str]) -> None:
        """root inside, mount point below our folder, type, options of the superblock."""
        lines = [
            f"{number} 1 0:{number} {root} {self.cgroup}{point} rw,relatime - {kind} {kind} {options}"
            for number, (root, point, kind, options) in enumerate(mounts, 30)
        ]
        (self.proc / "self" / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/vda rw\n" + "\n".join(lines) + "\n")

    def process(self, pid: int, *memberships: str) -> None:
        (self.proc / str(pid)).mkdir()
        (self.proc / str(pid) / "cgroup").write_text("\n".join(memberships) + "\n")

    def group(self, path: str, **files: str) -> Path:
        folder = self.cgroup / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)
        return folder


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_version_two_counts_anonymous_and_shared_memory_and_no_page_cache(tree: Tree) -> None:
    tree.mounted(("/", "", "cgroup2", "rw"))
    tree.process(7, "0::/slot/job")
    folder = tree.group("slot/job", memory__stat=V2_STAT, memory__events="low 0\noom 3\noom_kill 2\n")
    group = memory_group(7, tree.proc)
    assert group == MemoryGroup(folder, tree.cgroup, 2)
    assert (group.charged(), group.oom_kills()) == (110 * 1024, 2)


def test_version_two_has_the_smallest_limit_of_all_groups_above(tree: Tree) -> None:
    tree.mounted(("/", "", "cgroup2", "rw"))
    tree.process(7, "0::/slot/job")
    tree.group("slot/job", memory__stat=V2_STAT, memory__max="max\n")
    group = memory_group(7, tree.proc)
    assert group is not None and group.limit() is None
    tree.group("slot", memory__max="209715200\n")
    assert group.limit() == 200 * 1024
    tree.group("slot/job", memory__max="104857600\n")
    assert group.limit() == 100 * 1024


def test_version_one_does_the_same_with_its_own_files(tree: Tree) -> None:
    tree.mounted(("/", "/cpu", "cgroup", "rw,cpu"), ("/", "/memory", "cgroup", "rw,memory"))
    tree.process(7, "5:cpu:/other", "4:memory:/slot", "0::/")
    folder = tree.group("memory/slot", memory__stat=V1_STAT.format(limit=157286400))
    tree.group("memory/slot", memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    group = memory_group(7, tree.proc)
    assert group == MemoryGroup(folder, tree.cgroup / "memory", 1)
    assert (group.charged(), group.limit(), group.oom_kills()) == (110 * 1024, 150 * 1024, 1)
    tree.group("memory/slot", memory__stat=V1_STAT.format(limit=NO_LIMIT_V1))
    assert group.limit() is None


def test_inside_a_container_the_path_is_that_below_the_mount(tree: Tree) -> None:
    # The hierarchy's part that belongs to the container is mounted, while the path is still the node's.
    tree.mounted(("/docker/abc", "", "cgroup2", "rw"))
    tree.process(7, "0::/docker/abc/job")
    folder = tree.group("job", memory__stat=V2_STAT)
    assert memory_group(7, tree.proc) == MemoryGroup(folder, tree.cgroup, 2)


def test_a_group_that_is_not_delegated_or_not_there_is_none(tree: Tree) -> None:
    assert memory_group(7, tree.proc) is None
    tree.mounted(("/", "", "cgroup2", "rw"))
    tree.process(7, "0::/slot")
    tree.group("slot")  # the controller is not switched on: no memory.stat
    assert memory_group(7, tree.proc) is None


def test_a_payloads_group_is_its_own_when_the_pilot_is_in_another(tree: Tree) -> None:
    tree.mounted(("/", "", "cgroup2", "rw"))
    tree.process(os.getpid(), "0::/slot")
    tree.process(7, "0::/slot")
    tree.process(8, "0::/slot/container")
    tree.group("slot", memory__stat=V2_STAT)
    tree.group("slot/container", memory__stat=V2_STAT)
    assert own_memory_group(7, tree.proc) is None
    own = own_memory_group(8, tree.proc)
    assert own is not None and own.directory.name == "container"


@pytest.mark.parametrize("text", ["", "anon\n", "anon many\n", "file 5\n"])
def test_files_that_make_no_sense_count_as_nothing(tree: Tree, text: str) -> None:
    group = MemoryGroup(tree.group("g", memory__stat=text, memory__events=text), tree.cgroup, 2)
    assert group.charged() in (None, 0) and group.oom_kills() is None


# ---- the kernel's log


def kmsg(folder: Path, *records: tuple[float, str]) -> Path:
    """Records with seconds since boot, as /dev/kmsg has them."""
    path = folder / "kmsg"
    lines = [f"6,{number},{int(when * 1e6)},-;{text}" for number, (when, text) in enumerate(records)]
    path.write_text("\n".join(lines) + "\n SUBSYSTEM=memory\n")
    return path


def killed(pid: int, uid: int | None = None) -> str:
    uid = os.getuid() if uid is None else uid
    return (
        f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/slot,task_memcg=/slot,task=python3,pid={pid},"
        f"uid={uid}"
    )


def test_a_victim_of_ours_in_the_kernels_log_is_named(tmp_path: Path) -> None:
    log = kmsg(tmp_path, (5.0, "eth0: link up"), (50.0, killed(7)), (51.0, killed(8)))
    assert oom_victims({7}, 40.0, log) == ["the kernel's log: killed python3 (pid 7) for memory"]


def test_other_victims_and_older_ones_are_not_ours(tmp_path: Path) -> None:
    log = kmsg(tmp_path, (30.0, killed(7)), (50.0, killed(8)), (51.0, killed(7, os.getuid() + 1)))
    assert oom_victims({7}, 40.0, log) == []


def test_a_log_that_may_not_be_read_tells_nothing(tmp_path: Path) -> None:
    assert oom_victims({7}, 0.0, tmp_path / "none") == []


def test_the_time_since_boot_is_the_kernels() -> None:
    with open("/proc/uptime") as stream:
        assert since_boot() == pytest.approx(float(stream.read().split()[0]), abs=60)


# ---- what it means for an end


def watched(tree: Tree, before: int, after: int, own: int | None = None) -> OomWatch:
    """A payload in the slot's group, with so many kills before it and at its end; perhaps with a group of its own."""
    events = "oom_kill {}\n"
    slot = tree.group("slot", memory__events=events.format(before), memory__stat=V2_STAT, memory__max="104857600")
    watch = OomWatch(shared=MemoryGroup(slot, tree.cgroup, 2))
    watch.notice(os.getpid(), TreeSample(processes=1, pids=(os.getpid(),)))
    tree.group("slot", memory__events=events.format(after))
    if own is not None:
        mine = tree.group("slot/mine", memory__events=events.format(own), memory__stat=V2_STAT)
        watch.own = MemoryGroup(mine, tree.cgroup, 2)
    return watch


@pytest.mark.parametrize(
    ("before", "after", "own", "killed", "counted"),
    [
        (0, 0, None, True, ""),
        (0, 1, None, True, "1 process(es) killed for memory in control group"),
        # Others may be in the slot's group too, or were before.
        (5, 5, None, True, ""),
        (5, 7, None, True, "2 process(es) killed for memory in control group"),
        (0, 1, None, False, ""),
        # Its own group is nobody else's: a worker was killed, and the payload has given up for it.
        (0, 0, 1, False, "1 process(es) killed for memory in control group"),
        (0, 0, 0, True, ""),
    ],
)
def test_a_kill_counts_when_it_can_only_have_been_the_payload(
    tree: Tree, before: int, after: int, own: int | None, killed: bool, counted: str
) -> None:
    said = watched(tree, before, after, own).evidence(killed)
    assert said.startswith(counted) and bool(said) is bool(counted)


def test_the_evidence_names_group_and_limit(tree: Tree) -> None:
    assert watched(tree, 0, 1).evidence(killed=True).endswith("/cgroup/slot, which may hold 100 MB")


def test_what_counts_in_a_group_of_its_own_is_the_groups_figure(tree: Tree) -> None:
    watch = watched(tree, 0, 0, own=0)
    assert watch.notice(os.getpid(), TreeSample(processes=1, pids=(os.getpid(),))) == 110 * 1024
    watch.own = None
    assert watch.notice(os.getpid(), TreeSample(processes=1, pids=(os.getpid(),))) is None


def test_a_group_that_is_gone_with_its_payload_keeps_what_was_read(tree: Tree) -> None:
    watch = watched(tree, 0, 0, own=2)
    watch.notice(os.getpid(), TreeSample(processes=1, pids=(os.getpid(),)))
    assert watch.own is not None
    for path in watch.own.directory.iterdir():
        path.unlink()
    watch.own.directory.rmdir()
    assert watch.evidence(killed=False).startswith("2 process(es)")
