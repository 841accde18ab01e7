"""How fast things end: a failure is reported, a signal is obeyed, and nothing is left of a tree of processes."""

from __future__ import annotations

import datetime
import os
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests import pilots
from tests.bench.table import Row
from tests.site import QUEUE, Site

RUNS = 7
PROCESSES = 50
# s; the setting that the rows with a payload that ignores TERM are measured with.
GRACE = 1.0
# A payload with 50 processes that hear nothing but KILL, half of them in sessions of their own.
_DEAF = f"""
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for number in range({PROCESSES - 1}):
    if os.fork() == 0:
        if number % 2:
            os.setsid()
        break
open("ready", "a").write("x")
time.sleep(300)
"""


def endings(site: Site, folder: Path) -> list[Row]:
    """All rows."""
    folder.mkdir(parents=True)
    script = folder / "deaf.py"
    script.write_text(_DEAF)
    failures = [_failure(site, folder / f"failure-{number}") for number in range(RUNS)]
    polite = [_signal(site, folder / f"polite-{number}", "exec sleep 300") for number in range(RUNS)]
    trees: dict[str, list[float]] = {}
    for number in range(RUNS):
        for name, end in (("TERM", _term), ("pilot", _kill_pilot), ("guard", _kill_guard)):
            taken = _tree(site, folder / f"{name}-{number}", script, end)
            trees.setdefault(name, []).append(taken - (GRACE if name == "TERM" else 0.0))
    what = f"empty tree of {PROCESSES} processes that ignore TERM"
    return [
        Row("a payload's failure until it is reported", _shown(failures), _worst(failures), "1 s", "115 s"),
        Row("SIGTERM until log and report are delivered and the pilot is gone", _shown(polite), _worst(polite), "5 s",
            "195 s, and the log is lost"),
        Row(f"TERM until {what}, beyond the grace", _shown(trees["TERM"]), _worst(trees["TERM"]), "1 s", ""),
        Row(f"kill -9 of the pilot until {what}", _shown(trees["pilot"]), _worst(trees["pilot"]), "",
            "the payload runs on"),
        Row(f"kill -9 of the guard until {what}", _shown(trees["guard"]), _worst(trees["guard"]), "", ""),
    ]  # fmt: skip


def _failure(site: Site, folder: Path) -> float:
    """From the last thing that a payload does to the final report at the server (s)."""
    folder.mkdir()
    (jobid,) = site.submit({"transformation": "bash", "jobPars": f"-c 'date +%s.%N > {folder}/ended; exit 3'"})
    pilots.run(site.url, QUEUE, folder, "-v", "1")
    job = site.wait_for(jobid, "failed")
    reported = [entry["time"] for entry in job["history"] if entry["status"] == "holding"]  # type: ignore[attr-defined]
    moment = datetime.datetime.fromisoformat(str(reported[0]).replace("Z", "+00:00"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return moment.timestamp() - float((folder / "ended").read_text())


def _signal(site: Site, folder: Path, command: str) -> float:
    """From SIGTERM to the pilot's exit, after which log and report are where they belong (s)."""
    (jobid,) = site.submit({"command": command})
    with pilots.running(site.url, QUEUE, folder, "-v", "1") as pilot:
        site.wait_for(jobid, "running")
        begun = time.perf_counter()
        pilot.signal(signal.SIGTERM)
        assert pilot.wait() == 143, pilot.log()
        taken = time.perf_counter() - begun
    assert site.status(jobid) == "failed" and site.stored(jobid, "log")[0].exists()
    return taken


def _tree(site: Site, folder: Path, script: Path, end: Callable[[pilots.Pilot], None]) -> float:
    """From an order or a kill until no process of the payload is left (s)."""
    (jobid,) = site.submit({"transformation": "python3", "jobPars": str(script)})
    settings = f"[Pilot]\ngrace_on_signal = {GRACE}\n"
    with pilots.running(site.url, QUEUE, folder, "-v", "1", settings=settings) as pilot:
        site.wait_for(jobid, "running")
        ready = pilot.workdir(jobid) / "ready"
        pilots.wait_until(lambda: ready.exists() and ready.stat().st_size == PROCESSES, "all are there")
        below = [process for process in pilot.tree() if "deaf.py" in " ".join(process.cmdline())]
        assert len(below) >= PROCESSES
        begun = time.perf_counter()
        end(pilot)
        while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in _there(below)):
            time.sleep(0.002)
        taken = time.perf_counter() - begun
        pilot.wait()
    site.call("job/kill", {"job_ids": [jobid]})
    return taken


def _there(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if Path(f"/proc/{process.pid}").exists()]


def _term(pilot: pilots.Pilot) -> None:
    pilot.signal(signal.SIGTERM)


def _kill_pilot(pilot: pilots.Pilot) -> None:
    pilot.signal(signal.SIGKILL)


def _kill_guard(pilot: pilots.Pilot) -> None:
    os.kill(psutil.Process(pilot.pid).children()[0].pid, signal.SIGKILL)


def _shown(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s"


def _worst(seconds: list[float]) -> str:
    return f"median of {len(seconds)}; the worst {max(seconds):.2f} s"
