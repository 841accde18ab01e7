"""Every fault of the table (promise U1): its code, blame and words at the server, in the log, in the autopsies."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from pilot.common.errorcodes import describe
from pilot.control.autopsy import examine, render
from pilot.util import recorder
from server.cli.main import pilotkit
from server.logic.retries import UNCHARGED_PILOT_CODES
from tests.containers import Container, sandbox
from tests.injected.fault import BY_KILLER, Ending, Fault, Scene, play
from tests.injected.table import FAULTS
from tests.servers import RunningServer
from tests.site import Site, add_site


@pytest.fixture(scope="module")
def site(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site whose pilots run one job each."""
    return add_site(server.url, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def boxes() -> Iterator[list[Container]]:
    """The image of all rows that want one, made by the first."""
    with ExitStack() as stack:

        class Boxes(list[Container]):
            def made(self) -> Container:
                if not self:
                    self.append(stack.enter_context(sandbox()))
                return self[0]

        yield Boxes()


@pytest.fixture
def scene(site: Site, boxes: list[Container], tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        made = Scene(site, tmp_path, boxes.made, stack, site.url)  # type: ignore[attr-defined]
        yield made
        if made.jobid:  # a job that nobody has taken would go to the pilot of another row
            site.call("job/kill", {"job_ids": [made.jobid]})


def story_of(scene: Scene, *, killed: bool) -> str:
    """What `pilot.py --autopsy` tells of the row's job, from the recorder that its pilot has left."""
    places = [scene.folder, *(Path(option) for option in scene.options if option.startswith("/"))]
    files = [path for place in places for path in place.glob(f"**/pilotkit-*/{recorder.FILE}")]
    found = [one for path in files for one in examine(recorder.read(path), alive=not killed)]
    return "\n".join(render(one) for one in found if one.job == str(scene.jobid))


def in_tarball(path: Path, name: str) -> str:
    with tarfile.open(path) as archive:
        (member,) = [one for one in archive.getmembers() if one.name.endswith(f"/{name}")]
        return archive.extractfile(member).read().decode("utf-8", "replace")  # type: ignore[union-attr]


@pytest.mark.parametrize("fault", [pytest.param(one, id=one.name.replace(" ", "-")) for one in FAULTS])
def test_a_fault_has_its_code_its_blame_and_its_words_wherever_it_is_told(fault: Fault, scene: Scene) -> None:
    ending = play(fault, scene)
    assert ending.exit_code == fault.shell, ending.log
    assert "Traceback" not in ending.log or fault.blame == "pilot"
    if ending.job:
        check_server(fault, scene, ending)
        check_autopsies(fault, scene, ending)
    elif scene.jobid and fault.decided_by:
        check_story(fault, scene)
    info = describe(fault.code)
    if fault.decided_by != BY_KILLER:  # who is killed with -9 says nothing any more
        for words in (f"{fault.code} {info.name}", f"[{fault.blame}] {info.advice}", *fault.said):
            assert words in ending.log
    assert not fault.command or "container command: " in ending.log
    assert fault.charged is (fault.code not in UNCHARGED_PILOT_CODES)


def check_server(fault: Fault, scene: Scene, ending: Ending) -> None:
    """The job as the server has it."""
    job = ending.job
    if not fault.charged:
        (queued,) = [str(one["reason"]) for one in job["history"] if one["attemptNr"] == 2]  # type: ignore[index,attr-defined]
        assert "the failed one is not counted" in queued
        return
    assert (job["pilotErrorCode"], job["transExitCode"] or 0, job["exeErrorCode"] or 0) == (
        fault.code, fault.trans, fault.exe,
    ), f"{job['pilotErrorDiag']}\n{ending.log}"  # fmt: skip
    error = job["error"]
    assert isinstance(error, dict)
    assert error["blame"] == fault.blame
    # Of a job that was killed on request the server's own word comes first.
    assert (error["code"], error["advice"]) == (fault.code, describe(fault.code).advice) or job["killedBy"]
    for words in fault.said:
        assert words in str(job["pilotErrorDiag"])
    (log,) = scene.site.files(scene.jobid, "log")
    assert bool(log["surl"]) is fault.log
    if fault.log:
        assert describe(fault.code).advice in in_tarball(scene.site.stored(scene.jobid, "log")[0], "pilotlog.txt")


def check_autopsies(fault: Fault, scene: Scene, ending: Ending) -> None:
    """The one in the final update, as the server and its command line show it, and the one on the node."""
    autopsies = ending.job["autopsies"]
    assert isinstance(autopsies, list)
    (one,) = autopsies
    info = describe(fault.code)
    assert (one["code"], one["name"], one["blame"], one["advice"]) == (fault.code, info.name, fault.blame, info.advice)
    assert one["decided_by"].startswith(fault.decided_by), one["decided_by"]
    for words in fault.said:
        assert words in one["text"] and any(words in text for text in one["evidence"])
    check_timeline(one, fault.decided_by == BY_KILLER)
    shown = CliRunner().invoke(pilotkit, ["job", str(scene.jobid), "--url", scene.site.url]).output
    assert one["decided_by"] in shown and info.advice in shown and info.name in shown
    check_story(fault, scene)


def check_story(fault: Fault, scene: Scene) -> None:
    """The autopsy on the node."""
    story, info = story_of(scene, killed=fault.decided_by == BY_KILLER), describe(fault.code)
    for words in (f"{fault.code} {info.name}", fault.decided_by, fault.blame, info.advice, *fault.said):
        assert words in story


def check_timeline(one: Mapping[str, object], killed: bool) -> None:
    timeline = one["timeline"]
    assert isinstance(timeline, list) and timeline[0]["phase"] == "received"
    lasted = [phase.get("ms") for phase in timeline]
    assert all(isinstance(ms, float) for ms in lasted[:-1])
    assert killed or timeline[-1]["phase"] == "reporting"
