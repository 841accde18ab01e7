"""The processes that move files with a library: killed, hung, talkative, missing, and safe from payloads' files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from pilot.api.data import StageInClient, Tools
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool import gfal, xrdcp
from pilot.copytool.errors import MAY_PASS, kind_of
from pilot.copytool.helper import LibraryMissing, Program, first_with_library, helper
from pilot.copytool.pool import Pool
from pilot.info.filespec import FileSpec
from pilot.info.replica import Replica
from pilot.util.credentials import tool_environment
from pilot.util.guarded import Launcher
from pilot.util.watch import Limits
from tests.gfal import require_gfal
from tests.integration.data.tools import CONTENTS, TOOLS, Tool, fails, left, queue, require, stored
from tests.unit.pilot import builders
from tests.xrootd import XRootD

C = ErrorCodes
SYSTEM_PYTHON = "/usr/bin/python3"
hangs = pytest.mark.parametrize("broken", ["hang"], indirect=True)


@pytest.fixture(params=[tool for tool in TOOLS if not tool.command and tool.name != "https"], ids=str)
def tool(request: pytest.FixtureRequest) -> Tool:
    """Those with a library."""
    require(request.param)
    return request.param


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.close()


def helpers(above: int | None = None) -> list[psutil.Process]:
    """The helpers below a process, this one by default."""
    found = []
    for process in psutil.Process(above).children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        # The guard's command line has the helper's in it.
        if len(words) > 1 and words[1].endswith("helpers/run.py"):
            found.append(process)
    return found


@contextmanager
def doing(when: Callable[[], bool], what: Callable[[], Any]) -> Iterator[None]:
    """Do something once, as soon as a condition is met while the block runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if when():
                what()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def begun(work: Path) -> bool:
    """Whether a library has made the file that it is going to fill; the first megabyte may still be in its memory."""
    return any(work.glob(".*.part"))


@hangs
def test_a_helper_that_is_killed_is_an_error_that_may_pass_and_the_next_file_gets_a_new_one(
    broken: tuple[str, XRootD], xrootd: XRootD, tool: Tool, work: Path, pool: Pool
) -> None:
    transfer = tool.transfer(work, pool=pool)
    first = stored(broken[1], tool)
    with doing(lambda: begun(work), lambda: [one.kill() for one in helpers()]), pytest.raises(PilotException) as info:
        tool.module.copy_in([first], transfer)
    assert kind_of(info.value) in MAY_PASS and "died" in str(info.value) and "signal 9" in str(info.value)
    assert left(work) == [] and helpers() == []
    tool.module.copy_in([stored(xrootd, tool)], transfer)
    assert (work / "f.root").read_bytes() == CONTENTS and len(helpers()) == 1


@hangs
@pytest.mark.parametrize("how", ["stopped", "cancelled"])
def test_a_library_that_hangs_is_ended_in_time(broken: tuple[str, XRootD], tool: Tool, work: Path, how: str) -> None:
    """A stopped process is as deaf as a library can be."""
    cancel = threading.Event()
    limits = Limits(3.0 if how == "stopped" else 100.0, 1000.0, 1e6)
    transfer = tool.transfer(work, limits=limits, cancelled=cancel.is_set)
    freeze = doing(
        lambda: begun(work),
        lambda: [*(one.send_signal(signal.SIGSTOP) for one in helpers()), how == "cancelled" and cancel.set()],
    )
    started = time.monotonic()
    with freeze:
        codes = {"stopped": C.STAGEINTIMEOUT, "cancelled": C.STAGEINFAILED}
        said = fails(lambda: tool.module.copy_in([stored(broken[1], tool)], transfer), codes[how])
    assert time.monotonic() - started < 30 and ("cancelled" in said or "no byte moved" in said)
    assert left(work) == [] and helpers() == []


