"""Runs what `make check`, `make test` and `make soak` promise, step by step, and ends with a table of times.

Every step runs, also after one that failed, so that one run shows everything that is wrong; the exit code is 1 if any
of them failed. An area of the integration tests is a folder of tests/integration; what lies there directly is the
skeleton.
"""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent

# The interpreters that pilot/ promises to run on.
PILOT_PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")

# What the pilot's unit tests need where pilotkit itself is not installed: its two dependencies and the test tools.
PILOT_TEST_PACKAGES = (
    "requests",
    "psutil",
    "pytest>=8",
    "pytest-xdist>=3.5",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100",
)
# Python -> what it has in another version: RHEL 9's requests (with urllib3 1) and psutil beside its Python 3.9.
OLDEST_PACKAGES = {"3.9": ("requests==2.25.1", "urllib3==1.26.5", "psutil==5.8.0")}

# The oldest Python that mypy still knows how to check for; that 3.9 is enough is proven by running the tests on it.
PILOT_TYPES_VERSION = "3.10"
SERVER_TYPES_VERSION = "3.11"

# Unit tests use all cores but not more than 4 processes, whose start would cost more than they save.
UNIT_WORKERS = str(min(4, max(2, os.cpu_count() or 2)))

# What the integration tests talk to that pip does not have: the Debian package, and a command that shows it is there
# or a file, with its whole path and perhaps wildcards.
DEBIAN_PACKAGES = {
    "xrootd-server": "xrootd",
    "xrootd-client": "xrdcp",
    "xrootd-server-plugins": "/usr/lib/*/libXrdHttp-5.so",
    "gfal2-util-scripts": "gfal-copy",
    "python3-gfal2": "/usr/lib/python3/dist-packages/gfal2.*.so",
    "python3-gfal2-util": "/usr/lib/python3/dist-packages/gfal2_util/__init__.py",
    "gfal2-plugin-file": "/usr/lib/*/gfal2-plugins/libgfal_plugin_file.so",
    "gfal2-plugin-http": "/usr/lib/*/gfal2-plugins/libgfal_plugin_http.so",
    "gfal2-plugin-xrootd": "/usr/lib/*/gfal2-plugins/libgfal_plugin_xrootd.so",
    "voms-clients": "voms-proxy-fake",
    "gdb": "gdb",
    "nginx-light": "/usr/sbin/nginx",
    "libnginx-mod-stream": "/usr/lib/nginx/modules/ngx_stream_module.so",
    "apache2-bin": "/usr/sbin/apache2",
    "systemd": "systemd-analyze",
    "buildah": "buildah",
    "activemq": "/usr/share/activemq/bin/activemq.jar",
    "default-jre-headless": "java",
    "slurm-wlm": "scontrol",
    "munge": "munged",
    "docker-registry": "docker-registry",
    "busybox-static": "busybox",
    "squashfs-tools": "mksquashfs",
    "postgresql-15": "/usr/lib/postgresql/15/bin/postgres",
    "patchelf": "patchelf",  # this and the two libraries are for Apptainer
    "libseccomp2": "/usr/lib/*/libseccomp.so.2",
    "libsqlite3-0": "/usr/lib/*/libsqlite3.so.0",
}

# Servers, and a client, whose libraries would clash with ours, each in .venvs/NAME: what pip installs there.
# Pinned: a new version of somebody else's server shall not break our tests on a morning.
SERVER_ENVIRONMENTS = {
    "rucio-server": ("rucio==41.5.1", "gunicorn==27.0.1"),
    # moto[server] would bring 170 MB for services that nobody here asks for.
    "panda-client": ("panda-client==2.2.0",),
    "object-stores": ("moto[s3]==5.2.5", "flask", "flask-cors", "gcp-storage-emulator==2026.7.19"),
}

# Real servers and pilots run in these tests: more than two at a time measure each other.
INTEGRATION_WORKERS = "2"


@dataclass
class Row:
    """One line of the table at the end."""

    name: str
    seconds: float
    result: str
    failed: bool = False


@dataclass
class Area:
    """What the tests of one area amount to."""

    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def run(name: str, *command: str | os.PathLike[str]) -> Row:
    """Run one step with its output on the terminal; what it says is its own, the row says how it went."""
    print(f"\n=== {name}", flush=True)
    start = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    return Row(name, time.monotonic() - start, "ok" if code == 0 else f"FAILED (exit code {code})", code != 0)


