"""What it costs to watch a payload: a tree of 50 processes that holds 1 GB, at the default periods."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests import pilots
from tests.bench.table import Row, cpu_seconds
from tests.site import QUEUE, Site

PROCESSES = 50
MEMORY = 2**30
# Sampling has reached its longest pause by then (1 + 2 + 4 + ... + 32 s), and a whole number of those follows.
SETTLED, MEASURED = 70, 240
# Each process has its own part; or all share the parent's, so that every sample walks all of it 50 times.
TREES = {
    "own memory": f"""
import os, time
for _ in range({PROCESSES - 1}):
    if os.fork() == 0:
        break
block = bytearray(b"x") * {MEMORY // PROCESSES}
time.sleep({SETTLED + MEASURED + 60})
""",
    "shared memory": f"""
import os, time
block = bytearray(b"x") * {MEMORY}
for _ in range({PROCESSES - 1}):
    if os.fork() == 0:
        break
time.sleep({SETTLED + MEASURED + 60})
""",
    "nothing (`sleep`)": f"import time; time.sleep({SETTLED + MEASURED + 60})",
}


def monitoring(site: Site, folder: Path) -> list[Row]:
    """CPU of pilot and guard for each kind of tree, at the same time; the last one is what a pilot costs anyway."""
    folder.mkdir(parents=True)
    used: dict[str, float] = {}
    with ExitStack() as stack:
        measured: dict[str, list[psutil.Process]] = {}
        for number, (kind, program) in enumerate(TREES.items()):
            script = folder / f"{number}.py"
            script.write_text(program)
            (jobid,) = site.submit({"transformation": "python3", "jobPars": str(script)})
            pilot = stack.enter_context(pilots.running(site.url, QUEUE, folder / str(number), "-v", "1"))
            site.wait_for(jobid, "running")
            process = psutil.Process(pilot.pid)
            measured[kind] = [process, *process.children()]
        time.sleep(SETTLED)
        before = {kind: cpu_seconds(*processes) for kind, processes in measured.items()}
        begun = time.perf_counter()
        time.sleep(MEASURED)
        for kind, processes in measured.items():
            used[kind] = (cpu_seconds(*processes) - before[kind]) / (time.perf_counter() - begun)
    *trees, (_, alone) = used.items()
    beside = f"pilot and guard; {alone * 100:.3f} % with `sleep` as payload"
    what = f"CPU while {PROCESSES} processes with 1 GB PSS are watched"
    return [Row(f"{what}, {kind}", f"{share * 100:.3f} % of a core", beside, "0.2 %", "") for kind, share in trees]
