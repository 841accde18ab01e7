"""A payload's own control group: real ones where they can be made, and a made-up hierarchy for what is not here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.util import payloadgroup
from pilot.util.cgroups import MemoryGroup
from pilot.util.guard import members
from pilot.util.guarded import Launcher
from pilot.util.payloadgroup import PREFIX, PayloadGroup, sweep

STORM = """
import os, time
end = time.monotonic() + 60
print("on its way", flush=True)
os.close(1)
for _ in range(4):
    if os.fork() == 0:
        break
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    os.setsid()
"""


@pytest.fixture
def group() -> Iterator[PayloadGroup]:
    """A real one."""
    made = PayloadGroup.make()
    if made is None:
        pytest.skip("no control group can be made here: that needs root, or one that is delegated")
    yield made
    made.end()


def start_in(directories: list[Path], folder: Path, *command: str) -> subprocess.Popen[bytes]:
    """A process in a group, without a guard. What it says first has been said."""
    enter = "".join(f"echo 0 > {directory}/cgroup.procs; " for directory in directories)
    script = f'{enter}echo entered; exec "$@"'
    process = subprocess.Popen(["/bin/sh", "-c", script, "sh", *command], cwd=folder, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"entered\n"
    return process


def test_a_command_is_put_into_its_group_and_is_told_to_be(group: PayloadGroup, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        guarded = Launcher().start(["sleep", "60"], cwd=tmp_path, env=os.environ, stdout=out, stderr=out, group=group)
    assert guarded.is_grouped
    for directory in group.directories:
        assert members(str(directory)) == [guarded.pid], "the guard is in none"
    guarded.kill()
    assert guarded.wait().signal == signal.SIGKILL
    assert group.end() == [] and not any(directory.exists() for directory in group.directories)


def test_a_group_that_takes_nobody_is_said_and_costs_nothing(tmp_path: Path) -> None:
    group = PayloadGroup()
    group.homes = {tmp_path / "none": tmp_path}
    with (tmp_path / "out").open("wb") as out:
        guarded = Launcher().start(["true"], cwd=tmp_path, env=os.environ, stdout=out, stderr=out, group=group)
    assert not guarded.is_grouped
    assert guarded.wait().exit_code == 0


def test_a_guard_that_cannot_leave_its_group_does_not_end_it(group: PayloadGroup, tmp_path: Path) -> None:
    group.homes = dict.fromkeys(group.directories, tmp_path / "none")
    with (tmp_path / "out").open("wb") as out:
        guarded = Launcher().start(["sleep", "60"], cwd=tmp_path, env=os.environ, stdout=out, stderr=out, group=group)
    assert {guarded.guard_pid, guarded.pid} <= set(members(str(group.directories[0])))
    guarded.kill()
    outcome = guarded.wait()
    assert outcome.signal == signal.SIGKILL and not outcome.guard_died, "it could tell how the command ended"


def test_the_end_of_a_group_ends_a_fork_storm_that_no_guard_holds(group: PayloadGroup, tmp_path: Path) -> None:
    with start_in(group.directories, tmp_path, sys.executable, "-c", STORM) as storm:
        assert storm.stdout is not None and storm.stdout.readline() == b"on its way\n"
    assert members(str(group.directories[0])) != []
    assert group.end() == []


def test_groups_that_a_payload_has_made_below_go_too(group: PayloadGroup, tmp_path: Path) -> None:
    below = [directory / "mine" / "deeper" for directory in group.directories]
    for directory in below:
        directory.mkdir(parents=True)
    with start_in(below, tmp_path, "sleep", "60"):
        assert group.end() == []
    assert not any(directory.exists() for directory in group.directories)


def test_memory_is_counted_where_it_is_without_pages_of_files(group: PayloadGroup, tmp_path: Path) -> None:
    if group.memory is None:
        pytest.skip("this hierarchy hands no memory controller down")
    (tmp_path / "file").write_bytes(bytes(40 << 20))
    program = "import time; b = bytearray(b'x') * (30 << 20); open('file', 'rb').read(); print(1, flush=True)"
    with start_in(group.directories, tmp_path, sys.executable, "-c", f"{program}; time.sleep(60)") as process:
        assert process.stdout is not None and process.stdout.readline() == b"1\n"
        assert 30 * 1024 <= (group.memory.charged() or 0) < 60 * 1024
        group.end()


def test_a_group_whose_pilot_lives_is_left_alone_and_one_without_is_ended(group: PayloadGroup, tmp_path: Path) -> None:
    with start_in(group.directories, tmp_path, "sleep", "60") as sleeper:
        swept = [directory for directory, _ in sweep()]
        assert not set(swept) & set(group.directories) and sleeper.poll() is None
        # As the kernel does when the pilot is killed.
        for lock in group._locks:
            os.close(lock)
        group._locks.clear()
        ended = dict(sweep())
        assert set(group.directories) <= set(ended) and 1 in ended.values()
        assert sleeper.wait() == -signal.SIGKILL


# ---- hierarchies that are not here


class Kernel:
    """Makes what the kernel makes: a new directory comes with its files."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proc, self.top = root / "proc", root / "cgroup"
        (self.proc / str(os.getpid())).mkdir(parents=True)
        (self.proc / "self").mkdir()
        self.files: tuple[str, ...] = ()
        self.made: list[Path] = []
        plain = Path.mkdir

        def mkdir(path: Path, mode: int = 0o777) -> None:
            plain(path, mode)
            self.made.append(path)
            for name in self.files:
                (path / name).write_text("anon 2048\nshmem 1024\nfile 9999999\n" if name == "memory.stat" else "")

        monkeypatch.setattr(payloadgroup.Path, "mkdir", mkdir)
        monkeypatch.setattr(payloadgroup, "remove_group", lambda directory: True)

    def has(self, membership: str, kind: str, options: str, **files: str) -> None:
        (self.proc / str(os.getpid()) / "cgroup").write_text(f"{membership}\n")
        (self.proc / "self" / "mountinfo").write_text(f"30 1 0:30 / {self.top} rw - {kind} {kind} {options}\n")
        own = self.top / "slot"
        os.makedirs(own)
        for name, text in files.items():
            (own / name.replace("__", ".")).write_text(text)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch)


