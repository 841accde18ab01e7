"""What a payload's processes use, read from /proc."""

from __future__ import annotations

import os
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
