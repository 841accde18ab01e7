"""Real pilots for tests: started as a batch system starts them, and looked at from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
# No pilot of a test needs so long (s), even on a machine that is busy with other things.
LIMIT = 90.0


@dataclass
class Pilot:
    """A pilot that was started. `log()` is what it has said so far."""

    process: subprocess.Popen[bytes]
    rundir: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def log(self) -> str:
        """Its log, as far as it is written."""
        return (self.rundir / "stdout").read_text(encoding="utf-8", errors="replace")

    def wait(self, timeout: float = LIMIT) -> int:
        """Its exit code. Fails the test, with the log, when it does not end."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the pilot does not end; its log:\n{self.log()}") from None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def tree(self) -> list[psutil.Process]:
        """All processes below it: guard and payload."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def workdir(self, jobid: int | str) -> Path:
        """The directory of a job that runs."""
        found = list(self.rundir.glob(f"pilotkit-*/PanDA_Pilot-{jobid}"))
        assert len(found) == 1, f"directories of job {jobid}: {found}"
        return found[0]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a batch system leaves of an environment."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONDONTWRITEBYTECODE") if name in os.environ}
    return {**kept, **(extra or {})}


def start(
    url: str,
    queue: str,
    rundir: Path,
    *options: str,
    env: Mapping[str, str] | None = None,
    settings: str = "",
    python: str = sys.executable,
) -> Pilot:
    """Start a pilot for a queue in a directory. settings: text of a configuration file for it."""
    rundir.mkdir(parents=True, exist_ok=True)
    more = list(options)
    if settings:
        config = rundir / "pilot.cfg"
        config.write_text(settings, encoding="utf-8")
        more += ["--config", str(config)]
    if "-j" not in more:
        more += ["-j", "user"]
    command = [python, str(ROOT / "pilot.py"), "-q", queue, "--url", url, "-a", str(rundir), *more]
    with (rundir / "stdout").open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(env),
            cwd=rundir,
            start_new_session=True,
        )
    return Pilot(process, rundir)


@contextmanager
def running(url: str, queue: str, rundir: Path, *options: str, **how: object) -> Iterator[Pilot]:
    """A pilot that is ended, with all that is below it, when the test leaves it running."""
    pilot = start(url, queue, rundir, *options, **how)  # type: ignore[arg-type]
    try:
        yield pilot
    finally:
        if pilot.process.poll() is None:
            below = pilot.tree()
            pilot.signal(signal.SIGKILL)
            pilot.process.wait()
            psutil.wait_procs(below, timeout=10)


def run(url: str, queue: str, rundir: Path, *options: str, **how: object) -> Pilot:
    """Run a pilot to its end."""
    with running(url, queue, rundir, *options, **how) as pilot:
        pilot.wait()
    return pilot


def run_file(definition: Mapping[str, object], rundir: Path, *options: str) -> tuple[int, dict[str, object], str]:
    """Run a job definition without a server; return the exit code, the last update, and the log."""
    rundir.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".json", dir=rundir, delete=False) as stream:
        json.dump(definition, stream)
    command = [sys.executable, str(ROOT / "pilot.py"), "--job", stream.name, "-a", str(rundir), *options]
    ended = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        cwd=rundir,
        timeout=LIMIT,
        check=False,
    )
    heartbeat = rundir / "heartbeat.json"
    update = json.loads(heartbeat.read_text(encoding="utf-8")) if heartbeat.exists() else {}
    return ended.returncode, update, ended.stdout + ended.stderr


def wait_until(condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    """Wait for something outside; fail the test, saying what, when it does not come."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.02)


def names(processes: Sequence[psutil.Process]) -> list[str]:
    """Command lines of processes that still exist."""
    shown = []
    for process in processes:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                shown.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return shown
