"""The documented names of pilot.util.harvester: files that Harvester reads and writes (harvester's shared files)."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path

import pytest

from pilot.common.exception import FileHandlingFailure
from pilot.info.filespec import FileSpec
from pilot.util import harvester
from pilot.util.https import Json


class Job:
    """A job with an output that is there, one that is not, and a log."""

    def __init__(self, workdir: Path) -> None:
        self.jobid = "254"
        self.workdir = str(workdir)
        self.outdata = [
            FileSpec("out.root", "output", guid="G", filesize=3, checksum={"adler32": "024d0127"}),
            FileSpec("lost.root", "output"),
        ]
        self.logdata = [FileSpec("job.log.tgz", "log")]
        (workdir / "out.root").write_text("abc")
        (workdir / "job.log.tgz").write_text("log!")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({}, False),
        ({"harvester_submitmode": "PULL"}, False),
        ({"harvester_submitmode": "push"}, True),
        ({"harvester_workdir": "/w"}, True),
        ({"harvester_datadir": "/d"}, True),
        ({"harvester_eventstatusdump": "e"}, True),
        ({"harvester_workerattributes": "a"}, True),
    ],
)
def test_arguments_tell_of_harvester(arguments: dict[str, str], wanted: bool) -> None:
    assert harvester.is_harvester_mode(Namespace(**arguments)) is wanted


def test_files_lie_where_the_arguments_say() -> None:
    assert harvester.get_event_status_file(Namespace()) == "event_status.dump.json"
    assert harvester.get_worker_attributes_file(Namespace(harvester_workdir="/w")) == "/w/worker_attributes.json"
    args = Namespace(harvester_workdir="/w", harvester_eventstatusdump="e.json", harvester_workerattributes="/a/b.json")
    assert harvester.get_event_status_file(args) == "/w/e.json"
    assert harvester.get_worker_attributes_file(args) == "/a/b.json"


def test_jobs_are_asked_for_and_the_request_taken_back(here: Path) -> None:
    harvester.request_new_jobs(3)
    assert harvester.get_job_request_file_name() == str(here / "worker_requestjob.json")
    assert json.loads((here / "worker_requestjob.json").read_text()) == {"nJobs": 3}
    harvester.remove_job_request_file()
    harvester.remove_job_request_file()
    assert not list(here.iterdir())
    harvester.kill_worker()
    assert os.listdir(here) == ["kill_worker"]


def test_jobs_are_read_with_their_ids(here: Path) -> None:
    (here / "jobs").write_text(json.dumps({"1": {"taskID": "a"}, "2": {}}))
    assert harvester.parse_job_definition_file("jobs") == [{"taskID": "a", "jobid": "1"}, {"jobid": "2"}]
    for text in ('{"1": 5}', "[]", "no json"):
        (here / "jobs").write_text(text)
        with pytest.raises(FileHandlingFailure):
            harvester.parse_job_definition_file("jobs")
    with pytest.raises(FileHandlingFailure):
        harvester.parse_job_definition_file("none")


def test_a_work_report_is_published(here: Path) -> None:
    report: dict[str, Json] = {**harvester.get_initial_work_report(), "jobStatus": "running"}
    assert report["pilotErrorCode"] == 0 and report["workdir"] == str(here)
    assert harvester.publish_work_report(report) is True
    assert json.loads((here / "worker_attributes.json").read_text()) == report
    assert harvester.publish_work_report() is False
    with pytest.raises(FileHandlingFailure):
        harvester.publish_work_report(report, "no/dir")


def test_output_files_are_told_to_harvester(here: Path) -> None:
    assert harvester.publish_stageout_files(Job(here), "status.json") is True
    assert json.loads((here / "status.json").read_text()) == {
        "254": [
            {"path": f"{here}/out.root", "type": "output", "fsize": 3, "guid": "G", "chksum": "024d0127"},
            {"path": f"{here}/job.log.tgz", "type": "log", "fsize": 4},
        ]
    }
    empty = Job(here)
    empty.outdata, empty.logdata = [], []
    assert harvester.publish_stageout_files(empty, "none.json") is False and not (here / "none.json").exists()


def test_a_job_report_is_shrunk_on_its_way(here: Path) -> None:
    (here / "job").mkdir()
    (here / "h").mkdir()
    args, job = Namespace(harvester_workdir=str(here / "h")), Job(here / "job")
    assert harvester.publish_job_report(job, args) is False
    report = {"exitCode": 0, "executor": [{"name": "x", "logfileReport": {"details": ["long"]}}]}
    (here / "job" / "jobReport.json").write_text(json.dumps(report))
    assert harvester.publish_job_report(job, args) is True
    assert (here / "h" / "jobReport.json").read_text() == '{"exitCode":0,"executor":[{"name":"x"}]}'
    with pytest.raises(FileHandlingFailure, match="cannot be copied"):
        harvester.publish_job_report(job, Namespace(harvester_workdir="no/dir"))


def test_a_file_is_found_and_an_object_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("b", "a"):
        (here / folder).mkdir()
        (here / folder / "f").touch()
    assert harvester.findfile(".", "f") == "./a/f" and harvester.findfile(".", "g") == ""
    harvester.dump(Namespace(x=5))
    assert "obj.x = 5" in capsys.readouterr().out
