"""Facts about the node: its name, its processors, its batch system."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pilot.util.workernode import collect, get_node_name, local_space

HOST = socket.gethostname()


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, HOST),
        ({"_CONDOR_SLOT": "slot1_2"}, f"slot1_2@{HOST}"),
        ({"_CONDOR_SLOT": "", "PANDA_HOSTNAME": "wn7"}, "wn7"),
        ({"_CONDOR_SLOT": "slot1", "PANDA_HOSTNAME": "wn7"}, "slot1@wn7"),
        ({"_CONDOR_SLOT": "slot1", "PANDA_HOSTNAME": "slot9@wn7"}, "slot9@wn7"),
    ],
)
def test_a_node_is_named_with_its_slot(environ: dict[str, str], wanted: str) -> None:
    assert get_node_name(environ) == wanted


@pytest.mark.parametrize(
    ("environ", "system", "batch_id"),
    [
        ({}, "", ""),
        ({"SLURM_JOB_ID": "17"}, "Slurm", "17"),
        ({"LSB_JOBID": "18"}, "LSF", "18"),
        ({"PBS_JOBID": "19.server"}, "PBS", "19.server"),
        ({"JOB_ID": "20"}, "SGE", "20"),
        ({"SLURM_JOB_ID": "17", "JOB_ID": "20"}, "Slurm", "17"),
        ({"SLURM_JOB_ID": ""}, "", ""),
    ],
)
def test_a_batch_system_is_known_by_its_variable(environ: dict[str, str], system: str, batch_id: str) -> None:
    facts = collect(environ)
    assert (facts.batch_system, facts.batch_id) == (system, batch_id)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('ClusterId = 5\nGlobalJobId = "ce1#5.0#1795"\n', "ce1#5.0#1795"),
        ("ClusterId = 5\n", ""),
        ("\xff\n", ""),
        (None, ""),
    ],
)
def test_htcondors_job_id_is_in_its_job_description(tmp_path: Path, text: str | None, wanted: str) -> None:
    if text is not None:
        (tmp_path / "ad").write_bytes(text.encode("latin-1"))
    facts = collect({"_CONDOR_JOB_AD": str(tmp_path / "ad")})
    assert (facts.batch_system, facts.batch_id) == ("HTCondor", wanted)


def test_the_facts_of_this_node_make_sense() -> None:
    facts = collect({})
    assert facts.cores == len(os.sched_getaffinity(0)) >= 1
    assert 100 < facts.memory < 100_000_000
    assert facts.cpu_mhz >= 0 and facts.system.startswith("Linux")
    assert facts.name == HOST


def test_free_space_is_that_for_this_user_and_none_where_there_is_no_disk(tmp_path: Path) -> None:
    assert 0 < local_space(tmp_path) <= os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize * 2
    assert local_space(tmp_path / "none") == 0
