"""The guard: nothing of a payload survives its end, however it or the pilot ends, and nobody else is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, RunPayloadFailure
from pilot.util import guard
from pilot.util.guarded import GuardedProcess, Launcher, Outcome
from pilot.util.processes import is_alive

ROOT = Path(__file__).parents[3]
ENV = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
# Time in which everything that is waited for happens, even on a busy machine (s).
SOON = 30.0
# A payload that would run for so long (s) is ended by what is tested, not by its own end.
LONG = 300

# Starts a grandchild in a session of its own, whose parent is gone: the classical daemon. Its pid is added to "pids".
DAEMON = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open("pids", "a") as stream:
            stream.write(str(os.getpid()) + "\\n")
        time.sleep({LONG})
    os._exit(0)
os.wait()
while not os.path.exists("pids"):
    time.sleep(0.005)
"""


def start(tmp_path: Path, command: Sequence[str], env: Mapping[str, str] = ENV) -> GuardedProcess:
    with (tmp_path / "out").open("wb") as stdout, (tmp_path / "err").open("wb") as stderr:
        return Launcher().start(command, cwd=tmp_path, env=env, stdout=stdout, stderr=stderr)


def start_shell(tmp_path: Path, script: str) -> GuardedProcess:
    return start(tmp_path, ["/bin/sh", "-c", script])


def python(program: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(program)]


def run(tmp_path: Path, command: Sequence[str], env: Mapping[str, str] = ENV) -> Outcome:
    return start(tmp_path, command, env).wait()


def output(tmp_path: Path) -> str:
    return (tmp_path / "out").read_text()


def pids(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().split()]


