"""What a payload's container costs beyond what its runtime needs by itself."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests import pilots
from tests.bench.table import Row
from tests.containers import Container, sandbox

RUNS = 15


def container_start(folder: Path) -> list[Row]:
    """`true` in an image that is a directory: from the line with its command in the pilot's log to that of its end.

    Without a server, whose work on the same cores would be measured with it. Pilot and runtime alone take turns.
    """
    whole, marked, alone = [], [], []
    with sandbox() as box:
        for number in range(RUNS):
            log = _pilot(box, folder / str(number))
            begun, ended = _time(log, "container command: "), _time(log, "payload ended with exit code 0")
            whole.append(ended - begun)
            marked.append(_time(log, "the container runs, after") - begun)
            alone.append(_runtime(box, folder / f"{number}-alone"))
    # The least of many: what others on the machine take away is none of either.
    took, own = min(whole), min(alone)
    beside = f"{took * 1000:.0f} ms with guard and mark, {own * 1000:.0f} ms for the runtime alone"
    return [
        Row("a container beyond the runtime's own time", f"{(took - own) * 1000:.0f} ms", beside, "20 ms", ""),
        Row("from the container's command to its mark", f"{min(marked) * 1000:.0f} ms", "", "", ""),
    ]


def _pilot(box: Container, folder: Path) -> str:
    """Run one job from a file; the pilot's log."""
    folder.mkdir(parents=True)
    job = {"PandaID": 1, "transformation": "true", "jobPars": "", "container_name": str(box.image), "logFile": ""}
    (folder / "job.json").write_text(json.dumps(job))
    (folder / "pilot.cfg").write_text("[Container]\ntype = apptainer\n")
    command = [
        sys.executable, str(pilots.ROOT / "pilot.py"), "--job", "job.json", "-a", str(folder), "--config", "pilot.cfg"
    ]  # fmt: skip
    ran = subprocess.run(command, env=pilots.environment(box.environ), cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def _runtime(box: Container, folder: Path) -> float:
    """Seconds that the pilot's own command takes without a pilot."""
    folder.mkdir()
    command = [
        str(box.runtime), "--silent", "exec", "-C", "--cleanenv", "--no-privs", "--pwd", "/srv/workDir",
        "-B", f"{folder}:/srv/workDir:rw", "--workdir", str(folder), str(box.image), "/bin/sh", "-c", "true",
    ]  # fmt: skip
    begun = time.perf_counter()
    subprocess.run(command, env={**os.environ, **box.environ}, check=True)
    return time.perf_counter() - begun


def _time(log: str, words: str) -> float:
    """When the line with these words was written."""
    (line,) = (line for line in log.splitlines() if words in line)
    return datetime.datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()
