"""The demo without server and pilots: the physics of its payloads, what it submits, what its checks find."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from server.cli.client import Row
from server.demo import chain, checks
from server.demo.payloads import fit, generate, lineshape
from server.demo.show import moment


def test_the_generated_masses_have_the_peak_and_width_of_the_z() -> None:
    masses = lineshape.draw_masses(np.random.default_rng(1), 400_000)
    counts, edges = np.histogram(masses, 160, (87.0, 95.0))
    above = edges[:-1][counts > counts.max() / 2]
    assert masses.min() >= lineshape.MASS_RANGE[0]
    assert masses.max() <= lineshape.MASS_RANGE[1]
    assert np.median(masses) == pytest.approx(lineshape.Z_MASS, abs=0.05)
    assert above[-1] - above[0] == pytest.approx(lineshape.Z_WIDTH, abs=0.2)


def test_the_decay_angle_follows_one_plus_cosine_squared() -> None:
    cosine = generate.draw_cos_theta(np.random.default_rng(2), 400_000)
    assert np.abs(cosine).max() <= 1.0
    assert cosine.mean() == pytest.approx(0.0, abs=0.005)
    assert (cosine**2).mean() == pytest.approx(0.4, abs=0.005)  # of 3/8 (1 + x²): 2/5


def test_a_decay_conserves_energy_and_momentum() -> None:
    random = np.random.default_rng(3)
    mass = lineshape.draw_masses(random, 10_000)
    z = generate.draw_z(random, mass)
    negative, positive = generate.decay(random, z, mass)
    assert np.allclose(negative + positive, z, rtol=0, atol=1e-8)
    for muon in (negative, positive):
        assert np.allclose(muon[0] ** 2 - (muon[1:] ** 2).sum(axis=0), lineshape.MUON_MASS**2, atol=1e-5)


def test_the_same_seed_gives_the_same_events_and_another_one_others() -> None:
    first, again, other = (generate.generate(1000, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["mu_plus_pt"], other["mu_plus_pt"])
    assert len(first["mu_plus_pt"]) == 1000
    assert first["mu_plus_pt"].min() > generate.MIN_PT
    assert np.abs(first["mu_minus_eta"]).max() < generate.MAX_ETA


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_finds_the_mass_that_was_generated(seed: int) -> None:
    events = generate.generate(50_000, 100 + seed)
    minus, plus = (
        fit.four_momentum(events[f"mu_{sign}_pt"], events[f"mu_{sign}_eta"], events[f"mu_{sign}_phi"])
        for sign in ("minus", "plus")
    )
    total = minus + plus
    edges = np.linspace(*fit.FIT_RANGE, 61)
    counts = np.histogram(np.sqrt(total[0] ** 2 - (total[1:] ** 2).sum(axis=0)), edges)[0].astype(float)
    result = fit.fit(counts, edges)
    assert abs(result.mass - lineshape.Z_MASS) < 4 * result.mass_error
    assert 0.005 < result.mass_error < 0.03
    assert 0.007 < result.resolution < 0.011  # momentum resolution of 1.2 % and more, two muons: divided by √2
    assert result.chi2 < 2 * result.degrees_of_freedom


def test_too_few_events_are_not_fitted() -> None:
    with pytest.raises(ValueError, match="only 3 events"):
        fit.fit(np.array([1.0, 1.0, 1.0]), np.array([76.0, 86.0, 96.0, 106.0]))


def test_the_sandbox_runs_by_itself(tmp_path: Path) -> None:
    """As in a job: unpacked into an empty folder, started with the commands of the job definitions."""
    chain.make_sandbox(tmp_path / "sandbox.tar.gz")
    with tarfile.open(tmp_path / "sandbox.tar.gz") as tar:
        assert all(name.startswith("payloads/") and name.endswith(".py") for name in tar.getnames())
        tar.extractall(tmp_path, filter="data")
    for words in (
        ["generate", "--events", "2000", "a.root"],
        ["generate", "--events", "2000", "--seed", "2", "b.root"],
    ):
        subprocess.run([sys.executable, "-m", f"payloads.{words[0]}", *words[1:]], cwd=tmp_path, check=True, timeout=60)
    subprocess.run([sys.executable, "-m", "payloads.fit", "a.root,b.root"], cwd=tmp_path, check=True, timeout=60)
    result = checks.fit_result(tmp_path / "zmass.json")
    assert checks.fit_problems(result) == []
    assert (tmp_path / "zmass.png").read_bytes().startswith(b"\x89PNG")
    histogram = json.loads((tmp_path / "zmass.json").read_text())["histogram"]
    assert len(histogram["edges"]) == len(histogram["counts"]) + 1


def test_the_last_job_takes_what_the_others_make() -> None:
    *generating, last = chain.job_list("sandbox.tar.gz", 10, 3)
    made = [output["lfn"] for job in generating for output in job["outputs"]]  # type: ignore[union-attr,index,call-overload]
    assert last["inputs"] == made
    assert len(set(made)) == 3


def stored(storage: Path, lfn: str, content: bytes) -> Row:
    """A file in the storage, and how the server has it registered."""
    path = checks.storage_path(storage, "demo", lfn)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {
        "type": "output",
        "scope": "demo",
        "lfn": lfn,
        "surl": f"file://localhost{path}",
        "fsize": len(content),
        "checksum": f"ad:{zlib.adler32(content):08x}",
    }


def test_a_whole_file_in_its_place_is_no_problem(tmp_path: Path) -> None:
    assert checks.file_problems({"files": [stored(tmp_path, "a.root", b"events")]}, tmp_path) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"checksum": "ad:00000001"}, "has checksum"),
        ({"fsize": 5}, "has 6 bytes in storage, 5 were registered"),
        ({"fsize": None}, "bytes in storage"),
        ({"surl": "file://localhost/elsewhere/a.root"}, "is registered at /elsewhere/a.root"),
        ({"lfn": "b.root"}, "b.root is not in the storage"),
    ],
)
def test_a_file_that_is_not_as_registered_is_a_problem(tmp_path: Path, change: Row, said: str) -> None:
    problems = checks.file_problems({"files": [{**stored(tmp_path, "a.root", b"events"), **change}]}, tmp_path)
    assert len(problems) == 1
    assert said in problems[0]


def test_the_layout_is_scope_and_two_bytes_of_the_hash() -> None:
    place = checks.storage_path(Path("/storage"), "demo", "a.root")
    assert place == Path("/storage/demo/6e/96/a.root")  # md5("demo:a.root") begins with 6e96


@pytest.mark.parametrize(
    ("mass", "error", "good"), [(91.2, 0.01, True), (91.3, 0.01, False), (92.0, 10.0, False), (91.1, 0.1, True)]
)
def test_a_fit_must_agree_within_five_deviations_and_half_a_gev(mass: float, error: float, good: bool) -> None:
    problems = checks.fit_problems({"mass": mass, "mass_error": error, "reference_mass": 91.188})
    assert (problems == []) is good


def test_a_failed_job_is_told_with_its_error() -> None:
    error: Row = {"source": "pilot", "code": 1305, "diag": "payload ended with exit code 3"}
    job: Row = {"PandaID": 7, "jobName": "fit", "jobStatus": "failed", "error": error}
    assert checks.job_problems(job) == ["job 7 (fit) is failed: pilot error 1305, payload ended with exit code 3"]
    assert checks.job_problems({**job, "jobStatus": "finished"}) == []


def test_times_are_read_alone_and_wrapped() -> None:
    plain, wrapped = moment("2026-01-02 03:04:05.5"), moment({"__datetime__": "2026-01-02T03:04:05.500000"})
    assert plain is not None
    assert plain == wrapped
    assert moment(None) is None
