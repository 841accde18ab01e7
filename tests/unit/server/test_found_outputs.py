"""Outputs whose names only the pilot knows: of patterns, of jobs that name none, and those that went into archives."""

from __future__ import annotations

import json

import pytest

from server.logic.errors import BadJob
from tests.unit.server.dispatcher import Dispatcher, good_file

RAW = {"transformation": "bash", "jobPars": "-c true"}


def outputs(dispatcher: Dispatcher, job: int) -> dict[str, tuple[object, ...]]:
    """LFN -> status, scope, dataset, size."""
    files = [file for file in dispatcher.files(job) if file["type"] == "output"]
    return {str(file["lfn"]): (file["status"], file["scope"], file["dataset"], file["fsize"]) for file in files}


def finish(dispatcher: Dispatcher, job: int, *names: str) -> str:
    """Run it; the pilot reports these files, and the log as all do."""
    dispatcher.get_job()
    log = next(str(file["lfn"]) for file in dispatcher.files(job) if file["type"] == "log")
    dispatcher.report(job, "finished", xml=json.dumps({name: good_file() for name in (*names, log)}))
    dispatcher.add()
    return dispatcher.status(job)


def test_files_that_match_a_pattern_are_outputs_in_its_dataset(dispatcher: Dispatcher) -> None:
    pattern = {**RAW, "outFiles": "u.*.root,v.txt", "scopeOut": "user.a,user.b", "realDatasets": "ds.a,ds.b"}
    (job,) = dispatcher.submit(pattern)
    assert finish(dispatcher, job, "u.1.root", "v.txt", "u.2.root", "stranger.txt") == "finished"
    assert outputs(dispatcher, job) == {
        "u.*.root": ("matched", "user.a", "ds.a", None),
        "v.txt": ("ready", "user.b", "ds.b", 6),
        "u.1.root": ("ready", "user.a", "ds.a", 6),
        "u.2.root": ("ready", "user.a", "ds.a", 6),
    }
    # Nothing is known of the pattern itself, and everything of the files.
    (use,) = dispatcher.submit({"inputs": ["user.a:u.1.root"]})
    assert dispatcher.status(use) == "activated"


def test_who_waits_for_a_file_of_a_pattern_gets_it(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({**RAW, "outFiles": "u.*.root"})
    (use,) = dispatcher.submit({"inputs": ["u.1.root"]})
    assert dispatcher.status(use) == "assigned"
    assert finish(dispatcher, job, "u.1.root") == "finished"
    assert dispatcher.status(use) == "activated"


def test_two_jobs_may_have_the_same_pattern_but_not_the_same_file(dispatcher: Dispatcher) -> None:
    one, two = dispatcher.submit({**RAW, "outFiles": "u.*.root"}, {**RAW, "outFiles": "u.*.root"})
    assert list(outputs(dispatcher, one)) == list(outputs(dispatcher, two)) == ["u.*.root"]
    assert finish(dispatcher, one, "u.1.root") == "finished"
    assert finish(dispatcher, two, "u.1.root") == "failed"
    found = dispatcher.job(two)
    assert (found["ddmErrorCode"], found["ddmErrorDiag"]) == (202, f"output u.1.root is a file of job {one} already")
    assert outputs(dispatcher, two) == {"u.*.root": ("failed", "user.user", f"user.user.{two}", None)}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "no file in the pilot's report matches output u.*.root"),
        (["v.1.root"], "no file in the pilot's report matches output u.*.root"),
        (["u./../../x.root"], "an output is named badly: 'u./../../x.root' cannot be a file name"),
        (["u." + "x" * 300 + ".root"], "an output is named badly: the file name has 307 characters"),
        (["u.*.1.root"], "an output is named badly"),
    ],
)
def test_a_report_without_a_good_match_fails_the_job(dispatcher: Dispatcher, names: list[str], says: str) -> None:
    (job,) = dispatcher.submit({**RAW, "outFiles": "u.*.root"})
    assert finish(dispatcher, job, *names) == "failed"
    assert says in str(dispatcher.job(job)["ddmErrorDiag"])


