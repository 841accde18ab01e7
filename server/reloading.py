"""A graceful reload: the running server becomes a new one, with today's code and settings, and no request is lost.

The process stays, and so does its number, for systemd and for everybody who waits for it: it executes its own command
again. What must not close meanwhile is handed on: the listening socket, and the pipe that ties the web workers to this
process. The old workers go on working until the new ones answer.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field

logger = logging.getLogger(__name__)

#: The variable in which the handover travels.
_VARIABLE = "PILOTKIT_HANDOVER"
#: s that checking the new program and its settings may take.
_CHECK_PATIENCE = 60


@dataclass(frozen=True)
class Handover:
    """What a server leaves to the one that it becomes.

    Attributes:
        pid: of this process; what travels further by accident, in the environment of a child, is not taken.
        listener: descriptor of the listening socket.
        life: descriptors of the pipe to the web workers.
        workers: pids of the web workers.
    """

    pid: int
    listener: int
    life: tuple[int, int]
    workers: tuple[int, ...]


def taken_over() -> Handover | None:
    """What was left to this process; None if it was started like any other."""
    text = os.environ.get(_VARIABLE)
    if not text:
        return None
    content = json.loads(text)
    handover = Handover(content["pid"], content["listener"], tuple(content["life"]), tuple(content["workers"]))
    if handover.pid != os.getpid():
        return None
    for descriptor in (handover.listener, *handover.life):
        os.set_inheritable(descriptor, False)
    return handover


def complaint_about_new() -> str:
    """What would keep this process's command from starting a server now; empty if nothing would."""
    environment = {**os.environ, "PILOTKIT_CHECK_ONLY": "1"}
    try:
        done = subprocess.run(
            [sys.executable, *sys.orig_argv[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CHECK_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = (done.stderr or done.stdout).strip().splitlines()
    return "" if done.returncode == 0 else said[-1] if said else f"exit code {done.returncode}"


def become_new(handover: Handover) -> None:
    """Execute this process's command again. Does not return.

    Raises:
        OSError: the program cannot be executed; nothing has changed.
    """
    for descriptor in (handover.listener, *handover.life):
        os.set_inheritable(descriptor, True)
    # A second signal must not end the process before its new program can take it.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        environment = {**os.environ, _VARIABLE: json.dumps(asdict(handover))}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    finally:
        signal.signal(signal.SIGHUP, before)


@dataclass
class OldWorkers:
    """The web workers of the server that this one was: they work until they are told to go.

    Attributes:
        pids: those that are still there.
        grace: s they have to answer what they have begun with.
    """

    pids: list[int]
    grace: float
    _deadline: float | None = field(default=None, init=False)

    def let_go(self) -> None:
        """Tell them to go, and end those that do not; to be called now and then until none is left."""
        now = time.monotonic()
        first = self._deadline is None
        deadline = self._deadline = now + self.grace if self._deadline is None else self._deadline
        for pid in list(self.pids):
            if not _is_child(pid):
                self.pids.remove(pid)
            elif first:
                os.kill(pid, signal.SIGTERM)
            elif now > deadline:
                logger.warning("a web worker of before the reload, pid %d, does not end and is killed", pid)
                os.kill(pid, signal.SIGKILL)


def _is_child(pid: int) -> bool:
    """Whether a child of ours still lives; its number cannot be another's before it was waited for."""
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False
