"""The documented names of pilot.util.processes and pilot.util.workernode: they do what chapter 7.3.2 says."""

from __future__ import annotations

import logging
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.util import processes, workernode
from tests.pilots import wait_until
from tests.unit.pilot.builders import is_asleep

PS = """  PID  PPID  PGID COMMAND
22091  6672 22091 bash
32581 22091 32581 export PandaID=12345; athena.py   ddfg
    7 32581     7 python athena.py
"""


@pytest.fixture
def tree() -> Iterator[subprocess.Popen[str]]:
    """A shell with a child, in a session of its own; its first line of output is the child's pid."""
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        yield started
        with_group = [started.pid, *processes.descendants(started.pid)]
        for pid in with_group:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def child_of(tree: subprocess.Popen[str]) -> int:
    assert tree.stdout is not None
    pid = int(tree.stdout.readline())
    while not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"):
        time.sleep(0.001)  # between fork and exec it is still the shell
    return pid


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while processes.is_process_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)  # it is not our child
    return not processes.is_process_running(pid)


# ---- the output of ps


def test_the_output_of_ps_becomes_columns() -> None:
    found = processes.convert_ps_to_dict(PS)
    assert found == {
        "PID": [22091, 32581, 7],
        "PPID": [6672, 22091, 32581],
        "PGID": [22091, 32581, 7],
        "COMMAND": ["bash", "export PandaID=12345; athena.py   ddfg", "python athena.py"],
    }
    assert processes.convert_ps_to_dict("PID PPID PGID CMD\n1 2 3 x\nnonsense") == {
        "PID": [1], "PPID": [2], "PGID": [3], "COMMAND": ["x"],
    }  # fmt: skip
    assert processes.convert_ps_to_dict("") == {}
    assert processes.get_trimmed_dictionary(["PID", "none"], found) == {"PID": [22091, 32581, 7]}


def test_a_real_ps_is_understood(tree: subprocess.Popen[str]) -> None:
    child = child_of(tree)
    said = subprocess.run(["ps", "axo", "pid,ppid,pgid,cmd"], capture_output=True, text=True, check=True).stdout
    found = processes.convert_ps_to_dict(said)
    assert child in processes.find_cmd_pids("sleep 60", found)
    assert processes.is_child(child, os.getpid(), found) and not processes.is_child(os.getpid(), child, found)


def test_processes_are_found_in_the_output_of_ps() -> None:
    found = processes.convert_ps_to_dict(PS)
    assert processes.find_cmd_pids("athena.py", found) == [32581, 7]
    assert processes.find_pid("12345", found) == 32581 and processes.find_pid("1234", found) == -1
    assert processes.is_child(7, 22091, found) and processes.is_child(7, 7, found)
    assert not processes.is_child(22091, 7, found) and not processes.is_child(99, 7, found)
    circle = {"PID": [1, 2], "PPID": [2, 1]}
    assert not processes.is_child(1, 3, circle)
    assert processes.get_pilot_pid_from_processes(PS, re.compile(r"(\d+).*python athena")) == 7
    assert processes.get_pilot_pid_from_processes(PS, re.compile(r"(\d+).*none")) is None


# ---- what there is, and what it uses


def test_a_tree_of_processes_is_seen(tree: subprocess.Popen[str]) -> None:
    child = child_of(tree)
    assert processes.find_processes_in_group([1], tree.pid) == [1, tree.pid, child]
    assert processes.get_number_of_child_processes(tree.pid) == 1
    assert processes.get_process_commands(os.geteuid(), [child, 2**22 + 1]) == ["sleep 60"]
    assert processes.get_process_commands(os.geteuid() + 1, [child]) == []
    assert processes.is_process_running(child) and not processes.is_zombie(child)


def test_a_zombie_is_one() -> None:
    with subprocess.Popen(["true"]) as started:
        assert ended(started.pid) and processes.is_zombie(started.pid)
    assert not processes.is_zombie(started.pid)


def test_cpu_time_is_that_of_the_tree() -> None:
    before = os.times()
    subprocess.run(["sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"], check=True)
    used = processes.get_cpu_consumption_time(before)
    assert 0.01 < used < 60
    assert processes.get_current_cpu_consumption_time(os.getpid()) >= used
    assert processes.get_instant_cpu_consumption_time(os.getpid()) > 0
    assert processes.get_instant_cpu_consumption_time(None) == 0.0


