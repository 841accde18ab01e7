"""No file name from outside leaves the directory it is meant for (promise S7): jobs, queues, payloads."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from pilot.common.exception import PilotException
from pilot.control.data import DataController
from pilot.control.jobrun import JobRun
from pilot.control.payloads.proxy import PAYLOAD_PROXY
from pilot.copytool import mv
from pilot.info import infoservice
from pilot.info.filespec import FileSpec
from pilot.info.infoservice import InfoService
from pilot.info.jobdata import JobData
from pilot.info.storagedata import deterministic_path
from tests.unit.pilot.builders import LOG, SETTINGS, context, definition, job_run, storage, transfer, with_inputs

HOSTILE = [
    "..", ".", "../x", "a/../../x", "/etc/passwd", "a/b", "a\\..\\x\0", "a\0b", "x" * 300, "./x", "%2e%2e/x",
    "..%2fx/..", "-rf", ".hidden", "a\nb", "~/x",
]  # fmt: skip


def definitions_with(name: str) -> list[dict[str, object]]:
    """Definitions with a name in each place that becomes a file name or a part of a path."""
    return [
        definition(outFiles=f"{name},job254.log.tgz"),
        definition(outFiles=f"out.txt,{name}", logFile=name),
        definition(scopeOut=name),
        definition(scopeLog=name),
        definition(ddmEndPointOut=f"{name},{name}"),
        definition(PandaID=name),
        with_inputs(1, inFiles=name),
        with_inputs(1, scopeIn=name),
        with_inputs(1, ddmEndPointIn=name),
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_a_job_is_refused_or_stays_where_it_belongs(name: str, tmp_path: Path) -> None:
    inside = str(tmp_path) + os.sep
    refused = 0
    for made in definitions_with(name):
        try:
            job = JobData(made, lfn_limit=SETTINGS.file.lfn_limit)  # type: ignore[arg-type]
        except PilotException:
            refused += 1
            continue
        for spec in (*job.indata, *job.outdata, *job.logdata):
            path = os.path.join(tmp_path, spec.lfn)
            assert os.path.dirname(os.path.normpath(path)) + os.sep == inside, (name, spec.lfn)
            stored = deterministic_path(spec.scope or "s", spec.lfn)
            assert os.path.normpath(os.path.join(tmp_path, stored)).startswith(inside), (name, stored)
        assert (tmp_path / f"PanDA_Pilot-{job.jobid}").parent == tmp_path
    # Log and outputs are names that the pilot makes files of; with none of these does it begin.
    assert refused >= 2


@pytest.mark.parametrize("name", [*HOSTILE, "GOOD_QUEUE"])
def test_the_log_of_any_queue_unpacks_into_one_folder(name: str, tmp_path: Path) -> None:
    shared = context(tmp_path)
    run = job_run(shared.workdir / "PanDA_Pilot-254")
    run.workdir.mkdir()
    (run.workdir / "payload.stdout").write_text("said")
    (run.workdir / "..odd").write_text("a name that only looks like a way out")
    (run.workdir / PAYLOAD_PROXY).write_text("secret")
    run.infosys.queuedata.name = name
    DataController(shared, lambda run, event: None)._make_log(run)
    with tarfile.open(run.workdir / run.data.logdata[0].lfn) as archive:
        names = archive.getnames()
    roots = {member.split("/")[0] for member in names}
    assert len(roots) == 1 and roots.pop().startswith("tarball_PandaJob_254_")
    for member in names:
        assert os.path.normpath(member) == member and not member.startswith(("/", "..")), member
    assert any(member.endswith("payload.stdout") for member in names)
    assert not any(member.endswith(PAYLOAD_PROXY) for member in names)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\0b", "x" * 200, ".."])
def test_what_is_kept_of_a_queue_description_lies_in_the_run_directory(name: str, tmp_path: Path) -> None:
    rundir = tmp_path / "run"
    rundir.mkdir()
    queue = json.dumps({"nickname": "Q", "state": "ACTIVE", "status": "online"}).encode()
    storages = json.dumps({"D": storage(tmp_path)}).encode()
    sources = infoservice.Sources(
        settings=SETTINGS.information, server="http://127.0.0.1:1", queue=name, queue_address="http://127.0.0.1:1/q",
        storage_address="", override="", cache_dir=rundir,
        fetch=lambda address: queue if address.endswith("/q") else storages, log=LOG.info,
    )  # fmt: skip
    infoservice.load(sources)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len(list(rundir.iterdir())) == 2


# ---- links that a payload has left in its directory


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    made = tmp_path / "outside"
    made.write_text("not the job's")
    return made


def test_an_input_replaces_a_link_of_its_name_and_not_what_it_leads_to(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "store").write_text("input")
    (tmp_path / "work" / "in.root").symlink_to(outside)
    mv.copy_in([FileSpec("in.root", surl=str(tmp_path / "store"))], transfer(tmp_path / "work"))
    assert (tmp_path / "work" / "in.root").read_text() == "input"
    assert outside.read_text() == "not the job's"


@pytest.mark.parametrize("link", ["job254.log.tgz", ".job254.log.tgz.part"])
def test_the_log_is_not_written_through_a_link(tmp_path: Path, outside: Path, link: str) -> None:
    shared = context(tmp_path / "p")
    run = JobRun(JobData(definition(outFiles="out.txt,job254.log.tgz", logFile="job254.log.tgz")),
                 shared.workdir / "PanDA_Pilot-254", InfoService.build({"nickname": "Q"}, {"D": storage(tmp_path)}),
                 1800.0)  # fmt: skip
    run.workdir.mkdir()
    (run.workdir / link).symlink_to(outside)
    DataController(shared, lambda run, event: None)._make_log(run)
    assert outside.read_text() == "not the job's"
    assert tarfile.is_tarfile(run.workdir / "job254.log.tgz") and not (run.workdir / "job254.log.tgz").is_symlink()