def wait_for_lines(path: Path, count: int) -> list[int]:
    """The pids in a file, once there are so many."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        if path.exists() and len(path.read_text().splitlines()) >= count and path.read_text().endswith("\n"):
            return pids(path)
        time.sleep(0.005)
    raise AssertionError(f"{path} never had {count} lines")


def still_alive(candidates: Sequence[int], within: float) -> list[int]:
    """Which of the processes are alive after at most so many seconds."""
    deadline = time.monotonic() + within
    while True:
        alive = [pid for pid in candidates if is_alive(pid)]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.01)


# ---- how a payload ends


@pytest.mark.parametrize("code", [0, 1, 2, 3, 126, 127, 128, 143, 255])
def test_an_exit_code_is_told_as_it_is(tmp_path: Path, code: int) -> None:
    outcome = run(tmp_path, ["/bin/sh", "-c", f"exit {code}"])
    assert (outcome.exit_code, outcome.signal, outcome.left, outcome.lost) == (code, 0, 0, 0)
    assert not outcome.guard_died


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, signal.SIGXCPU, signal.SIGPIPE])
def test_a_death_by_signal_is_told_with_its_number(tmp_path: Path, number: signal.Signals) -> None:
    outcome = run(tmp_path, ["/bin/sh", "-c", f"ulimit -c 0; kill -{number.value} $$"])
    assert (outcome.exit_code, outcome.signal) == (None, number)


def test_ten_thousand_lines_arrive(tmp_path: Path) -> None:
    assert run(tmp_path, ["/bin/sh", "-c", "seq 10000; seq 10000 >&2"]).exit_code == 0
    wanted = [str(number) for number in range(1, 10001)]
    assert output(tmp_path).split() == wanted
    assert (tmp_path / "err").read_text().split() == wanted


def test_cpu_time_and_memory_of_the_whole_tree_are_counted(tmp_path: Path) -> None:
    burner = python("""
        import os, time
        if os.fork() == 0:
            block = b"x" * 80_000_000
            while time.process_time() < 0.3:
                pass
            os._exit(0)
        os.wait()
    """)
    outcome = run(tmp_path, burner)
    assert 0.25 < outcome.cpu_user + outcome.cpu_system < 20
    assert outcome.max_rss > 80_000


def test_cpu_time_of_a_process_that_outlived_the_payload_is_counted_too(tmp_path: Path) -> None:
    burner = python("""
        import os, time
        if os.fork() == 0:
            os.setsid()
            while time.process_time() < 0.3:
                pass
            open("burnt", "w").close()
            time.sleep(300)
        while not os.path.exists("burnt"):
            time.sleep(0.01)
    """)
    outcome = run(tmp_path, burner)
    assert outcome.left == 1
    assert outcome.cpu_user + outcome.cpu_system > 0.25


# ---- how a payload is started


def test_a_payload_gets_its_directory_and_exactly_its_environment(tmp_path: Path) -> None:
    env = {**ENV, "PandaID": "254", "ODD": "a b\nc=d", "EMPTY": ""}
    run(tmp_path, python("import os, json; print(json.dumps([os.getcwd(), dict(os.environ)]))"), env)
    directory, got = json.loads(output(tmp_path))
    assert directory == os.path.realpath(tmp_path)
    assert got == env


@pytest.mark.parametrize(
    "hostile", [{"PYTHONPATH": "."}, {"PYTHONHOME": "/nonexistent"}, {"PYTHONSTARTUP": "os.py"}, {"PYTHONUTF8": "7"}]
)
def test_the_payloads_python_variables_do_not_disturb_the_guard_and_reach_the_payload(
    tmp_path: Path, hostile: dict[str, str]
) -> None:
    for module in ("os.py", "select.py", "signal.py", "ctypes.py", "sitecustomize.py"):
        (tmp_path / module).write_text("raise SystemExit(99)")
    name, value = next(iter(hostile.items()))
    assert run(tmp_path, ["/bin/sh", "-c", f'echo "${name}"; exit 5'], {**ENV, **hostile}).exit_code == 5
    assert output(tmp_path).strip() == value


def test_standard_input_of_a_payload_is_empty(tmp_path: Path) -> None:
    assert run(tmp_path, ["/bin/sh", "-c", "readlink /proc/self/fd/0; cat; echo end"]).exit_code == 0
    assert output(tmp_path).split() == ["/dev/null", "end"]


def test_a_payload_inherits_nothing_but_its_three_streams(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        run(tmp_path, ["/bin/sh", "-c", "exec 2>&1; cd /proc/$$/fd && for f in *; do readlink $f; done"])
    assert output(tmp_path).split() == ["/dev/null", str(tmp_path / "out"), str(tmp_path / "out")]


def test_a_payload_has_default_signals_whatever_the_pilot_ignores_and_blocks(tmp_path: Path) -> None:
    blocked = {signal.SIGSEGV, signal.SIGBUS, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(tmp_path, ["cat", "/proc/self/status"])
    finally:
        signal.signal(signal.SIGHUP, hangup)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    status = dict(line.split(":", 1) for line in output(tmp_path).splitlines())
    # Signals 32 and 33 are the C library's own: what its posix_spawn has started ignores them, and so do the children.
    own = ~(1 << 31 | 1 << 32)
    masks = {name: int(status[name], 16) & own for name in ("SigBlk", "SigIgn", "SigCgt")}
    assert masks == {"SigBlk": 0, "SigIgn": 0, "SigCgt": 0}


def test_a_payload_is_a_process_group_in_a_session_that_is_not_the_pilots(tmp_path: Path) -> None:
    guarded = start(tmp_path, python("import os; print(os.getpid(), os.getpgid(0), os.getsid(0))"))
    guarded.wait()
    pid, group, session = map(int, output(tmp_path).split())
    assert pid == guarded.pid == group
    assert session == guarded.guard_pid != os.getsid(0)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["no-such-command-anywhere"], "no-such-command-anywhere could not be executed: No such file or directory"),
        (["/etc/passwd"], "/etc/passwd could not be executed: Permission denied"),
        (["/tmp"], "/tmp could not be executed: Permission denied"),
    ],
)
def test_a_command_that_cannot_be_executed_is_named_with_the_reason(
    tmp_path: Path, command: list[str], why: str
) -> None:
    with pytest.raises(RunPayloadFailure) as raised:
        start(tmp_path, command)
    assert raised.value.diag == why


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, pytest.raises(PilotException, match="gone") as raised:
        Launcher().start(["true"], cwd=tmp_path / "gone", env=ENV, stdout=out, stderr=out)
    assert raised.value.code == ErrorCodes.RESOURCEUNAVAILABLE


@pytest.mark.parametrize("env", [{**ENV, "BAD": "a\0b"}, {**ENV, "BAD": "\ud800"}])
def test_an_impossible_environment_is_an_error_and_no_traceback(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(PilotException) as raised:
        start(tmp_path, ["true"], env)
    assert raised.value.code == ErrorCodes.RESOURCEUNAVAILABLE


def test_several_payloads_under_one_launcher_do_not_know_of_each_other(tmp_path: Path) -> None:
    launcher = Launcher()
    with (tmp_path / "out").open("wb") as out:
        running = [
            launcher.start(["/bin/sh", "-c", f"sleep 0.0{n}; exit {n}"], cwd=tmp_path, env=ENV, stdout=out, stderr=out)
            for n in range(5)
        ]
    assert [guarded.wait().exit_code for guarded in running] == [0, 1, 2, 3, 4]


# ---- nothing is left


def test_a_daemon_with_its_own_session_is_swept(tmp_path: Path) -> None:
    outcome = run(tmp_path, python(DAEMON))
    assert (outcome.exit_code, outcome.left, outcome.lost) == (0, 1, 0)
    assert still_alive(pids(tmp_path / "pids"), within=0) == []


def test_a_background_process_is_swept(tmp_path: Path) -> None:
    outcome = run(tmp_path, ["/bin/sh", "-c", f"sleep {LONG} & echo $! > pids; exit 4"])
    assert (outcome.exit_code, outcome.left) == (4, 1)
    assert still_alive(pids(tmp_path / "pids"), within=0) == []


def test_a_stopped_process_is_swept(tmp_path: Path) -> None:
    outcome = run(tmp_path, ["/bin/sh", "-c", f"sleep {LONG} & echo $! > pids; kill -STOP $!"])
    assert (outcome.exit_code, outcome.left, outcome.lost) == (0, 1, 0)
    assert still_alive(pids(tmp_path / "pids"), within=0) == []


def test_a_process_that_ignores_everything_is_swept(tmp_path: Path) -> None:
    deaf = f"""
        import os, signal, time
        for number in set(signal.Signals) - {{signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}}:
            signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            open("pids", "w").write(f"{{os.getpid()}}\\n")
            time.sleep({LONG})
        while not os.path.exists("pids"):
            time.sleep(0.005)
    """
    assert run(tmp_path, python(deaf)).left == 1
    assert still_alive(pids(tmp_path / "pids"), within=0) == []


def test_zombies_are_no_survivors(tmp_path: Path) -> None:
    maker = "import os, time\nfor _ in range(20):\n    if os.fork() == 0:\n        os._exit(0)\ntime.sleep(0.1)"
    outcome = run(tmp_path, python(maker))
    assert (outcome.exit_code, outcome.lost) == (0, 0)


def test_a_tree_of_many_processes_is_swept(tmp_path: Path) -> None:
    storm = f"""
        import os, time
        first = os.getpid()
        for _ in range(6):
            if os.fork() == 0:
                os.setsid()
        with open("pids", "a") as stream:
            stream.write(f"{{os.getpid()}}\\n")
        if os.getpid() != first:
            time.sleep({LONG})
        while len(open("pids").read().splitlines()) < 64:
            time.sleep(0.01)
    """
    outcome = run(tmp_path, python(storm))
    assert (outcome.exit_code, outcome.left, outcome.lost) == (0, 63, 0)
    born = pids(tmp_path / "pids")
    assert len(set(born)) == 64
    assert still_alive(born, within=0) == []


def test_a_process_that_is_born_again_and_again_is_caught(tmp_path: Path) -> None:
    # Each generation lives only to bear the next, in a session of its own; without an end it would go on for a minute.
    hydra = """
        import os, time
        if os.fork() == 0:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                if os.fork():
                    os._exit(0)
                os.setsid()
                open("generation", "w").write(str(os.getpid()))
            os._exit(0)
        while not os.path.exists("generation"):
            time.sleep(0.001)
    """
    began = time.monotonic()
    outcome = run(tmp_path, python(hydra))
    assert outcome.lost == 0
    assert time.monotonic() - began < 45
    last = (tmp_path / "generation").read_text()
    time.sleep(0.2)
    assert (tmp_path / "generation").read_text() == last, "it still goes on"


# ---- stopping


def test_a_payload_that_listens_ends_in_its_own_way(tmp_path: Path) -> None:
    guarded = start_shell(tmp_path, f"trap 'echo bye; exit 7' TERM; echo up; sleep {LONG} & echo $! >pids; wait")
    wait_for_lines(tmp_path / "pids", 1)
    began = time.monotonic()
    guarded.stop(grace=SOON)
    assert guarded.wait().exit_code == 7
    assert output(tmp_path).split() == ["up", "bye"]
    assert time.monotonic() - began < SOON / 2
    assert still_alive(pids(tmp_path / "pids"), within=0) == []


def test_a_payload_that_ignores_term_is_killed_after_its_grace(tmp_path: Path) -> None:
    guarded = start_shell(tmp_path, f"trap '' TERM; echo $$ > pids; while :; do sleep {LONG}; done")
    wait_for_lines(tmp_path / "pids", 1)
    began = time.monotonic()
    guarded.stop(grace=0.3)
    outcome = guarded.wait()
    assert (outcome.exit_code, outcome.signal, outcome.lost) == (None, signal.SIGKILL, 0)
    assert 0.3 <= time.monotonic() - began < SOON
    assert still_alive(pids(tmp_path / "pids"), within=0) == []


def test_a_second_stop_may_shorten_the_grace(tmp_path: Path) -> None:
    guarded = start_shell(tmp_path, f"trap '' TERM; echo $$ > pids; sleep {LONG}; sleep {LONG}; sleep {LONG}")
    wait_for_lines(tmp_path / "pids", 1)
    guarded.stop(grace=LONG)
    guarded.stop(grace=0.05)
    began = time.monotonic()
    assert guarded.wait().signal == signal.SIGKILL
    assert time.monotonic() - began < SOON


def test_term_reaches_processes_that_hide_in_other_sessions(tmp_path: Path) -> None:
    hidden = f"""
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, lambda *_: (open("told", "w").close(), os._exit(0)))
            open("pids", "w").write(f"{{os.getpid()}}\\n")
            time.sleep({LONG})
        while not os.path.exists("told"):
            time.sleep(0.005)
    """
    guarded = start(tmp_path, python(hidden))
    wait_for_lines(tmp_path / "pids", 1)
    guarded.stop(grace=SOON)
    assert guarded.wait().exit_code == 0
    assert (tmp_path / "told").exists()


def test_a_stopped_payload_hears_term(tmp_path: Path) -> None:
    guarded = start_shell(tmp_path, "trap 'exit 9' TERM; echo $$ > pids; kill -STOP $$; sleep 60")
    (pid,) = wait_for_lines(tmp_path / "pids", 1)
    deadline = time.monotonic() + SOON
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T" and time.monotonic() < deadline:
        time.sleep(0.005)
    guarded.stop(grace=SOON)
    assert guarded.wait().exit_code == 9


def test_kill_is_at_once(tmp_path: Path) -> None:
    guarded = start_shell(tmp_path, f"trap '' TERM; sleep {LONG}")
    guarded.kill()
    outcome = guarded.wait()
    assert (outcome.exit_code, outcome.signal) == (None, signal.SIGKILL)


def test_orders_to_a_payload_that_is_over_do_nothing(tmp_path: Path) -> None:
    guarded = start_shell(tmp_path, "exit 3")
    assert guarded.wait().exit_code == 3
    guarded.stop(1.0)
    guarded.kill()


def test_a_payload_may_be_stopped_by_another_thread_than_the_one_that_waits(tmp_path: Path) -> None:
    guarded = start_shell(tmp_path, f"sleep {LONG}")
    stopper = threading.Timer(0.05, guarded.stop, [SOON])
    stopper.start()
    assert guarded.wait().signal == signal.SIGTERM
    stopper.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU])
def test_a_batch_system_that_signals_the_guard_does_not_end_the_payload(tmp_path: Path, number: int) -> None:
    guarded = start_shell(tmp_path, "while [ ! -e go ]; do sleep 0.01; done; exit 6")
    os.kill(guarded.guard_pid, number)
    (tmp_path / "go").touch()
    outcome = guarded.wait()
    assert (outcome.exit_code, outcome.guard_died) == (6, False)


# ---- the guard or the pilot is killed


def test_a_guard_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    guarded = start(tmp_path, python(f"{DAEMON}\nopen('pids', 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep({LONG})"))
    born = wait_for_lines(tmp_path / "pids", 2)
    os.kill(guarded.guard_pid, signal.SIGKILL)
    outcome = guarded.wait()
    assert (outcome.exit_code, outcome.guard_died, outcome.lost) == (None, True, 0)
    assert still_alive(born, within=SOON) == []


STARTER = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from pilot.util.guarded import Launcher, become_subreaper
become_subreaper()
here = Path(sys.argv[1])
with (here / "out").open("wb") as out:
    guarded = Launcher().start(
        [sys.executable, "-c", sys.argv[2]], cwd=here, env={{}}, stdout=out, stderr=out
    )
(here / "guard").write_text(f"{{guarded.guard_pid}}\\n")
guarded.wait()
"""