def test_the_control_group_is_told_where_there_is_one() -> None:
    path, most = processes.get_cgroups_base_path(), processes.get_max_memory_usage_from_cgroups()
    if path:
        assert Path(path, "memory.stat").is_file() and (most is None or most > 2**20)
    else:
        assert most is None


def test_a_process_that_hangs_is_described_in_the_log(
    tree: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    child = child_of(tree)
    wait_until(lambda: is_asleep(child), "it sleeps")
    with caplog.at_level(logging.INFO):
        processes.dump_stack_trace(child)
    assert f"pid {child}, state S" in caplog.text and "sleep 60" in caplog.text


# ---- ending them


def test_a_process_and_its_children_are_ended(tree: subprocess.Popen[str]) -> None:
    child = child_of(tree)
    assert processes.kill(child, 0) and processes.kill(child, signal.SIGTERM) and ended(child)
    wait_until(lambda: not processes.is_zombie(child), "its parent has waited for it")
    assert not processes.kill(child, signal.SIGTERM)


def test_all_below_a_process_is_killed(tree: subprocess.Popen[str]) -> None:
    child = child_of(tree)
    processes.kill_child_processes(tree.pid)
    assert ended(child)
    assert processes.kill_process(tree.pid) or tree.poll() is not None


def test_a_tree_is_ended_as_a_whole(tree: subprocess.Popen[str]) -> None:
    child = child_of(tree)
    processes.kill_processes(tree.pid)
    assert ended(child) and ended(tree.pid)


def test_a_group_is_ended_even_when_it_ignores_the_first_signal() -> None:
    ignoring = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]
    with subprocess.Popen(ignoring, stdout=subprocess.PIPE, text=True, start_new_session=True) as started:
        assert started.stdout is not None and started.stdout.readline() == "ready\n"
        processes.killpg(started.pid, signal.SIGTERM, None)
        assert started.poll() is None
        assert processes.kill_process_group(started.pid)
        assert ended(started.pid)


def test_what_is_not_below_us_is_never_touched(tree: subprocess.Popen[str]) -> None:
    child = child_of(tree)
    other = [
        "import os, sys; from pilot.util import processes as p;",
        f"pid, group = {child}, {tree.pid};",
        "print(p.kill(pid, 15), p.kill_process(pid), p.kill_process_group(group), p.kill(os.getpid(), 15));",
        "p.kill_child_processes(group); p.kill_processes(group); p.killpg(group, 15, None)",
    ]
    root = Path(__file__).parents[3]
    said = subprocess.run([sys.executable, "-c", " ".join(other)], cwd=root, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False"] * 4, said.stderr
    assert processes.is_process_running(child) and tree.poll() is None


# ---- the node


def test_the_node_is_described(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory, mhz, disk = workernode.collect_workernode_info(str(tmp_path))
    assert memory == workernode.get_meminfo() > 100 and mhz >= 0 and workernode.get_cpuinfo() >= 0
    assert disk > 0 and workernode.get_local_disk_space(None) > 0
    assert workernode.get_local_disk_space("/no/such/place") == 0.0
    with caplog.at_level(logging.INFO):
        workernode.check_hz()
    assert f"{os.sysconf('SC_CLK_TCK')} clock ticks" in caplog.text
    model = workernode.get_cpu_model()
    text = Path("/proc/cpuinfo").read_text()
    assert "model name" not in text or model.split(" ")[0] in text, platform.processor()
    assert "cache size" not in text or model.endswith("KB")


def test_a_slot_of_htcondor_is_in_front_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PANDA_HOSTNAME", raising=False)
    monkeypatch.delenv("_CONDOR_SLOT", raising=False)
    assert workernode.get_node_name() == platform.node() and workernode.get_condor_node_name("n") == "n"
    monkeypatch.setenv("_CONDOR_SLOT", "slot1_2")
    assert workernode.get_node_name() == f"slot1_2@{platform.node()}"
    assert workernode.get_condor_node_name("n") == "slot1_2@n" and workernode.get_condor_node_name("s@n") == "s@n"


@pytest.mark.parametrize("limit", [0, 1])
def test_the_queue_may_allow_less_than_there_is(limit: int) -> None:
    class Queue:
        maxwdir = limit

    free = workernode.get_disk_space(Queue())
    assert free == 1 if limit else free > 1