def tool(name: str) -> Path:
    """The path of a tool of this virtual environment, whatever PATH says."""
    return Path(sys.executable).parent / name


def pytest(python: str | os.PathLike[str], *arguments: str) -> Sequence[str | os.PathLike[str]]:
    """The command that runs tests with an interpreter."""
    return (python, "-m", "pytest", "-q", *arguments)


def check() -> Iterator[Row]:
    """Format, lint, types, layers, unit tests."""
    yield run("format", tool("ruff"), "format", "--check", "--quiet", ".")
    yield run("lint", tool("ruff"), "check", "--quiet", ".")
    yield run("types of the pilot", tool("mypy"), "--python-version", PILOT_TYPES_VERSION, "-p", "pilot")
    # pilot.py and the package pilot have one name, so mypy is given the text.
    launcher = (ROOT / "pilot.py").read_text()
    yield run("types of pilot.py", tool("mypy"), "--python-version", PILOT_TYPES_VERSION, "-c", launcher)
    yield run("types of the server", tool("mypy"), "--python-version", SERVER_TYPES_VERSION, "-p", "server")
    yield run("layers", tool("lint-imports"), "--no-logo")
    yield run(
        f"unit tests, Python {this_python()}",
        *pytest(sys.executable, "-n", UNIT_WORKERS, "-m", "not postgresql", "tests/unit"),
    )


def this_python() -> str:
    """The version that runs this, as in PILOT_PYTHONS."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def other_pythons() -> Iterator[Row]:
    """The pilot's unit tests on every other interpreter; one that is missing fails where CI=true, else it is named."""
    for version in PILOT_PYTHONS:
        if version == this_python():
            continue
        name = f"pilot's unit tests, Python {version}"
        start = time.monotonic()
        found = subprocess.run(
            [ROOT / ".ci" / "environment", "find", version], stdout=subprocess.PIPE, text=True, check=False
        )
        if found.returncode != 0:
            must_be_there = os.environ.get("CI") == "true"
            result = (
                "FAILED: this Python is missing, and CI=true wants all" if must_be_there else "skipped: not installed"
            )
            yield Row(name, time.monotonic() - start, result, must_be_there)
            continue
        environment = ROOT / ".venvs" / version
        packages = (*PILOT_TEST_PACKAGES, *OLDEST_PACKAGES.get(version, ()))
        ready = make_environment(environment, found.stdout.strip(), packages)
        if ready:
            yield run(name, *pytest(environment / "bin" / "python", "-n", UNIT_WORKERS, "tests/unit/pilot"))
        else:
            yield Row(name, time.monotonic() - start, "FAILED: its environment could not be made (see above)", True)


def is_ready(directory: Path, python: str, packages: Sequence[str]) -> bool:
    """Whether a virtual environment is there with these packages."""
    stamp = directory / ".ready"
    return stamp.exists() and stamp.read_text() == "\n".join((python, *packages))


def make_environment(directory: Path, python: str, packages: Sequence[str]) -> bool:
    """Make a virtual environment unless it is there with the same packages; whether it is ready."""
    if is_ready(directory, python, packages):
        return True
    stamp = directory / ".ready"
    stamp.unlink(missing_ok=True)
    command: list[str | os.PathLike[str]] = [ROOT / ".ci" / "environment", "make", directory, python, *packages]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        return False
    stamp.write_text("\n".join((python, *packages)))
    return True


def is_there(sign: str) -> bool:
    """Whether a command is on the PATH, or a file exists."""
    return bool(glob.glob(sign)) if sign.startswith("/") else shutil.which(sign) is not None


def installations() -> Iterator[Row]:
    """Install what the integration tests talk to and what is not there yet, two at a time.

    Each that was needed has a row. One that cannot be installed fails where CI=true; else it is named, and the tests
    that need it say so and skip.
    """
    tasks = [from_debian, *(partial(server_environment, name) for name in SERVER_ENVIRONMENTS)]
    with ThreadPoolExecutor(2) as pool:
        for rows in pool.map(lambda task: list(task()), tasks):
            yield from rows


def from_debian() -> Iterator[Row]:
    """Debian's packages, then Apptainer, whose installation wants one of them."""
    yield from debian_packages()
    yield from apptainer()


def installed(name: str, start: float, success: bool) -> Row:
    """The row of an installation."""
    must_be_there = os.environ.get("CI") == "true"
    without = "FAILED: CI=true wants them all" if must_be_there else "skipped: the tests that need it are left out"
    return Row(name, time.monotonic() - start, "ok" if success else without, must_be_there and not success)