def test_a_match_that_is_described_badly_fails_the_job(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({**RAW, "outFiles": "u.*.root"})
    dispatcher.get_job()
    dispatcher.report(job, "finished", xml=json.dumps({"u.1.root": {**good_file(), "guid": "x"}}))
    dispatcher.add()
    assert "output 'u.1.root' is described badly" in str(dispatcher.job(job)["ddmErrorDiag"])


def test_a_pattern_that_may_be_missing_needs_no_match(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({**RAW, "outFiles": "u.*.root", "allowNoOutput": "u.*.root"})
    assert finish(dispatcher, job) == "finished"


def test_files_of_a_failed_attempt_are_not_registered(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({**RAW, "outFiles": "u.*.root"})
    dispatcher.get_job()
    dispatcher.fail(job, xml=json.dumps({"u.1.root": good_file()}))
    assert list(outputs(dispatcher, job)) == ["u.*.root"]


def test_a_job_that_names_no_output_may_report_some_which_are_like_its_log(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({**RAW, "scope": "user.c"})
    assert finish(dispatcher, job, "made.root") == "finished"
    assert outputs(dispatcher, job) == {"made.root": ("ready", "user.c", f"user.c.{job}", 6)}


def test_a_job_that_names_outputs_has_no_others(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({**RAW, "outFiles": "a.txt"})
    assert finish(dispatcher, job, "a.txt", "made.root") == "finished"
    assert list(outputs(dispatcher, job)) == ["a.txt"]


def test_what_is_packed_into_an_archive_is_not_expected_in_storage(dispatcher: Dispatcher) -> None:
    parameters = "-c true <ZIP_MAP>z.zip:a.txt,b.txt</ZIP_MAP>"
    (job,) = dispatcher.submit({**RAW, "jobPars": parameters, "outFiles": "z.zip,a.txt,c.txt"})
    assert finish(dispatcher, job, "z.zip", "c.txt") == "finished"
    states = {name: said[0] for name, said in outputs(dispatcher, job).items()}
    assert states == {"z.zip": "ready", "a.txt": "packed", "c.txt": "ready"}
    # Inside an archive a name is free for everybody.
    (again,) = dispatcher.submit({**RAW, "jobPars": parameters, "outFiles": "z.zip,a.txt"})
    assert set(outputs(dispatcher, again)) == {f"{again}.z.zip", "a.txt"}
    assert dispatcher.get_job()["jobPars"] == parameters.replace("z.zip", f"{again}.z.zip")


def test_only_outputs_may_be_patterns(dispatcher: Dispatcher) -> None:
    for field in ("logFile", "inFiles"):
        with pytest.raises(BadJob, match="cannot be a file name"):
            dispatcher.submit({**RAW, field: "*.root"})
    with pytest.raises(BadJob, match="cannot be a file name"):
        dispatcher.submit({**RAW, "outFiles": "../*.root"})


def test_outputs_of_hyperparameter_points_belong_to_the_output_that_they_number(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit(
        {**RAW, "isHPO": True, "outFiles": "m.tgz", "scopeOut": "user.a", "realDatasets": "ds.a"}
    )
    assert finish(dispatcher, job, "m.tgz_0", "m.tgz_12", "m.tgz_012", "m.tgz_x", "other_1") == "finished"
    assert outputs(dispatcher, job) == {
        "m.tgz": ("matched", "user.a", "ds.a", None),
        "m.tgz_0": ("ready", "user.a", "ds.a", 6),
        "m.tgz_12": ("ready", "user.a", "ds.a", 6),
    }


def test_a_job_that_is_for_no_points_has_no_numbered_outputs(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({**RAW, "outFiles": "m.tgz"})
    assert finish(dispatcher, job, "m.tgz_0") == "failed"
