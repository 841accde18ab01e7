"""The documented names of pilot.control that plugins and scripts use: they do what chapter 7.3.2 says."""

from __future__ import annotations

import logging
import os
import time
from argparse import Namespace
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import FileHandlingFailure
from pilot.control import job, monitor, payload
from pilot.info.queuedata import QueueData

C = ErrorCodes


@pytest.mark.parametrize(
    ("label", "tag", "wanted"),
    [("managed", "PR", "managed"), ("managed", "RC", "rc_test2"), ("rc_test2", "PR", "rc_test2")],
)
def test_a_release_candidate_asks_for_its_own_jobs(label: str, tag: str, wanted: str) -> None:
    assert job.get_job_label(Namespace(joblabel=label, versiontag=tag)) == wanted


def test_periods_are_those_of_the_settings() -> None:
    assert (job.get_heartbeat_period(), job.get_heartbeat_period(debug=True)) == (1800, 300)
    assert (job.get_job_retrieval_delay(True), job.get_job_retrieval_delay(False)) == (1, 60)


@pytest.mark.parametrize(
    ("seconds", "wanted"), [(None, None), (0, 0), (5.7, 5), (10**9 - 1, 10**9 - 1), (10**9, None), (-1, None)]
)
def test_only_cpu_time_that_can_be_true_is_told(seconds: float | None, wanted: int | None) -> None:
    assert job.get_cpu_consumption_time(seconds) == wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (" tail -5 log.x ", (True, "tail -5 log.x")),
        ("gdb --pid % -ex bt", (True, "gdb --pid % -ex bt")),
        ("rm -r .", (False, "")),
        ("tailor", (False, "")),
        ("", (False, "")),
    ],
)
def test_only_known_commands_are_passed_on(given: str, wanted: tuple[bool, str]) -> None:
    assert job.get_debug_command(given) == wanted


def test_the_moment_the_task_and_the_node_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert abs(int(job.now()) - time.time()) < 60
    monkeypatch.delenv("PanDA_TaskID", raising=False)
    assert job.get_task_id() == ""
    monkeypatch.setenv("PanDA_TaskID", "77")
    assert job.get_task_id() == "77"
    with caplog.at_level(logging.INFO):
        job.print_node_info()
    assert f"{len(os.sched_getaffinity(0))} core(s)" in caplog.text


def test_the_end_of_the_payloads_log_is_shown(tmp_path: Path) -> None:
    assert job.get_payload_log_tail(str(tmp_path)) == ""
    for when, name in enumerate(["log.old", "log.RAWtoALL", "pilotlog.txt", "x.log"], 1):
        (tmp_path / name).write_text(f"in {name}\n")
        os.utime(tmp_path / name, (when, when))
    (tmp_path / "x.log").unlink()
    assert job.get_payload_log_tail(str(tmp_path)) == "in log.RAWtoALL"
    (tmp_path / "payload.stdout").write_text("".join(f"{n}\n" for n in range(100)))
    assert job.get_payload_log_tail(str(tmp_path)).split() == [str(n) for n in range(80, 100)]
    assert job.remove_pilot_logs_from_list(["/a/pilotlog.txt", "/a/payload.stdout", "/a/log.x"]) == ["/a/log.x"]
    assert job.get_latest_log_tail([]) == ""


@pytest.mark.parametrize(("maxtime", "wanted"), [(0, 1000), (500, 500), (5000, 1000)])
def test_the_queue_may_allow_less_time(maxtime: int, wanted: int) -> None:
    queue = QueueData({"nickname": "Q", "state": "ACTIVE", "maxtime": maxtime})
    assert monitor.get_max_running_time(1000, queue) == wanted


@pytest.mark.parametrize(
    ("said", "fatal", "code"),
    [
        ("terminate called after throwing an instance of 'std::bad_alloc'", False, C.BADALLOC),
        ("write: No space left on device", True, C.NOLOCALSPACE),
        ("it hurts", False, 0),
        ("it hurts", True, C.UNRECOGNIZEDTRFSTDERR),
    ],
)
def test_last_words_have_a_code(said: str, fatal: bool, code: int) -> None:
    assert payload.set_error_code_from_stderr(said, fatal) == code


def test_harvesters_jobs_are_found_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "h").mkdir()
    monkeypatch.chdir(tmp_path)
    args = Namespace(harvester_workdir=str(tmp_path / "h"))
    assert job.locate_job_definition(args) == ""
    for name in ("pandaJobData.out", "h/HPCJobs.json", "h/pandaJobData.out"):
        (tmp_path / name).touch()
        assert job.locate_job_definition(args) == str(tmp_path / name)
    (tmp_path / "h/pandaJobData.out").unlink()
    assert job.locate_job_definition(args) == str(tmp_path / "h/HPCJobs.json")
    assert job.locate_job_definition(Namespace()) == str(tmp_path / "pandaJobData.out")


@pytest.mark.parametrize(
    "text",
    [
        '{"254": {"PandaID": "254", "jobPars": "a b"}, "255": {"PandaID": "255"}}',
        '{"PandaID": "254", "jobPars": "a b"}',
        "PandaID=254&jobPars=a+b",
    ],
)
def test_a_job_is_read_in_every_form(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job").write_text(text)
    (tmp_path / "worker_requestjob.json").write_text("{}")
    assert job.get_job_definition_from_file("job", harvester=False) == {"PandaID": "254", "jobPars": "a b"}
    assert (tmp_path / "worker_requestjob.json").exists()
    job.get_job_definition_from_file("job", harvester=True)
    assert not (tmp_path / "worker_requestjob.json").exists()


@pytest.mark.parametrize("text", ["", "{}", '{"1": 5}', "{no json", "x=5"])
def test_a_file_without_a_job_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "job").write_text(text)
    with pytest.raises(FileHandlingFailure):
        job.get_job_definition_from_file(str(tmp_path / "job"), harvester=False)
