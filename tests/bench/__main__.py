"""Measure what docs/performance.md is about, on real servers with real pilots, and print it as a table.

    python -m tests.bench [--seconds S] [jobs] [data] [payload] [containers] [guest] [server] [mixed] [curves]

Without a part all are measured, as `make bench` does. The mixed load takes a minute, or the seconds that are told.

Machines are noisy: each figure stands beside one of the same kind measured in the same run (the floor), and is the
median of several where it is short. Nothing fails here but what does not work; the tests assert no durations.
`python -m tests.bench payload` runs one part alone.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests import pilots
from tests.bench import containers, curves, data, dispatcher, guest, mixed, payload
from tests.bench.table import Row, cpu_seconds, show
from tests.servers import running_server
from tests.site import QUEUE, Site, add_site

RUNS = 9
MANY = 100
# Long enough that a clock tick (10 ms) is a small part of what 0.1 % of a core amounts to.
SLEEP = 120


def main() -> int:
    """Run the benchmarks that are named, or all."""
    # Byte code is kept, as on any node where the pilot runs more than once.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    parts = {
        "jobs": jobs,
        "data": data.rows,
        "payload": payloads,
        "containers": container,
        "guest": endings,
        "server": dispatching,
        "mixed": mixture,
        "curves": growing,
    }
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the mixed load lasts (default: 60)")
    parser.add_argument("part", nargs="*", help=f"what to measure, of {', '.join(parts)} (default: all)")
    arguments = parser.parse_args()
    if unknown := set(arguments.part) - set(parts):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    parts["mixed"] = lambda: mixture(arguments.seconds)
    wanted = arguments.part or list(parts)
    show([row for name in wanted for row in parts[name]()], " ".join(["python -m tests.bench", *sys.argv[1:]]))
    return 0


def jobs() -> list[Row]:
    """The pilot's own part, with a server."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with running_server(folder / "server", environment={"PILOTKIT_RETRY_AFTER": "1"}) as server:
            rows += trivial_job(add_site(server.url, folder), folder / "trivial")
            site = add_site(server.url, folder, timefloor=60)
            rows += many_jobs(site, folder / "many")
            rows += quiet_pilot(site, folder / "quiet")
    return rows


def payloads() -> list[Row]:
    """What watching a payload costs, with a server."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with running_server(folder / "server", environment={"PILOTKIT_RETRY_AFTER": "1"}) as server:
            return payload.monitoring(add_site(server.url, folder), folder / "watched")


def endings() -> list[Row]:
    """How fast things end, with a server."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with running_server(folder / "server", environment={"PILOTKIT_RETRY_AFTER": "1"}) as server:
            return guest.endings(add_site(server.url, folder), folder / "ends")


def container() -> list[Row]:
    """What a payload's container costs, without a server."""
    with tempfile.TemporaryDirectory() as temporary:
        return containers.container_start(Path(temporary))


def dispatching() -> list[Row]:
    """The dispatcher's rates, without pilots."""
    with tempfile.TemporaryDirectory() as temporary:
        return dispatcher.rows(Path(temporary))


def mixture(seconds: float = 60.0) -> list[Row]:
    """What a load like ATLAS's costs the dispatcher, without pilots."""
    with tempfile.TemporaryDirectory() as temporary:
        return mixed.rows(Path(temporary), seconds)


def growing() -> list[Row]:
    """What the dispatcher's requests cost with ever more of everything."""
    with tempfile.TemporaryDirectory() as temporary:
        return curves.rows(Path(temporary))


def floor() -> float:
    """What nobody can do without: start Python, import requests, run `true` in a shell (s)."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import requests, subprocess; subprocess.run(['sh', '-c', 'true'])"], check=True
    )
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
    least, wall = statistics.median(floors), statistics.median(walls)
    beside = f"{wall / least:.1f} × Python + requests + `true` ({least:.2f} s)"
    return [
        Row("trivial job (`true`, one log file), start to exit", f"{wall:.2f} s", beside, "0.6 s", "67 s"),
        Row("trivial job, start to `finished` on the server", f"{statistics.median(finished):.2f} s", "", "0.5 s", ""),
    ]


def many_jobs(site: Site, folder: Path) -> list[Row]:
    """A hundred trivial jobs in one pilot."""
    site.submit(*({"transformation": "true", "jobPars": ""} for _ in range(MANY)))
    begun = time.perf_counter()
    pilot = pilots.run(site.url, QUEUE, folder, "-v", "1")
    wall = time.perf_counter() - begun
    done = pilot.log().count(" is finished")
    assert done == MANY, pilot.log()
    each, alone = wall / MANY, statistics.median(floor() for _ in range(3))
    beside = f"{each * 1000:.0f} ms a job, {each / alone:.1f} × Python + requests + `true`"
    return [
        Row(f"{MANY} trivial jobs in one pilot", f"{60 / each:.0f} a minute", beside, "600 a minute", "11 a minute")
    ]


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
    shares = f"RSS: pilot {rss[0]:.0f} MB, guard {rss[1]:.0f} MB, pages shared by both counted twice"
    both = "pilot and guard"
    return [
        Row(f"CPU while `sleep {SLEEP}` runs", f"{used * 100:.3f} % of a core", both, "0.1 %", "0.34 %"),
        Row("memory meanwhile", f"{pss:.0f} MB PSS", shares, "40 MB", "45 MB RSS"),
        Row("threads meanwhile", str(threads), both, "under 10", "19"),
    ]


def seconds_of(stamp: object) -> float:
    """A time of the server as seconds since 1970."""
    if isinstance(stamp, (int, float)):
        return float(stamp)
    moment = datetime.datetime.fromisoformat(str(stamp).replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).timestamp()


if __name__ == "__main__":
    sys.exit(main())