class Counting(Launcher):
    """A launcher that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.started = 0

    def start(self, *arguments: Any, **named: Any) -> Any:
        self.started += 1
        return super().start(*arguments, **named)


# Not over HTTP: XRootD 5.5 itself has died of three clients of gfal2 at once, and with it every test that came after.
@pytest.mark.parametrize("tool", [one for one in TOOLS if not one.command and one.url is XRootD.root], ids=str)
def test_many_small_files_cost_no_more_processes_than_move_at_once(xrootd: XRootD, tool: Tool, work: Path) -> None:
    files = []
    for number in range(40):
        xrootd.put(f"small/{number}", b"%d" % number)
        replicas = [Replica("A", tool.url(xrootd, f"small/{number}"))]
        files.append(FileSpec(f"f{number}", scope="mc", replicas=replicas))
    launcher = Counting()
    client = StageInClient(
        queue(tool.name), logger=builders.LOG, settings=builders.file_settings(transfers_at_once=3), workdir=work,
        tools=Tools(launcher, dict(os.environ)),
    )  # fmt: skip
    client.transfer(files)
    assert (work / "f39").read_bytes() == b"39" and 1 <= launcher.started <= 3 and helpers() == []


# ---- a payload's files

TRAPS = (
    "json", "socket", "logging", "zlib", "sitecustomize", "usercustomize", "gfal2", "gfal2_util", "pilot", "requests",
    "XRootD",
)  # fmt: skip


def lay_traps(work: Path) -> Path:
    """Modules and programs with the names of others in the job's directory; each leaves a file when it is run."""
    sprung = work / "sprung"
    for name in TRAPS:
        folder = work / name
        folder.mkdir()
        for path in (work / f"{name}.py", folder / "__init__.py"):
            path.write_text(f"open({str(sprung)!r}, 'a').write({name!r} + '\\n')\n")
    for name in ("xrdcp", "xrdfs", "gfal-copy", "gfal-stat", "gfal-sum", "python", "python3", "sh"):
        (work / name).write_text(f"#!/bin/bash\necho {name} >> {sprung}\n")
        (work / name).chmod(0o755)
    return sprung


@pytest.mark.parametrize("tool", TOOLS[:-1], ids=str)
@pytest.mark.parametrize("here", ["", "."])
def test_nothing_in_the_jobs_directory_is_ever_run_by_a_tool(
    xrootd: XRootD, tool: Tool, work: Path, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the pilot's own environment has the current directory in its search paths, as many have."""
    require(tool)
    sprung = lay_traps(work)
    monkeypatch.chdir(work)
    environ = {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "PYTHONPATH": f"{here}:/none",
               "LD_LIBRARY_PATH": f"/none:{here}"}  # fmt: skip
    xrootd.put("f.root", CONTENTS)
    spec = FileSpec("f.root", scope="mc", replicas=[Replica("A", tool.url(xrootd, "f.root"))])
    client = StageInClient(
        queue(tool.name, copytools={tool.name: tool.options}), logger=builders.LOG, settings=builders.file_settings(),
        workdir=work, tools=Tools(Launcher(), environ),
    )  # fmt: skip
    client.transfer([spec])
    assert (work / "f.root").read_bytes() == CONTENTS
    assert not sprung.exists(), sprung.read_text()


def test_the_traps_would_spring(work: Path) -> None:
    """What the test above says is worth something only if this is so."""
    sprung = lay_traps(work)
    subprocess.run(
        [sys.executable, "-c", "import gfal2"], cwd=work, check=False, env={**os.environ, "PYTHONPATH": ":/none"}
    )
    assert {"sitecustomize", "gfal2"} <= set(sprung.read_text().split())


def test_search_paths_lose_what_means_the_current_directory_and_keep_the_rest() -> None:
    environ = {"PATH": ".:/bin::sub:/usr/bin", "PYTHONPATH": ":", "LD_LIBRARY_PATH": "/opt/lib:", "HOME": "."}
    assert tool_environment(environ) == {"PATH": "/bin:/usr/bin", "LD_LIBRARY_PATH": "/opt/lib", "HOME": "."}


# ---- libraries that are not what they should be


def library(folder: Path, text: str) -> dict[str, str]:
    """The environment in which the module gfal2 is this text."""
    (folder / "site").mkdir()
    (folder / "site" / "gfal2.py").write_text(text)
    return {**os.environ, "PYTHONPATH": str(folder / "site")}


def test_the_pilots_own_pythonpath_is_honoured(tmp_path: Path, work: Path) -> None:
    environ = library(tmp_path, "def get_version(): return 'of the site'\n")
    with helper(Program("with_gfal"), builders.transfer(work, environ=environ)) as started:
        assert started.version == "gfal2 of the site"


def test_a_library_that_writes_without_end_is_stopped(tmp_path: Path, work: Path) -> None:
    environ = library(
        tmp_path,
        "import os\n"
        "class GError(Exception): pass\n"
        "def get_version(): return '1'\n"
        "def creat_context():\n"
        "    while True: os.write(2, b'x' * 1000000)\n",
    )
    transfer = builders.transfer(work, environ=environ)
    request = {"call": "exists", "url": "davs://host/f"}
    with helper(Program("with_gfal"), transfer) as started:
        said = fails(lambda: started.call(request, FileSpec("f"), transfer, read=True), C.STAGEINTIMEOUT)
    assert "writes messages without end" in said and helpers() == []


def test_a_python_that_lacks_or_cannot_bear_the_library_is_passed_over(tmp_path: Path, work: Path, pool: Pool) -> None:
    missing = Program("with_gfal", sys.executable)
    (tmp_path / "broken").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "broken").chmod(0o755)
    broken, absent = Program("with_gfal", str(tmp_path / "broken")), Program("with_gfal", "/none/python3")
    launcher = Counting()
    transfer = builders.transfer(work, pool=pool, launcher=launcher)
    with pytest.raises(LibraryMissing, match="gfal2"), helper(missing, transfer):
        pass
    with pytest.raises(LibraryMissing, match="exit code 3"), helper(broken, transfer):
        pass
    assert first_with_library([absent, broken, missing], transfer) is None
    asked = launcher.started
    assert first_with_library([absent, broken, missing], transfer) is None and launcher.started == asked
    require_gfal()
    good = Program("with_gfal", SYSTEM_PYTHON)
    assert first_with_library([missing, broken, good], transfer) == good


