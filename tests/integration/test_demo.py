"""`pilotkit demo` as a stranger runs it: in an empty folder, with nothing around."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "server.cli.main", "demo", "--events", "3000", "--jobs", "2"]
ANY_TIME = 110  # s; a minute on an idle machine, for the smallest useful demo less than ten seconds

# The same with its last job's command replaced: whatever is said about it must be about that job.
BROKEN = """
import server.demo.run as run
jobs = run.job_list
def broken(*arguments):
    *generate, last = jobs(*arguments)
    return [*generate, {**last, "command": "echo oh no >&2; exit 3"}]
run.job_list = broken
raise SystemExit(run.run_demo(events=1000, jobs=1, keep=None))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder to run in, with a temporary folder beside it; by a short path, as a person's own would be."""
    with tempfile.TemporaryDirectory(prefix="demo-", dir="/tmp") as name:
        for folder in ("tmp", "here"):
            Path(name, folder).mkdir()
        yield Path(name)


def environment(place: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(place / "tmp"), "HOME": str(place)}


def run(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=place / "here", env=environment(place), capture_output=True, text=True, timeout=ANY_TIME
    )


def left_in_tmp(place: Path) -> list[str]:
    return [path.name for path in (place / "tmp").iterdir()]


def test_the_demo_shows_its_jobs_the_mass_and_where_everything_is(place: Path) -> None:
    done = run(place, *DEMO)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for name in ("generate-1", "generate-2", "fit"):
        assert re.search(rf"^ *\d+ +{name} +finished +[\d.]+ s +[\d.]+ s +\d+ s +\d+ MB ", done.stdout, re.MULTILINE), (
            done.stdout
        )
    assert "(fit): assigned" in done.stdout  # it waited for the files of the others
    found = re.search(r"fitted Z mass: ([\d.]+) ± ([\d.]+) GeV", done.stdout)
    assert found is not None
    assert abs(float(found[1]) - 91.188) < 0.5
    output = place / "here" / "demo-output"
    assert (output / "zmass.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "zmass.root").read_bytes().startswith(b"root")
    assert json.loads((output / "zmass.json").read_text())["fit"]["mass"] == pytest.approx(float(found[1]), abs=0.001)
    logs = [path.name for path in (output / "logs").iterdir()]
    assert "server.log" in logs
    assert sum(".log.tgz" in name for name in logs) == 3
    assert any(name.startswith("pilot-") for name in logs)
    assert left_in_tmp(place) == []


def test_the_work_folder_is_kept_where_it_was_asked_for(place: Path) -> None:
    done = run(place, *DEMO, "--keep", str(place / "kept"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"all files: {place / 'kept'}" in done.stdout
    stored = [path.relative_to(place / "kept" / "storage") for path in (place / "kept" / "storage").rglob("*.root")]
    assert len(stored) == 3
    for path in stored:  # scope, two bytes of the hash, name
        assert re.fullmatch(r"demo/[0-9a-f]{2}/[0-9a-f]{2}/[^/]+", str(path))


def test_a_folder_that_is_in_use_is_not_overwritten(place: Path) -> None:
    done = run(place, *DEMO, "--keep", str(place))
    assert done.returncode == 1
    assert done.stderr == f"pilotkit: {place} is not empty; name a new folder\n"


def test_a_job_that_fails_makes_the_demo_fail_and_say_why(place: Path) -> None:
    done = run(place, sys.executable, "-c", BROKEN)
    assert done.returncode == 1
    assert "(fit) is failed: pilot error 1305" in done.stderr, done.stdout + done.stderr
    assert re.search(r"fit +failed", done.stdout)
    (kept,) = left_in_tmp(place)
    assert f"all files: {place / 'tmp' / kept}" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_takes_everything_with_it(place: Path, number: int) -> None:
    """The fixtures of conftest.py look for processes that are left."""
    with subprocess.Popen(
        DEMO, cwd=place / "here", env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if "running" in line:
                break
        process.send_signal(number)
        assert process.wait(ANY_TIME) == 128 + number
        assert "pilotkit: stopped" in process.stderr.read()