def test_a_pilot_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    payload = f"{DAEMON}\nopen('pids', 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep({LONG})"
    pilot = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path), payload])
    try:
        born = wait_for_lines(tmp_path / "pids", 2) + wait_for_lines(tmp_path / "guard", 1)
    finally:
        pilot.kill()
        pilot.wait()
    assert still_alive(born, within=SOON) == []


def test_the_payload_dies_with_its_guard_even_when_the_pilot_can_do_nothing(tmp_path: Path) -> None:
    payload = f"import os, time\nopen('pids', 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep({LONG})"
    pilot = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path), payload])
    try:
        born, (its_guard,) = wait_for_lines(tmp_path / "pids", 1), wait_for_lines(tmp_path / "guard", 1)
        pilot.send_signal(signal.SIGSTOP)
        os.kill(its_guard, signal.SIGKILL)
        assert still_alive(born, within=SOON) == []
    finally:
        pilot.kill()
        pilot.wait()


def test_a_foreign_process_of_the_same_shell_survives_everything(tmp_path: Path) -> None:
    payload = f"open('pids', 'a').write(f'{{__import__(\"os\").getpid()}}\\n')\nimport time\ntime.sleep({LONG})"
    script = f'sleep {LONG} & echo $! > foreign; "$@" & echo $! > pilot; wait $!; read forever'
    shell = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", sys.executable, "-c", STARTER, str(tmp_path), payload],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    foreign: list[int] = []
    try:
        (payload_pid,) = wait_for_lines(tmp_path / "pids", 1)
        foreign, (pilot,) = wait_for_lines(tmp_path / "foreign", 1), wait_for_lines(tmp_path / "pilot", 1)
        wait_for_lines(tmp_path / "guard", 1)
        assert os.getsid(foreign[0]) == os.getsid(pilot) == shell.pid
        os.kill(pilot, signal.SIGKILL)
        assert still_alive([payload_pid, *pids(tmp_path / "guard")], within=SOON) == []
        assert still_alive(foreign, within=0) == foreign
    finally:
        for pid in foreign:
            os.kill(pid, signal.SIGKILL)
        shell.communicate(b"\n")


