"""What processes are doing, for a log, and which signals they handle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pilot.util.stacks import catches, describe_processes, hands_on


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a handler for SIGUSR1, and a name that is hard to read."""
    program = "import signal, sys; signal.signal(signal.SIGUSR1, print); print('ready', flush=True); signal.pause()"
    child = subprocess.Popen([sys.executable, "-c", program, "odd\nname\x1b"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_each_process_has_a_line_with_its_state_and_command(sleeper: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while "state S" not in describe_processes([sleeper.pid])[0] and time.monotonic() < deadline:
        time.sleep(0.005)
    line, *frames = describe_processes([sleeper.pid])
    assert line.startswith(f"pid {sleeper.pid}, state S, 1 thread(s)")
    assert "odd?name?" in line and "\n" not in line
    assert all(frame.startswith("    ") for frame in frames)
    if os.geteuid() == 0 and os.path.exists("/proc/self/stack"):
        assert any("pause" in frame or "schedule" in frame for frame in frames)


def test_processes_that_are_gone_have_no_line() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert describe_processes([child.pid]) == []


def test_of_very_many_processes_only_some_are_shown() -> None:
    lines = describe_processes([os.getpid()] * 45)
    assert lines[-1] == "and 5 more processes"
    assert sum(line.startswith("pid ") for line in lines) == 40


def test_a_handler_is_seen_and_its_absence_too(sleeper: subprocess.Popen[bytes]) -> None:
    assert catches(sleeper.pid, signal.SIGUSR1)
    assert not catches(sleeper.pid, signal.SIGUSR2)
    assert not catches(sleeper.pid, signal.SIGXCPU)
    assert not catches(2**22 + 1, signal.SIGUSR1)


@pytest.mark.parametrize("name", ["Apptainer runtime parent: image", "Singularity runtime parent", "appinit", "sinit"])
def test_a_runtime_that_gives_signals_to_others_is_told_from_a_payload(
    sleeper: subprocess.Popen[bytes], name: str
) -> None:
    with subprocess.Popen([name], executable="/bin/cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as runtime:
        assert runtime.stdin is not None and runtime.stdout is not None
        runtime.stdin.write(b"\n")
        runtime.stdin.flush()
        runtime.stdout.readline()
        assert hands_on(runtime.pid)
    assert not hands_on(sleeper.pid) and not hands_on(2**22 + 1)
