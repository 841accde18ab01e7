"""Start commands under a guard (pilot.util.guard) and follow them."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, RunPayloadFailure
from pilot.util import processes
from pilot.util.guard import GO, descendants, enter_group, send
from pilot.util.payloadgroup import PayloadGroup

# The guard is imported rather than run as a script, because only imported modules are kept compiled: that saves a
# quarter of its memory and half of its start. Its folder comes last on the path, so that no module of ours hides one
# of Python's.
_GUARD = f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import guard; guard.main()"
_PR_SET_CHILD_SUBREAPER = 36
# The guard needs some milliseconds to start; a node so busy that it needs a minute cannot run a payload.
_START_LIMIT = 60.0
# An orphan that survives KILL for so long (s) is stuck in the kernel.
_SWEEP_LIMIT = 20.0
_SWEEP_PAUSE = 0.002
# More than this (bytes) of what a short command says is not read.
_OUTPUT_LIMIT = 1048576


@dataclass(frozen=True)
class Outcome:
    """How a guarded command ended.

    exit_code: its exit code, or None when a signal ended it; signal: that signal or 0; cpu_user, cpu_system: CPU
    seconds of all its processes and the guard; max_rss: largest resident set of one process (kB); left: processes
    that outlived the first one and were ended; lost: processes that could not be ended; guard_died: the guard itself
    was killed.
    """

    exit_code: int | None
    signal: int = 0
    cpu_user: float = 0.0
    cpu_system: float = 0.0
    max_rss: int = 0
    left: int = 0
    lost: int = 0
    guard_died: bool = False

    @property
    def ending(self) -> str:
        """How it ended, in words: "exit code 1", "signal 9"."""
        return f"signal {self.signal}" if self.exit_code is None else f"exit code {self.exit_code}"


class GuardedProcess:
    """A running command with its guard. `pid` is the command's first process, `guard_pid` the root of its tree;
    `is_grouped`: whether its control group has taken it, if it was given one."""

    def __init__(self, process: subprocess.Popen[bytes], status: IO[bytes], launcher: Launcher) -> None:
        self._process = process
        self._launcher = launcher
        self._status = status
        self.guard_pid = process.pid
        self.pid = 0
        self.is_grouped = False
        self.started = time.time()

    def go(self) -> None:
        """Let the guard start the command."""
        self._order(GO.decode())

    def stop(self, grace: float) -> None:
        """TERM to all processes, KILL after `grace` seconds. May be called again with a shorter grace."""
        self._order(f"stop {grace:.3f}\n")

    def settle(self) -> None:
        """Let the guard give back the memory that only its start has needed."""
        self._order("settle\n")

    def kill(self) -> None:
        """KILL to all processes."""
        self._order("kill\n")

    @property
    def status_fd(self) -> int:
        """The descriptor that can be read when its first process has ended."""
        return self._status.fileno()

    def is_ending(self, timeout: float) -> bool:
        """Whether the first process has ended, waiting up to `timeout` seconds for it; then `wait` returns soon."""
        return bool(select.select([self._status], [], [], timeout)[0])

    def has_marked(self, mark: int, timeout: float) -> bool | None:
        """Whether the command has written to the pipe `mark` (its reading end), waiting up to `timeout` seconds for it.

        False: it has not, and has ended; None: the time is over.
        """
        ready = select.select([mark, self._status.fileno()], [], [], timeout)[0]
        if mark in ready:
            # What is written counts, however soon after it the command ended; nothing is read when nobody is left to
            # write.
            return os.read(mark, 1) != b""
        return False if ready else None

    def wait(self) -> Outcome:
        """Wait until none of the command's processes is left."""
        status: int | None = None
        try:
            for line in self._status:
                word, *values = line.decode().split()
                if word == "exit":
                    status = int(values[0])
                elif word == "done":
                    user, system, rss, left, lost = values
                    return self._outcome(status, float(user), float(system), int(rss), int(left), int(lost))
            # The guard is gone without a word: somebody killed it. As subreaper, the pilot has inherited what was
            # below.
            self._process.wait()
            return Outcome(exit_code=None, signal=9, lost=self._launcher.sweep_orphans(), guard_died=True)
        finally:
            self._close()

    def _outcome(self, status: int | None, user: float, system: float, rss: int, left: int, lost: int) -> Outcome:
        # Without an exit status the first process was one of those that could not be ended.
        code = os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None
        number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else 0
        return Outcome(code, number, user, system, rss, left, lost)

    def _order(self, line: str) -> None:
        stdin = self._process.stdin
        # The guard may have ended a moment ago, and wait() have closed its pipe.
        with suppress(OSError, ValueError):
            if stdin is not None:
                stdin.write(line.encode())
                stdin.flush()

    def _close(self) -> None:
        self._status.close()
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process.wait()
        self._launcher.forget(self._process.pid)