def test_a_foreign_child_of_the_pilot_survives_the_normal_end_of_a_payload(tmp_path: Path) -> None:
    foreign = subprocess.Popen(["sleep", str(LONG)])
    try:
        assert run(tmp_path, python(DAEMON)).left == 1
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


# ---- the tree, read in two ways


def test_children_are_found_without_the_kernels_list_as_well(tmp_path: Path) -> None:
    odd = tmp_path / "a) b (c 7 8"
    odd.symlink_to(Path("/bin/sleep").resolve())
    children = [subprocess.Popen([str(odd), str(LONG)]), subprocess.Popen(["sleep", str(LONG)])]
    try:
        wanted = sorted(child.pid for child in children)
        assert sorted(guard.children_of(os.getpid())) == wanted
        assert sorted(guard.children_by_scan(os.getpid())) == wanted
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_a_process_that_does_not_exist_has_no_children() -> None:
    assert guard.children_of(2**22 + 1) == []
    assert guard.descendants(2**22 + 1) == []


def test_descendants_are_found_at_every_depth(tmp_path: Path) -> None:
    guarded = start_shell(tmp_path, f"sh -c 'sh -c \"sleep {LONG}; :\"; :'; :")
    deadline = time.monotonic() + SOON
    while len(guard.descendants(guarded.guard_pid)) < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(guard.descendants(guarded.guard_pid)) == 4
    guarded.kill()
    guarded.wait()


