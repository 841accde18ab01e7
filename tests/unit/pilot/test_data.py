"""The data controller: outputs are looked at before they go, and the log goes whatever became of them."""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.common.lifecycle import Event, StagedIn, StagedOut, StageInFailed
from pilot.control.context import Context
from pilot.control.data import DataController
from pilot.control.jobrun import JobRun
from pilot.info.jobdata import JobData
from pilot.info.storagedata import deterministic_path
from pilot.util.https import Json
from tests.unit.pilot.builders import context, job_run, with_inputs

C = ErrorCodes
SOON = 30.0


# ---- the threads


class Stage:
    """A data controller in its two threads, and the events it brings."""

    def __init__(self, shared: Context) -> None:
        self.shared = shared
        self.events: list[Event] = []
        self.came = threading.Event()
        self.controller = DataController(shared, self._handle)
        self._threads = [
            threading.Thread(target=body) for body in (self.controller.run_stagein, self.controller.run_stageout)
        ]
        for thread in self._threads:
            thread.start()

    def _handle(self, run: JobRun, event: Event) -> None:
        self.events.append(event)
        self.came.set()

    def stage_in(self, run: JobRun) -> Event:
        self.controller.stagein.put(run)
        assert self.came.wait(SOON)
        return self.events[-1]

    def stage_out(self, run: JobRun, outputs: bool = True) -> PilotException | None:
        self.controller.stageout.put((run, outputs))
        assert self.came.wait(SOON)
        event = self.events[-1]
        assert isinstance(event, StagedOut)
        return event.error

    def job(self, **changes: Json) -> JobRun:
        run = job_run(self.shared.workdir / "PanDA_Pilot-254", **changes)
        run = replace(run, infosys=self.shared.infosys)
        run.workdir.mkdir()
        (run.workdir / "payload.stdout").write_text("hello\n")
        return run

    def stored(self, name: str) -> Path | None:
        return next((self.shared.rundir / "store").rglob(name), None)

    def log_of(self, name: str = "job254.log.tgz") -> dict[str, bytes]:
        path = self.stored(name)
        assert path is not None
        found: dict[str, bytes] = {}
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                assert stream is not None
                found[member.name] = stream.read()
        return found

    def close(self) -> None:
        self.controller.stagein.put(None)
        self.controller.stageout.put(None)
        for thread in self._threads:
            thread.join()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(context(tmp_path))
    yield made
    made.close()


ROOT = "tarball_PandaJob_254_SITE_QUEUE"


def test_outputs_and_log_go_out_and_are_noted(stage: Stage) -> None:
    run = stage.job()
    (run.workdir / "out.txt").write_text("events")
    assert stage.stage_out(run) is None
    assert stage.stored("out.txt") is not None
    assert sorted(stage.log_of()) == [f"{ROOT}/payload.stdout", f"{ROOT}/pilotlog.txt"]
    assert [spec.status for spec in (*run.data.outdata, *run.data.logdata)] == ["transferred"] * 2
    assert len(run.data.outdata[0].guid) == 36
    assert run.data.logdata[0].guid == "bf744c6a-4949-48bd-ba9d-ef056bd748db"
    assert run.workdir_size > 0 and "stage-out" in run.timing


def test_the_log_goes_out_when_the_outputs_are_missing(stage: Stage) -> None:
    error = stage.stage_out(stage.job())
    assert error is not None and error.code == C.MISSINGOUTPUTFILE
    assert f"{ROOT}/payload.stdout" in stage.log_of()


def test_outputs_that_are_not_wanted_stay(stage: Stage) -> None:
    run = stage.job()
    (run.workdir / "out.txt").write_text("events")
    assert stage.stage_out(run, outputs=False) is None
    assert stage.stored("out.txt") is None and stage.stored("job254.log.tgz") is not None


def test_a_hurry_gives_the_outputs_up_and_saves_the_log(stage: Stage) -> None:
    run = stage.job()
    (run.workdir / "out.txt").write_text("events")
    run.give_up_outputs.set()
    assert stage.stage_out(run) is None
    assert stage.stored("out.txt") is None and stage.stored("job254.log.tgz") is not None


def test_the_log_holds_the_pilots_log_of_this_job_and_not_what_is_redundant(stage: Stage) -> None:
    stage.shared.pilotlog.write_text("an earlier job\nthis job\n")
    run = stage.job(**{k: v for k, v in with_inputs(1).items() if k not in ("PandaID",)})
    run.log_offset = len("an earlier job\n")
    for name in ("in0.root", "panda_secrets.json", "job254.log.tgz"):
        (run.workdir / name).write_text("x")
    (run.workdir / "tmp").mkdir()
    (run.workdir / "tmp" / "junk").write_text("x")
    assert stage.stage_out(run, outputs=False) is None
    assert stage.log_of() == {f"{ROOT}/payload.stdout": b"hello\n", f"{ROOT}/pilotlog.txt": b"this job\n"}


@pytest.mark.parametrize(("turl", "kept"), [("https://h/f?X-Amz-Signature=0a1b", False), ("root://h//f", True)])
def test_the_list_of_inputs_is_in_the_log_unless_it_holds_a_signature(stage: Stage, turl: str, kept: bool) -> None:
    run = stage.job(**{k: v for k, v in with_inputs(1).items() if k not in ("PandaID",)})
    run.data.indata[0].status, run.data.indata[0].turl = "remote_io", turl
    (run.workdir / "PoolFileCatalog.xml").write_text(turl)
    assert stage.stage_out(run, outputs=False) is None
    assert (f"{ROOT}/PoolFileCatalog.xml" in stage.log_of()) == kept


