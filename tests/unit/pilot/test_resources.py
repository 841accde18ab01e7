"""Hooks of particular machines."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pilot.common.exception import FileHandlingFailure
from pilot.info.jobdata import JobData
from pilot.resource import alcf, bnl, generic, nersc, summit, titan
from pilot.resource.named import check_resource, setup_commands
from tests.unit.pilot.builders import definition, with_inputs


def test_a_machine_without_hooks_is_refused_with_those_that_have_some() -> None:
    with pytest.raises(ValueError, match="there are for: alcf, bnl, generic, nersc, summit, titan"):
        check_resource("nosuch")
    for name in ("", "generic", "titan"):
        check_resource(name)


def test_machines_need_nothing_before_a_payload() -> None:
    job = JobData(definition())
    for module in (alcf, bnl, generic, nersc, summit, titan):
        assert module.get_setup() == module.get_setup(job) == []
    assert setup_commands("", job) == setup_commands("summit", job) == []


def test_a_sites_own_commands_come_before_the_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generic, "get_setup", lambda job=None: ["module load root", f"export JOB={job.jobid}"])
    assert setup_commands("generic", JobData(definition())) == ["module load root", "export JOB=254"]


def test_a_command_is_one_line_with_paths_on_the_ram_disk(tmp_path: Path) -> None:
    (tmp_path / "a.root").touch()
    fixed = titan.command_fix("run.py\n --in a.root  --out b.root", str(tmp_path))
    assert fixed == f"run.py --in {tmp_path}/a.root --out b.root"


def test_each_process_of_a_parallel_program_has_its_own_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pandaJobData.out"
    path.write_text(json.dumps({str(n): definition(PandaID=n) for n in (11, 12)}))
    for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "ALPS_APP_PE", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    job, rank = titan.get_job(str(path))
    assert (job.jobid, rank) == ("11", 0)
    monkeypatch.setenv("PMI_RANK", "1")
    job, rank = titan.get_job(str(path))
    assert (job.jobid, rank, titan.set_job_workdir(job, "/access")) == ("12", 1, "/access/12")
    monkeypatch.setenv("PMI_RANK", "2")
    with pytest.raises(FileHandlingFailure, match="has 2 jobs, none for rank 2"):
        titan.get_job(str(path))


def test_inputs_are_copied_to_the_ram_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ram = tmp_path / "ram"
    ram.mkdir()
    monkeypatch.setattr(titan, "RAM_DISK", ram)
    job = JobData(with_inputs(2))
    for number in range(2):
        (tmp_path / f"in{number}.root").write_text(str(number))
    times: dict[str, float] = {}
    scratch = titan.set_scratch_workdir(job, str(tmp_path), times)
    assert sorted(os.listdir(scratch)) == ["in0.root", "in1.root"]
    assert times["scratch"] >= 0
    with pytest.raises(FileHandlingFailure, match="cannot be filled"):
        titan.set_scratch_workdir(job, str(tmp_path), times)


def test_a_job_report_comes_back_without_what_makes_it_long(tmp_path: Path) -> None:
    scratch, access = tmp_path / "scratch", tmp_path / "access"
    for folder in (scratch, access):
        folder.mkdir()
    report = {"exitCode": 0, "executor": [{"name": "a", "logfileReport": {"x": 1}}, 5]}
    (scratch / "jobReport.json").write_text(json.dumps(report))
    titan.process_jobreport("jobReport.json", str(scratch), str(access))
    assert json.loads((access / "jobReport.json").read_text()) == {"exitCode": 0, "executor": [{"name": "a"}, 5]}
    with pytest.raises(FileHandlingFailure):
        titan.process_jobreport("nosuch.json", str(scratch), str(access))


def test_links_are_removed_from_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    titan.postprocess_workdir(str(tmp_path))
    assert os.listdir(tmp_path) == ["file"]