def first_to_end(processes: Sequence[GuardedProcess], timeout: float | None = None) -> list[GuardedProcess]:
    """Wait until the first process of at least one command has ended; return those for which `wait` returns soon.

    timeout: longest wait (s), None for as long as it takes; nothing is returned when it is over.
    """
    by_number = {one.status_fd: one for one in processes}
    return [by_number[number] for number in select.select(list(by_number), [], [], timeout)[0]]


def become_subreaper() -> bool:
    """Make this process inherit descendants whose parent dies, so that even a killed guard leaves nothing behind."""
    with suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    return False


class Launcher:
    """The only way this pilot starts processes: what it did not start is known to be an orphan of a killed guard."""

    def __init__(self) -> None:
        self._own: set[int] = set()
        self._lock = threading.Lock()
        # What a wrapper had started before it became the pilot (exec) is nobody's orphan.
        self._foreign = frozenset(processes.own_children())

    def start(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: IO[bytes],
        stderr: IO[bytes],
        keep: Sequence[int] = (),
        mark: int = -1,
        group: PayloadGroup | None = None,
    ) -> GuardedProcess:
        """Start a command under a guard of its own and return when its program runs.

        keep: descriptors that the command inherits under the same numbers, and nobody else. mark: one that it finds as
        descriptor 9, -1 for none. group: the control group that it is put into; the caller ends it.
        Raises RunPayloadFailure when it cannot be executed, PilotException(RESOURCEUNAVAILABLE) when no process can
        be made.
        """
        groups = group.homes if group is not None else {}
        places = [str(place) for group_and_home in groups.items() for place in group_and_home]
        read_end, write_end = os.pipe()
        status = os.fdopen(read_end, "rb", buffering=0)
        try:
            with self._lock:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _GUARD]
                    + [str(write_end), str(mark), str(len(groups)), *places, *command],
                    stdin=subprocess.PIPE,
                    stdout=stdout,
                    stderr=stderr,
                    cwd=cwd,
                    env=dict(env),
                    pass_fds=(write_end, *keep, *((mark,) if mark >= 0 else ())),
                    start_new_session=True,
                )
                self._own.add(process.pid)
        except (OSError, ValueError) as exc:
            status.close()
            text = f"no process could be started for the payload: {exc}"
            raise PilotException(text, code=ErrorCodes.RESOURCEUNAVAILABLE) from exc
        finally:
            os.close(write_end)
        guarded = GuardedProcess(process, status, self)
        taken = [enter_group(str(directory), process.pid) for directory in groups]
        guarded.go()
        readable, _, _ = select.select([status], [], [], _START_LIMIT)
        word, _, value = _line(status).partition(" ") if readable else ("", "", "")
        if word == "started":
            # A group that does not take it (not delegated after all) is no reason not to run.
            guarded.pid, guarded.is_grouped = int(value), bool(taken) and all(taken)
            return guarded
        if not readable:
            process.kill()
        guarded.wait()
        if word == "failed":
            raise RunPayloadFailure(f"{command[0]} could not be executed: {os.strerror(int(value))}")
        raise PilotException("the guard of the payload did not start", code=ErrorCodes.RESOURCEUNAVAILABLE)

    def output(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float) -> str:
        """What a short command says on both of its outputs; empty when it fails or takes longer than `timeout` seconds.

        Raises as `start` does.
        """
        with tempfile.TemporaryFile(dir=cwd) as said:
            guarded = self.start(command, cwd=cwd, env=env, stdout=said, stderr=said)
            if not guarded.is_ending(timeout):
                guarded.kill()
            if guarded.wait().exit_code != 0:
                return ""
            said.seek(0)
            return said.read(_OUTPUT_LIMIT).decode("utf-8", "replace")

    def forget(self, pid: int) -> None:
        """A process of ours has ended and was waited for."""
        with self._lock:
            self._own.discard(pid)

    def sweep_orphans(self) -> int:
        """End what killed guards left behind; return how many processes could not be ended.

        As child subreaper the pilot inherits them: every child that it did not start itself is one, but for those that
        were there before and those of its own session, which nothing that a guard has started can be in.
        """
        session = os.getsid(0)
        deadline = time.monotonic() + _SWEEP_LIMIT
        while True:
            with self._lock:
                strange = [pid for pid in processes.own_children() if pid not in self._own | self._foreign]
            orphans = [pid for pid in strange if processes.session_of(pid) != session]
            if not orphans:
                return 0
            if time.monotonic() > deadline:
                return len(orphans)
            send([below for pid in orphans for below in descendants(pid)] + orphans, signal.SIGKILL)
            for pid in orphans:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            # Nothing tells when a process that was killed is gone; it takes a fraction of a millisecond as a rule.
            time.sleep(_SWEEP_PAUSE)


def _line(stream: IO[bytes]) -> str:
    """One line, read byte by byte: the stream has no buffer, so that nothing after the line is taken."""
    text = b""
    while not text.endswith(b"\n"):
        piece = stream.read(1)
        if not piece:
            break
        text += piece
    return text.decode().strip()