def test_signals_are_counted_for_processes_that_exist() -> None:
    child = subprocess.Popen(["sleep", str(LONG)])
    assert guard.send([child.pid, 2**22 + 1], signal.SIGKILL) == 1
    assert child.wait() == -signal.SIGKILL


# ---- the command's mark


@pytest.mark.parametrize(
    ("script", "marked"), [("echo x >&9; exit 5", True), ("exit 5", False), ("exec 9>&-; sleep 300", None)]
)
def test_a_mark_tells_whether_a_command_has_begun(tmp_path: Path, script: str, marked: bool | None) -> None:
    read_end, write_end = os.pipe()
    try:
        with (tmp_path / "out").open("wb") as out:
            guarded = Launcher().start(
                ["/bin/sh", "-c", script], cwd=tmp_path, env=ENV, stdout=out, stderr=out, mark=write_end
            )
    finally:
        os.close(write_end)
    try:
        assert guarded.has_marked(read_end, 1.0 if marked is None else SOON) is marked
    finally:
        os.close(read_end)
        guarded.kill()
        guarded.wait()


@pytest.mark.parametrize(("status", "mark"), [(20, 21), (9, 20), (20, 9)])
def test_the_mark_is_descriptor_nine_whatever_number_it_has_before(tmp_path: Path, status: int, mark: int) -> None:
    program = f"""
    import os, subprocess, sys
    ends = [os.pipe(), os.pipe()]
    # Out of the way of the numbers that are wanted.
    high = [os.dup2(write, 60 + n) for n, (_, write) in enumerate(ends)]
    reads = [os.dup2(read, 70 + n) for n, (read, _) in enumerate(ends)]
    os.dup2(high[0], {status}), os.dup2(high[1], {mark})
    guard = "import sys; sys.path.append({str(ROOT / "pilot" / "util")!r}); import guard; guard.main()"
    command = ["/bin/sh", "-c", "echo marked >&9; ls /proc/self/fd"]
    stdin, orders = os.pipe()
    os.write(orders, b"go\\n")
    subprocess.run([sys.executable, "-c", guard, "{status}", "{mark}", "0", *command], stdin=stdin,
                   pass_fds=({status}, {mark}), check=True)
    print(os.read(reads[1], 99).decode().strip(), os.read(reads[0], 99).decode().split()[0])
    """
    told = subprocess.run(python(program), capture_output=True, text=True, cwd=tmp_path, timeout=SOON, check=True)
    assert told.stdout.split() == ["0", "1", "2", "3", "9", "marked", "started"], told.stderr