def test_without_gfal2_anywhere_the_error_says_what_to_install(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gfal, "SYSTEM_PYTHON", "/none/python3")
    transfer = builders.transfer(work, environ={"PATH": "/none"})
    said = fails(lambda: gfal.copy_in([FileSpec("f", surl="davs://h/f")], transfer), C.MIDDLEWAREIMPORTFAILURE)
    assert "gfal-copy is not on the PATH: install gfal2 (packages" in said


def test_a_library_that_is_there_and_does_not_work_leaves_the_command(
    xrootd: XRootD, tmp_path: Path, work: Path
) -> None:
    (tmp_path / "site" / "XRootD").mkdir(parents=True)
    (tmp_path / "site" / "XRootD" / "__init__.py").write_text("raise ImportError('libXrdCl.so.3: cannot open')\n")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    xrdcp.copy_in([stored(xrootd, TOOLS[0])], builders.transfer(work, environ=environ))
    assert (work / "f.root").read_bytes() == CONTENTS


# ---- the pilot's end

PILOT = """
import os, sys
from pathlib import Path
from pilot.copytool import gfal, xrdcp
from pilot.info.filespec import FileSpec
from tests.unit.pilot import builders
module = {"gfal": gfal, "xrdcp": xrdcp}[sys.argv[1]]
module.copy_in([FileSpec("f.root", surl=sys.argv[2])], builders.transfer(Path(sys.argv[3])))
"""


@hangs
def test_a_pilot_that_is_killed_leaves_no_helper(broken: tuple[str, XRootD], tool: Tool, work: Path) -> None:
    spec = stored(broken[1], tool)
    command = [sys.executable, "-c", PILOT, tool.name, spec.surl, str(work)]
    root = Path(__file__).parents[3]
    pilot = subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    deadline = time.monotonic() + 60
    while not begun(work):
        assert time.monotonic() < deadline and pilot.poll() is None
        time.sleep(0.05)  # nothing tells when a file grows
    (working,) = helpers(pilot.pid)
    pilot.kill()
    pilot.wait()
    assert not psutil.wait_procs([working], timeout=20)[1]
