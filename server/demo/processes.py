"""The processes of the demo: its server and its pilots, each in a session of its own as a batch system would have it.

What was started is ended by its process id and waited for; what a pilot should have cleaned up and did not comes to
this process (it is a subreaper), is reported as a fault and ended too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).resolve().parents[2]  # holds pilot.py, in a checkout as in site-packages
WRAPPERS: Final = (ROOT / "wrappers" / "runpilot.sh", ROOT / "pilot" / "launch" / "wrappers" / "runpilot.sh")

SERVER_START: Final = 30.0  # s to create a database and start listening; takes one on an idle machine
SERVER_STOP: Final = 15.0  # s to finish requests and stop in order
PILOT_STOP: Final = 20.0  # s for a pilot to end its job in order on SIGTERM (grace 3 s, log within 5 s; pilot.md)
READY: Final = "pilotkit: serving "
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


def adopt_orphans() -> None:
    """From here on, a descendant that loses its parent comes to this process, so that none is overlooked."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def leftovers() -> list[psutil.Process]:
    """Descendants of this process that still run; those that ended are reaped on the way."""
    running: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if process.status() != psutil.STATUS_ZOMBIE:
                running.append(process)
            elif process.ppid() == os.getpid():
                os.waitpid(process.pid, os.WNOHANG)
    return running


def end_leftovers() -> list[str]:
    """End every descendant that is left; returns a description of each."""
    found = leftovers()
    described = []
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            described.append(f"{process.pid} ({' '.join(process.cmdline())[:120]})")
            process.kill()
    psutil.wait_procs(found, timeout=5)  # s; what was killed is gone at once
    leftovers()
    return described


def stop(process: subprocess.Popen[str], grace: float) -> None:
    """End a process in order; after the grace (s), with all of its group."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # it leads its group and is not reaped yet, so the group is ours
        process.wait()


class Server:
    """A server on a free port with its data below a folder.

    Args:
        folder: for the data and server.log; must exist.

    Raises:
        DemoError: it does not start; its own words are in the text.
    """

    def __init__(self, folder: Path) -> None:
        self.log = folder / "server.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PILOTKIT_")}
        options = ["--host", "127.0.0.1", "--port", "0", "--data", str(folder / "server")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "server.cli.main", "serve", *options],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._address: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="server log")
        self._reader.start()
        try:
            self.url = self._wait_until_ready()
        except BaseException:  # a signal, too: what was started is stopped
            self.stop()
            raise

    def _read(self) -> None:
        """Copy what the server says to its log, and tell the address once it is there; "" when it ended."""
        assert self._process.stdout is not None
        with self.log.open("w", encoding="utf-8") as log, self._process.stdout:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                if line.startswith(READY):
                    self._address.put(line.removeprefix(READY).split()[0])
        self._address.put("")

    def _wait_until_ready(self) -> str:
        try:
            address = self._address.get(timeout=SERVER_START)
        except queue.Empty:
            address = ""
        if not address:
            said = self.log.read_text(encoding="utf-8").strip().splitlines()[-5:]
            raise DemoError("the server did not start; it said:\n  " + "\n  ".join(said or ["nothing"]))
        return address

    def stop(self) -> None:
        """Stop it and wait for it."""
        stop(self._process, SERVER_STOP)
        self._reader.join()


class Batch:
    """A batch system in small: starts pilots by the wrapper, a few at a time, and keeps their exit codes.

    Args:
        folder: where each pilot's output and scratch go; must exist.
        slots: pilots at the same time.
        options: what every pilot is started with.
    """

    def __init__(self, folder: Path, slots: int, options: list[str]) -> None:
        self.folder = folder
        self.slots = slots
        self.options = options
        self.exit_codes: list[int] = []
        self._running: list[subprocess.Popen[str]] = []
        self._started = 0
        self._wrapper = next((path for path in WRAPPERS if path.is_file()), None)
        if self._wrapper is None:
            raise DemoError(f"the wrapper is not there ({' or '.join(str(path) for path in WRAPPERS)})")
        (folder / "scratch").mkdir()

    def running(self) -> int:
        """How many pilots run now; the exit codes of the others are taken down."""
        for process in [one for one in self._running if one.poll() is not None]:
            self._running.remove(process)
            self.exit_codes.append(process.returncode)
        return len(self._running)

    def start_pilot(self) -> None:
        """Start one pilot with nothing in its environment but what a batch system gives."""
        self._started += 1
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",  # runGen needs some python3
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "PILOT_DIR": str(ROOT),
            "PILOT_PYTHON": sys.executable,
            "PILOT_SCRATCH": str(self.folder / "scratch"),
        }
        with self.last_log().open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                ["/bin/sh", str(self._wrapper), *self.options],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self._running.append(process)

    def last_log(self) -> Path:
        """Output of the pilot that was started last."""
        return self.folder / f"pilot-{self._started}.out"

    def wait(self, timeout: float) -> None:
        """Wait until the pilots have left by themselves. Raises DemoError when one has not after so many seconds."""
        try:
            for process in self._running:
                process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise DemoError(f"a pilot did not leave within {timeout:.0f} s after the last job") from None
        self.running()

    def stop(self) -> None:
        """End all pilots: all are told first, then each is waited for."""
        for process in self._running:
            if process.poll() is None:
                process.terminate()
        for process in self._running:
            stop(process, PILOT_STOP)
        self.running()