def debian_packages() -> Iterator[Row]:
    """The Debian packages, which root may install."""
    missing = [package for package, sign in DEBIAN_PACKAGES.items() if not is_there(sign)]
    if not missing:
        return
    start = time.monotonic()
    command = [ROOT / ".ci" / "environment", "debian", *missing]
    yield installed("Debian packages", start, subprocess.run(command, cwd=ROOT, check=False).returncode == 0)


def server_environment(name: str) -> Iterator[Row]:
    """A server of SERVER_ENVIRONMENTS."""
    start = time.monotonic()
    # The interpreter itself, not this environment's link to it, so that .venv can be made anew without a loss.
    python = str(Path(sys.executable).resolve())
    directory = ROOT / ".venvs" / name
    there = is_ready(directory, python, SERVER_ENVIRONMENTS[name])
    success = there or make_environment(directory, python, SERVER_ENVIRONMENTS[name])
    if not there:
        yield installed(name, start, success)


def apptainer() -> Iterator[Row]:
    """Apptainer in .venvs/apptainer; again when the way to install it has changed or the checkout has moved."""
    script, directory = ROOT / ".ci" / "apptainer", ROOT / ".venvs" / "apptainer"
    stamp = directory / ".ready"
    wanted = f"{directory}\n{script.read_text()}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    start = time.monotonic()
    stamp.unlink(missing_ok=True)
    success = subprocess.run([script, directory], cwd=ROOT, check=False).returncode == 0
    if success:
        stamp.write_text(wanted)
    yield installed("Apptainer", start, success)


def integration() -> Iterator[Row]:
    """The tests with real servers: one run, so that both cores are busy to its end, then a row for every area.

    The server's unit tests on PostgreSQL are among them, in the area of their folder's name.
    """
    with tempfile.TemporaryDirectory(prefix="pilotkit-suite-") as scratch:
        report = Path(scratch, "report.xml")
        options = ("-n", INTEGRATION_WORKERS, "--dist", "loadfile", f"--junitxml={report}")
        which = ("-m", "integration or postgresql", "tests/integration", "tests/unit/server")
        total = run("integration tests", *pytest(sys.executable, *options, *which))
        areas = read_areas(report) if report.exists() else {}
    yield total
    for name, area in sorted(areas.items()):
        counted = ", ".join(f"{number} {outcome}" for outcome, number in sorted(area.counts.items()))
        yield Row(f"  {name}", area.seconds, counted)


def soak() -> Iterator[Row]:
    """What takes too long for every day: the tests marked soak."""
    yield run("soak tests", *pytest(sys.executable, "-n", INTEGRATION_WORKERS, "-m", "soak", "tests"))


def read_areas(report: Path) -> dict[str, Area]:
    """The areas in a JUnit report. Their seconds are those of their tests, of which several run at a time."""
    areas: dict[str, Area] = defaultdict(Area)
    for case in ElementTree.parse(report).iter("testcase"):
        # tests.integration.test_x, tests.integration.<area>.test_x or tests.unit.server.test_x, then perhaps a class
        folders = [part for part in case.get("classname", "").split(".")[2:] if not part.startswith(("test_", "Test"))]
        area = areas[folders[0] if folders else "skeleton"]
        area.seconds += float(case.get("time", "0"))
        outcomes = {"failure": "failed", "error": "failed", "skipped": "skipped"}
        outcome = next((outcomes[child.tag] for child in case if child.tag in outcomes), "passed")
        area.counts[outcome] += 1
    return areas


def main(what: str) -> int:
    """Run the steps of `check`, `test` or `soak`; the exit code for make."""
    # Started in the background, a shell has these ignored, and what ignores them cannot be tested with them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    steps = {
        "check": (check,),
        "test": (check, other_pythons, installations, integration),
        "soak": (installations, soak),
    }[what]
    start = time.monotonic()
    rows = [row for step in steps for row in step()]
    width = max(len(row.name) for row in rows)
    print(f"\n{'':{width}}  seconds")
    for row in rows:
        print(f"{row.name:{width}}  {row.seconds:7.1f}  {row.result}")
    failed = [row.name.strip() for row in rows if row.failed]
    print(f"{'all':{width}}  {time.monotonic() - start:7.1f}  {'FAILED: ' + ', '.join(failed) if failed else 'ok'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