def test_a_delegated_group_of_version_two_does_all_in_one(kernel: Kernel) -> None:
    kernel.has("0::/slot", "cgroup2", "rw")
    kernel.files = ("cgroup.procs", "cgroup.kill", "memory.stat", "memory.events")
    group = PayloadGroup.make(kernel.proc)
    assert group is not None and group.kills
    (directory,) = group.directories
    assert directory.parent == kernel.top / "slot" and directory.name.startswith(PREFIX)
    assert group.memory == MemoryGroup(directory, kernel.top, 2) and group.memory.charged() == 3
    assert group.end() == [] and (directory / "cgroup.kill").read_text() == "1"


def test_without_its_memory_controller_version_two_still_ends_all(kernel: Kernel) -> None:
    kernel.has("0::/slot", "cgroup2", "rw")
    kernel.files = ("cgroup.procs", "cgroup.kill")
    group = PayloadGroup.make(kernel.proc)
    assert group is not None and group.kills and group.memory is None
    group.end()


def test_a_version_two_that_can_do_nothing_for_us_is_not_used(kernel: Kernel) -> None:
    kernel.has("0::/slot", "cgroup2", "rw")
    kernel.files = ("cgroup.procs",)
    assert PayloadGroup.make(kernel.proc) is None and len(kernel.made) == 1


@pytest.mark.parametrize(("hierarchy", "used"), [("1", True), ("0", False)])
def test_version_one_is_used_only_where_the_slots_limits_hold_below(kernel: Kernel, hierarchy: str, used: bool) -> None:
    kernel.has("4:memory:/slot", "cgroup", "rw,memory", memory__use_hierarchy=hierarchy)
    kernel.files = ("cgroup.procs", "memory.stat", "memory.use_hierarchy")
    group = PayloadGroup.make(kernel.proc)
    assert (group is not None) is used
    if group is not None:
        assert group.memory is not None and group.memory.version == 1
        group.end()


def test_a_group_that_is_not_ours_to_write_in_is_not_used(kernel: Kernel) -> None:
    kernel.has("0::/elsewhere", "cgroup2", "rw")
    assert PayloadGroup.make(kernel.proc) is None and kernel.made == []
