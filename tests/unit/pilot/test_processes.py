"""What a payload's processes use, read from /proc."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from pilot.util import processes
from pilot.util.guarded import GuardedProcess, Launcher
from pilot.util.processes import TreeSample, is_alive, sample_tree

SOON = 30.0

Start = Callable[[str], GuardedProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a Python program under a guard and returns once it has made the file "ready"; ended at the end."""
    running: list[GuardedProcess] = []

    def begin(program: str) -> GuardedProcess:
        with (tmp_path / "out").open("wb") as out:
            guarded = Launcher().start(
                [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, env={}, stdout=out, stderr=out
            )
        running.append(guarded)
        deadline = time.monotonic() + SOON
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        return guarded

    yield begin
    for guarded in running:
        guarded.kill()
        guarded.wait()


def test_a_tree_is_summed_over_all_its_processes_with_the_guard(start: Start) -> None:
    guarded = start("""
        import os, time
        block = bytearray(b"x" * 50_000_000)
        if os.fork() == 0:
            own = bytearray(b"y" * 50_000_000)
            open("ready", "w").close()
        time.sleep(300)
    """)
    sample = sample_tree(guarded.guard_pid)
    assert sample.processes == 3
    # Shared between parent and child: counted once as PSS, twice as RSS.
    assert 95_000 < sample.pss < 150_000
    assert sample.rss > 145_000
    assert sample.vmem >= sample.rss >= sample.pss
    assert sample.swap >= 0


def test_cpu_time_counts_children_that_have_ended(start: Start) -> None:
    guarded = start("""
        import os, time
        if os.fork() == 0:
            while time.process_time() < 0.3:
                pass
            os._exit(0)
        os.wait()
        open("ready", "w").close()
        time.sleep(300)
    """)
    sample = sample_tree(guarded.guard_pid)
    assert sample.processes == 2
    assert 0.25 < sample.cpu_user + sample.cpu_system < 20


def test_bytes_read_and_written_are_counted(start: Start) -> None:
    guarded = start("""
        import time
        with open("/dev/zero", "rb") as reader, open("file", "wb") as writer:
            for _ in range(10):
                writer.write(reader.read(1_000_000))
        open("ready", "w").close()
        time.sleep(300)
    """)
    sample = sample_tree(guarded.guard_pid)
    assert 10_000_000 <= sample.rchar < 100_000_000
    assert 10_000_000 <= sample.wchar < 100_000_000


def test_a_tree_that_is_gone_uses_nothing(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        guarded = Launcher().start(["true"], cwd=tmp_path, env={}, stdout=out, stderr=out)
    guarded.wait()
    assert sample_tree(guarded.guard_pid) == TreeSample()


def test_a_kernel_without_proportional_sizes_gives_the_resident_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    real = processes._fields
    monkeypatch.setattr(
        processes, "_fields", lambda path, names: {} if path.endswith("smaps_rollup") else real(path, names)
    )
    sample = sample_tree(os.getpid())
    assert sample.pss == sample.rss > 10_000


def test_a_process_is_alive_until_it_is_a_zombie() -> None:
    child = subprocess.Popen(["sleep", "300"])
    assert is_alive(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(child.pid)
    child.wait()
    assert not is_alive(child.pid)


def test_zombies_use_nothing_and_break_nothing() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    sample = sample_tree(child.pid)
    assert (sample.pss, sample.rss) == (0, 0)
    child.wait()


def test_own_children_are_known_zombies_included() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes.own_children() == [child.pid]
    child.wait()
    assert processes.own_children() == []


def test_what_counts_is_anonymous_and_shared_memory_of_the_payload_and_no_pages_of_files(start: Start) -> None:
    guarded = start("""
        import mmap, os, time
        with open("file", "wb") as out:
            out.write(bytes(range(256)) * 4 * 51200)
        view = mmap.mmap(os.open("file", os.O_RDONLY), 0, prot=mmap.PROT_READ)
        touched = sum(view[at] for at in range(0, len(view), 4096))
        block = bytearray(b"x" * 30_000_000)
        shared = mmap.mmap(-1, 20_000_000)
        shared.write(b"y" * 20_000_000)
        open("ready", "w").close()
        time.sleep(300)
    """)
    sample = sample_tree(guarded.guard_pid)
    assert sample.pss > 95_000
    assert 48_000 < sample.charged < 80_000
    (largest,) = sample.largest
    assert (largest.pid, largest.memory) == (guarded.pid, sample.charged)
    assert largest.name.startswith("python")
    assert sample.pids == (guarded.guard_pid, guarded.pid)
    assert sample.threads == 2


def test_a_tree_is_stopped_when_all_below_its_root_are(start: Start) -> None:
    guarded = start("""
        import os, time
        if os.fork() == 0:
            open("ready", "w").close()
        time.sleep(300)
    """)
    first, second = sample_tree(guarded.guard_pid).pids[1:]
    states = []
    for pid, number in ((first, signal.SIGSTOP), (second, signal.SIGSTOP), (second, signal.SIGCONT)):
        os.kill(pid, number)
        deadline = time.monotonic() + SOON
        wanted = "T" if number == signal.SIGSTOP else "S"
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        states.append(sample_tree(guarded.guard_pid).stopped)
    assert states == [False, True, False]


def test_zombies_are_counted(start: Start) -> None:
    guarded = start("""
        import os, time
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        open("ready", "w").close()
        time.sleep(300)
    """)
    assert sample_tree(guarded.guard_pid).zombies == 3


@pytest.mark.parametrize(
    ("memory", "status", "charged"),
    [
        ({"Pss": 100, "Pss_Anon": 30, "Pss_Shmem": 5}, {"RssAnon": 99}, 35),
        ({"Pss": 100}, {"RssAnon": 30, "RssShmem": 5}, 35),
        # Workers that share what they have: PSS is the smaller bound.
        ({"Pss": 100}, {"RssAnon": 1000}, 100),
        ({"Pss": 100}, {}, 100),
    ],
)
def test_kernels_that_do_not_split_pss_give_the_smaller_of_two_bounds(
    memory: dict[str, int], status: dict[str, int], charged: int
) -> None:
    assert processes._charged(memory, status) == charged


def test_a_kernel_without_the_rollup_gives_the_sum_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    with_rollup = processes._measure(os.getpid(), "smaps_rollup")
    without = processes._measure(os.getpid(), "smaps")
    assert without.sums[0] == pytest.approx(with_rollup.sums[0], rel=0.1)