def test_a_refused_job_without_a_directory_still_has_a_log(stage: Stage) -> None:
    raw = job_run(stage.shared.workdir).data
    run = JobRun(
        JobData.refused({"logFile": "job254.log.tgz", "scopeLog": "vo", "outFiles": ""}, raw.jobid, 1),
        stage.shared.workdir / "PanDA_Pilot-254", stage.shared.infosys, 60.0,
    )  # fmt: skip
    assert stage.stage_out(run, outputs=False) is None
    assert list(stage.log_of()) == [f"{ROOT}/pilotlog.txt"]


def test_a_job_without_a_log_needs_none(stage: Stage) -> None:
    run = stage.job(logFile=None, outFiles="out.txt", ddmEndPointOut="SITE_DISK", realDatasets="d")
    (run.workdir / "out.txt").write_text("events")
    assert stage.stage_out(run) is None


def test_storage_that_fails_is_told_once_and_first(stage: Stage) -> None:
    (stage.shared.rundir / "store").rmdir()
    (stage.shared.rundir / "store").write_text("no directory")
    run = stage.job()
    (run.workdir / "out.txt").write_text("events")
    error = stage.stage_out(run)
    assert error is not None and error.code == C.STAGEOUTFAILED and "out.txt to" in error.diag
    assert [spec.status for spec in (*run.data.outdata, *run.data.logdata)] == ["failed"] * 2


def test_a_job_without_inputs_is_staged_in_at_once(stage: Stage) -> None:
    assert isinstance(stage.stage_in(stage.job()), StagedIn)


def test_an_input_that_is_not_there_fails_the_stage_in(stage: Stage) -> None:
    event = stage.stage_in(stage.job(**with_inputs(1)))
    assert isinstance(event, StageInFailed) and event.error is not None
    assert event.error.code == C.MISSINGINPUTFILE


def test_a_cancelled_stage_in_has_no_error_of_its_own(stage: Stage) -> None:
    run = stage.job(**with_inputs(1))
    run.cancel_stagein.set()
    event = stage.stage_in(run)
    assert isinstance(event, StageInFailed) and event.error is None


# ---- inputs in a directory of their own


def shared_job(shared: Context, name: str, **changes: Json) -> JobRun:
    """A job with one input that lies in storage."""
    fields = {key: value for key, value in with_inputs(1).items() if key != "PandaID"}
    known = {"fsize": "6", "checksum": "ad:08eb0296"}
    run = replace(job_run(shared.workdir / name, **{**fields, **known, **changes}), infosys=shared.infosys)
    run.workdir.mkdir()
    return run


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[Stage]:
    """A data controller of a pilot with --input-destination-dir, and the input in storage."""
    made = Stage(context(tmp_path, "--input-destination-dir", "inputs"))
    place = tmp_path / "store" / deterministic_path("mc", "in0.root")
    place.parent.mkdir(parents=True)
    place.write_text("events")
    yield made
    made.close()


def test_inputs_go_into_the_directory_that_was_asked_for_and_the_job_gets_links(sharing: Stage) -> None:
    run = shared_job(sharing.shared, "one")
    assert isinstance(sharing.stage_in(run), StagedIn)
    place = sharing.shared.rundir / "inputs" / "in0.root"
    assert place.read_text() == "events" and not place.is_symlink()
    assert (run.workdir / "in0.root").is_symlink() and (run.workdir / "in0.root").read_text() == "events"


def test_what_an_earlier_job_has_left_there_is_used_when_it_is_the_same(sharing: Stage) -> None:
    place = sharing.shared.rundir / "inputs" / "in0.root"
    place.parent.mkdir()
    place.write_text("events")
    inode = place.stat().st_ino
    run = shared_job(sharing.shared, "two")
    assert isinstance(sharing.stage_in(run), StagedIn)
    assert (place.stat().st_ino, run.transfers, run.data.indata[0].status) == (inode, [], "transferred")


@pytest.mark.parametrize("changes", [{}, {"checksum": "ad:00000001"}, {"checksum": None}])
def test_a_file_with_other_contents_is_left_to_whoever_reads_it(sharing: Stage, changes: dict[str, Json]) -> None:
    place = sharing.shared.rundir / "inputs" / "in0.root"
    place.parent.mkdir()
    place.write_text("others" if not changes else "events")
    event = sharing.stage_in(shared_job(sharing.shared, "three", **changes))
    assert isinstance(event, StageInFailed) and event.error is not None
    assert event.error.code == C.STAGEINFAILED and "in0.root is there already, with 6 bytes" in event.error.diag
    assert place.exists()


def test_a_directory_for_inputs_that_cannot_be_made_is_named(sharing: Stage) -> None:
    (sharing.shared.rundir / "inputs").write_text("a file")
    event = sharing.stage_in(shared_job(sharing.shared, "four"))
    assert isinstance(event, StageInFailed) and event.error is not None
    assert event.error.code == C.FILEHANDLINGFAILURE and "--input-destination-dir" in event.error.diag
