"""What batch systems, machines and jobs say about the end of a slot; the outputs lie in tests/golden/batch."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pilot.util.batchlimits import end_from_condor, end_from_environment, end_from_output, is_preempted, query
from pilot.util.features import read_features

GOLDEN = Path(__file__).parents[2] / "golden" / "batch"
NOW, STARTED = 1795235400.0, 1795235000.0


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node on which scontrol was recorded."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize(
    ("system", "name", "end"),
    [
        # EndTime=2026-11-21T04:28:45
        ("Slurm", "slurm_limited.txt", 1795235325.0),
        ("Slurm", "slurm_unlimited.txt", None),
        # 48 h less the 10 min that are used
        ("PBS", "pbs_pro.txt", NOW + 48 * 3600 - 600),
        ("PBS", "pbs_torque.txt", NOW + 3540),
        # s_rt comes before h_rt; counted from the pilot's start
        ("SGE", "sge.txt", STARTED + 3300),
        ("SGE", "uge.txt", NOW - 600 + 3600),
        ("LSF", "lsf.txt", NOW + 9000),
        ("LSF", "lsf_estimate.txt", None),
    ],
)
def test_an_output_gives_the_end_of_the_slot(system: str, name: str, end: float | None) -> None:
    assert end_from_output(system, (GOLDEN / name).read_text(), NOW, STARTED) == end


@pytest.mark.parametrize(
    ("system", "output", "wanted"),
    [
        ("Slurm", (GOLDEN / "slurm_preempted.txt").read_text(), True),
        ("Slurm", "JobState=PREEMPTED Reason=None", True),
        ("Slurm", (GOLDEN / "slurm_limited.txt").read_text(), False),
        ("Slurm", "PreemptEligibleTime=2026-11-21T07:06:22 PreemptTime=None", False),
        ("Slurm", "", False),
        ("PBS", "PreemptTime=2026-11-21T07:06:24", False),
    ],
)
def test_a_job_that_has_to_go_for_another_is_known_where_that_is_told(system: str, output: str, wanted: bool) -> None:
    assert is_preempted(system, output) is wanted


@pytest.mark.parametrize("system", ["Slurm", "PBS", "SGE", "LSF", "HTCondor", "none of them"])
@pytest.mark.parametrize(
    "output",
    [
        "",
        "slurm_load_jobs error: Invalid job id specified",
        "EndTime=soon TimeLimit=1-00:00:00",
        "EndTime=2027-11-21T04:25:46 TimeLimit=UNLIMITED",
        "EndTime=99999-01-01T00:00:00 TimeLimit=1",
        "    Resource_List.walltime = never\n    Walltime.Remaining = -\n",
        "hard resource_list:         h_rt=INFINITY,s_rt=a:b\n",
        "hard resource_list:         h_rt=1:2:3:4:5\n",
        "- \n",
        "\0" * 100,
    ],
)
def test_an_output_without_a_limit_gives_none(system: str, output: str) -> None:
    assert end_from_output(system, output, NOW, STARTED) is None


def test_the_command_is_a_list_with_the_jobs_number_in_one_piece() -> None:
    assert query("Slurm", "1; rm -rf /") == ["scontrol", "show", "job", "1; rm -rf /"]
    assert query("HTCondor", "1") == [] and query("", "") == []


@pytest.mark.parametrize(
    ("environ", "end"),
    [
        ({}, None),
        ({"SLURM_JOB_END_TIME": "1795240000"}, 1795240000.0),
        ({"SLURM_JOB_END_TIME": "later"}, None),
        ({"PBS_WALLTIME": "3600"}, STARTED + 3600),
    ],
)
def test_some_systems_tell_it_in_variables(environ: dict[str, str], end: float | None) -> None:
    assert end_from_environment(environ, STARTED) == end


def test_htcondor_tells_it_in_the_descriptions_of_job_and_machine(tmp_path: Path) -> None:
    job, machine = str(GOLDEN / "condor_job.ad"), str(GOLDEN / "condor_machine.ad")
    # AllowedExecuteDuration from the start of execution is the earliest.
    assert end_from_condor({"_CONDOR_JOB_AD": job, "_CONDOR_MACHINE_AD": machine}) == 1795235010 + 7000
    assert end_from_condor({"_CONDOR_MACHINE_AD": machine}) == 1795300000
    assert end_from_condor({"_CONDOR_JOB_AD": str(tmp_path / "gone")}) is None
    assert end_from_condor({}) is None


def test_a_limit_in_minutes_of_a_compute_element_counts_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "job.ad").write_text("ShadowBday = 1000\nMAXWALLTIME = 60\nAllowedJobDuration = 9 * 9\n")
    assert end_from_condor({"_CONDOR_JOB_AD": str(tmp_path / "job.ad")}) == 1000 + 3600


# ---- machine and job features


def features(folder: Path, **values: str) -> dict[str, str]:
    """Both directories, and the environment that names them."""
    for kind in ("machine", "job"):
        (folder / kind).mkdir()
    for name, value in values.items():
        kind, _, feature = name.partition("__")
        (folder / kind / feature).write_text(value)
    return {"MACHINEFEATURES": str(folder / "machine"), "JOBFEATURES": str(folder / "job")}


def test_features_are_files_with_one_value_each(tmp_path: Path) -> None:
    environ = features(
        tmp_path,
        machine__hs06="80.5\n",
        machine__shutdowntime="1795300000",
        job__wall_limit_secs="3600",
        job__jobstart_secs="1795234000",
        job__shutdowntime_job="1795290000\n",
        job__other="7",
    )
    found = read_features(environ)
    assert found.machine["hs06"] == 80.5
    assert found.ends(STARTED) == {
        "machine feature shutdowntime": 1795300000.0,
        "job feature shutdowntime_job": 1795290000.0,
        "job feature wall_limit_secs": 1795234000.0 + 3600,
    }


def test_a_wall_limit_without_a_start_counts_from_the_pilots(tmp_path: Path) -> None:
    assert read_features(features(tmp_path, job__wall_limit_secs="60")).ends(STARTED) == {
        "job feature wall_limit_secs": STARTED + 60
    }


@pytest.mark.parametrize("value", ["", "soon", "-5", "0"])
def test_a_feature_that_makes_no_sense_is_none(tmp_path: Path, value: str) -> None:
    assert read_features(features(tmp_path, machine__shutdowntime=value)).ends(STARTED) == {}


@pytest.mark.parametrize("environ", [{}, {"JOBFEATURES": "http://site/features"}, {"MACHINEFEATURES": "/no/such"}])
def test_a_site_without_features_tells_nothing(environ: dict[str, str]) -> None:
    assert read_features(environ).ends(STARTED) == {}
