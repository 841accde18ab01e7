"""Measure what docs/performance.md is about, on a real server with real pilots, and print it as a table.

Machines are noisy: each figure stands beside one of the same kind measured in the same run (the floor), and is the median of
several where it is short. Nothing fails here but what does not work; the tests assert no durations.
"""

from __future__ import annotations

import datetime
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests import pilots
from tests.servers import running_server
from tests.site import QUEUE, Site, add_site

RUNS = 9
MANY = 100
# Long enough that a clock tick (10 ms) is a small part of what 0.1 % of a core amounts to.
SLEEP = 120


@dataclass(frozen=True)
class Row:
    """One line of the table. existing: what today's pilot needs, as measured by the project's founders."""

    what: str
    measured: str
    beside: str
    goal: str
    existing: str


def main() -> int:
    """Run all benchmarks."""
    # Byte code is kept, as on any node where the pilot runs more than once.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        with running_server(Path(folder) / "server", environment={"PILOTKIT_RETRY_AFTER": "1"}) as server:
            site = add_site(server.url, Path(folder), timefloor=60)
            one = add_site(server.url, Path(folder), timefloor=0)
            rows += trivial_job(one, Path(folder) / "trivial")
            add_site(server.url, Path(folder), timefloor=60)
            rows += many_jobs(site, Path(folder) / "many")
            rows += quiet_pilot(site, Path(folder) / "quiet")
    show(rows)
    return 0


def median(measure: Callable[[], float], runs: int = RUNS) -> float:
    """The median of several runs (s)."""
    return statistics.median(measure() for _ in range(runs))


def floor() -> float:
    """What nobody can do without: start Python, import requests, run `true` in a shell (s)."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import requests, subprocess; subprocess.run(['sh', '-c', 'true'])"], check=True)
    return time.perf_counter() - begun


def trivial_job(site: Site, folder: Path) -> list[Row]:
    """`true` with one log file: from the pilot's start to its exit, and to `finished` on the server."""
    walls, finished = [], []
    floors = []
    for number in range(RUNS):
        (jobid,) = site.submit({"transformation": "true", "jobPars": ""})
        floors.append(floor())
        begun, clock = time.perf_counter(), time.time()
        pilot = pilots.run(site.url, QUEUE, folder / str(number), "-v", "1")
        walls.append(time.perf_counter() - begun)
        assert pilot.process.returncode == 0, pilot.log()
        job = site.wait_for(jobid, "finished")
        ended = [entry["time"] for entry in job["history"] if entry["status"] == "finished"]  # type: ignore[attr-defined]
        finished.append(seconds_of(ended[0]) - clock)
    least = statistics.median(floors)
    wall = statistics.median(walls)
    return [
        Row("trivial job, start to exit", f"{wall:.2f} s", f"{wall / least:.1f} x Python + requests + true ({least:.2f} s)",
            "0.6 s", "67 s"),
        Row("trivial job, start to finished", f"{statistics.median(finished):.2f} s", "the same", "0.5 s", ""),
    ]  # fmt: skip


def many_jobs(site: Site, folder: Path) -> list[Row]:
    """A hundred trivial jobs in one pilot."""
    site.submit(*({"transformation": "true", "jobPars": ""} for _ in range(MANY)))
    begun = time.perf_counter()
    pilot = pilots.run(site.url, QUEUE, folder, "-v", "1")
    wall = time.perf_counter() - begun
    done = pilot.log().count(" is finished")
    assert done == MANY, pilot.log()
    alone = median(floor, 3)
    return [
        Row(f"{MANY} trivial jobs in one pilot", f"{MANY / wall * 60:.0f} a minute",
            f"{wall / MANY * 1000:.0f} ms a job, {wall / MANY / alone:.1f} x Python + requests + true", "600 a minute", "11 a minute")
    ]  # fmt: skip


def quiet_pilot(site: Site, folder: Path) -> list[Row]:
    """What pilot and guard use while the payload sleeps."""
    (jobid,) = site.submit({"transformation": "sleep", "jobPars": str(SLEEP)})
    with pilots.running(site.url, QUEUE, folder, "-v", "1") as pilot:
        site.wait_for(jobid, "running")
        time.sleep(2)
        process = psutil.Process(pilot.pid)
        (guard,) = process.children()
        before = cpu_seconds(process, guard)
        begun = time.perf_counter()
        time.sleep(SLEEP - 15)
        used = (cpu_seconds(process, guard) - before) / (time.perf_counter() - begun)
        memory = [p.memory_full_info() for p in (process, guard)]
        threads = process.num_threads() + guard.num_threads()
        assert pilot.wait(60) == 0
    rss, pss = [m.rss / 2**20 for m in memory], sum(m.pss for m in memory) / 2**20
    return [
        Row(f"CPU while `sleep {SLEEP}` runs", f"{used * 100:.3f} % of a core", "pilot and guard", "0.1 %", "0.34 %"),
        Row("memory meanwhile", f"{pss:.0f} MB PSS", f"RSS: pilot {rss[0]:.0f} MB, guard {rss[1]:.0f} MB, pages shared by both counted twice",
            "40 MB", "45 MB RSS"),
        Row("threads meanwhile", str(threads), "pilot and guard", "under 10", "19"),
    ]  # fmt: skip


def cpu_seconds(*processes: psutil.Process) -> float:
    """CPU time of processes so far, from the scheduler's own account in nanoseconds."""
    total = 0.0
    for process in processes:
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0]) / 1e9
    return total


def seconds_of(stamp: object) -> float:
    """A time of the server as seconds since 1970."""
    if isinstance(stamp, (int, float)):
        return float(stamp)
    moment = datetime.datetime.fromisoformat(str(stamp).replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).timestamp()


def show(rows: list[Row]) -> None:
    """The table as Markdown."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False).stdout.strip()
    print(f"\n{datetime.date.today()}, `make bench`, {os.cpu_count()} cores, Python {sys.version.split()[0]}, {commit}\n")
    print("| what | measured | beside | goal | existing pilot |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.measured} | {row.beside} | {row.goal} | {row.existing} |")


if __name__ == "__main__":
    sys.exit(main())
