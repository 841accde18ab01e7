"""What runs around a payload: whole jobs, through pilot and dispatcher."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pilot.common.errorcodes import ErrorCodes
from tests import pilots
from tests.containers import Container, sandbox
from tests.site import QUEUE, Site, add_site

C = ErrorCodes
# s; those of another run of the tests on this machine sleep for other times.
SLEEP = f"3600.{os.getpid()}"


def step(script: str) -> str:
    """A command around the payload, as servers send it."""
    return json.dumps({"command": "sh", "args": f"-c {shlex.quote(script)}"})


def play(site: Site, rundir: Path, script: str, *options: str, **job: object) -> tuple[dict[str, object], str]:
    """Submit a job whose payload is a shell script, run it, and return what the server knows, and the pilot's log."""
    env = job.pop("env", None)
    (jobid,) = site.submit({"transformation": "sh", "jobPars": f"-c {shlex.quote(script)}", **job})
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", *options, env=env)
    return site.wait_for(jobid), pilot.log()


def ended(job: dict[str, object]) -> tuple[object, object, object]:
    return job["jobStatus"], job["pilotErrorCode"] or 0, job["transExitCode"] or 0


def in_log(site: Site, job: dict[str, object]) -> dict[str, str]:
    """The files in a job's log tarball, by name."""
    (path,) = site.stored(int(str(job["PandaID"])), "log")
    with tarfile.open(path) as archive:
        return {
            Path(member.name).name: archive.extractfile(member).read().decode("utf-8", "replace")  # type: ignore[union-attr]
            for member in archive.getmembers()
            if member.isfile()
        }


def left_over(mark: str) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if mark in (one.info["cmdline"] or [])]


def test_commands_around_a_payload_run_and_what_they_say_is_in_the_log(site: Site, rundir: Path) -> None:
    job, log = play(
        site,
        rundir,
        "while [ ! -e beside ]; do sleep 0.02; done; cat prepared > out.txt",
        preprocess=step("echo made by $PandaID > prepared; echo preparing"),
        coprocess=step(f"touch beside; exec sleep {SLEEP}1"),
        postprocess=step("wc -l < out.txt"),
        outputs=["out.txt"],
    )
    assert ended(job) == ("finished", 0, 0), log
    jobid = int(str(job["PandaID"]))
    assert site.stored(jobid)[0].read_text() == f"made by {jobid}\n"
    files = in_log(site, job)
    assert (files["preprocess_stdout.txt"], files["postprocess_stdout.txt"].strip()) == ("preparing\n", "1")
    assert "coprocess_stdout.txt" in files and not left_over(f"{SLEEP}1")


@pytest.mark.parametrize(
    ("label", "code"), [("preprocess", C.PREPROCESSFAILURE), ("postprocess", C.POSTPROCESSFAILURE)]
)
def test_a_step_that_fails_is_the_jobs_failure_with_its_own_code(
    site: Site, rundir: Path, label: str, code: int
) -> None:
    job, log = play(site, rundir, "true", **{label: step("echo no such model >&2; exit 5")})
    assert ended(job) == ("failed", code, 5), log
    assert f"{label}: exit code 5; its last words: no such model" in str(job["pilotErrorDiag"])
    assert in_log(site, job)[f"{label}_stderr.txt"] == "no such model\n"


@pytest.mark.parametrize("phase", ["preprocess", "payload", "postprocess"])
def test_sigterm_in_any_of_them_ends_all_of_them_and_saves_the_log(site: Site, rundir: Path, phase: str) -> None:
    stay = f"touch here; exec sleep {SLEEP}2"
    job = {"coprocess": step(f"exec sleep {SLEEP}2")}
    job.update({name: step(stay) for name in ("preprocess", "postprocess") if name == phase})
    script = stay if phase == "payload" else "true"
    (jobid,) = site.submit({"transformation": "sh", "jobPars": f"-c {shlex.quote(script)}", **job})
    with pilots.running(site.url, QUEUE, rundir, "-v", "1") as pilot:
        pilots.wait_until(lambda: list(rundir.glob("pilotkit-*/PanDA_Pilot-*/here")), f"{phase} runs")
        began = time.monotonic()
        pilot.signal(signal.SIGTERM)
        pilot.wait()
        took = time.monotonic() - began
    over = site.wait_for(jobid)
    assert over["pilotErrorCode"] == C.SIGTERM
    assert took < 20 and not left_over(f"{SLEEP}2")
    assert site.stored(jobid, "log")[0].exists()


def test_nothing_survives_a_pilot_that_was_killed(site: Site, rundir: Path) -> None:
    stubborn = f"trap '' TERM; touch {{0}}; (setsid sleep {SLEEP}3 &); sleep {SLEEP}3"
    (jobid,) = site.submit(
        {
            "transformation": "sh",
            "jobPars": f"-c {shlex.quote(stubborn.format('one'))}",
            "coprocess": step(stubborn.format("two")),
        }
    )
    with pilots.running(site.url, QUEUE, rundir, "-v", "1") as pilot:
        for name in ("one", "two"):
            pilots.wait_until(lambda n=name: list(rundir.glob(f"pilotkit-*/PanDA_Pilot-*/{n}")), f"{name} runs")
        pilot.signal(signal.SIGKILL)
        pilot.process.wait()
        pilots.wait_until(lambda: not left_over(f"{SLEEP}3"), "all of them are gone")
    # The next pilot on the node tells what became of the job.
    pilots.run(site.url, QUEUE, rundir, "-v", "1")
    assert site.wait_for(jobid)["jobStatus"] == "failed"


def test_hyperparameter_points_are_tried_and_each_output_is_registered(site: Site, rundir: Path) -> None:
    job, log = play(
        site,
        rundir,
        "cp point metrics.tgz",
        preprocess=step("n=$PILOT_EXEC_ITERATION_COUNT; [ $n -lt 2 ] || exit 160; echo $n > point"),
        isHPO="True",
        outputs=["metrics.tgz"],
    )
    assert ended(job) == ("finished", 0, 0), log
    jobid = int(str(job["PandaID"]))
    made = {entry["lfn"]: entry["status"] for entry in site.files(jobid, "output")}
    assert made == {"metrics.tgz": "matched", "metrics.tgz_0": "ready", "metrics.tgz_1": "ready"}
    stored = [path for path in site.stored(jobid) if path.name.startswith("metrics.tgz_")]
    assert sorted(path.read_text() for path in stored) == ["0\n", "1\n"]


def test_a_job_without_a_point_has_no_output_and_finishes(site: Site, rundir: Path) -> None:
    job, log = play(site, rundir, "true", preprocess=step("exit 160"), isHPO="True", outputs=["none.tgz"])
    assert ended(job) == ("finished", 0, 0), log


def test_secrets_reach_the_payload_and_nothing_else(rundir: Path, tmp_path: Path) -> None:
    definition = {
        "transformation": "sh",
        "jobPars": "-c 'wc -c < panda_secrets.json; cp panda_secrets.json ../../seen'",
        "secrets": json.dumps({"KEY": "hunter2-hunter2"}),
        "outFiles": "job.log.tgz,*",
        "logFile": "job.log.tgz",
        "ddmEndPointOut": "LOCAL,LOCAL",
    }
    code, update, log = pilots.run_file(definition, rundir, "--debug", "--cleanup=False", "--output-dir", str(tmp_path))
    assert code == 0, log
    assert json.loads((rundir / "seen").read_text()) == {"KEY": "hunter2-hunter2"}
    assert "hunter2" not in log and "hunter2" not in json.dumps(update)
    assert "panda_secrets" not in str(update.get("xml"))
    kept = [path for path in rundir.rglob("*") if path.is_file() and path.suffix != ".json" and path.name != "seen"]
    assert not [path for path in kept if b"hunter2" in path.read_bytes()]
    for tarball in [*rundir.rglob("job.log.tgz"), *tmp_path.rglob("job.log.tgz")]:
        with tarfile.open(tarball) as archive:
            assert not [name for name in archive.getnames() if "secrets" in name]
    assert not list(rundir.rglob("panda_secrets.json"))


# ---- in a container


@pytest.fixture(scope="module")
def box() -> Iterator[Container]:
    with sandbox() as made:
        yield made


def test_steps_run_in_the_container_of_their_payload(server, box: Container, tmp_path: Path, rundir: Path) -> None:  # type: ignore[no-untyped-def]
    inside = add_site(server.url, tmp_path / "site", timefloor=60, container_type="singularity:pilot")
    where = "pwd; ls /.singularity.d >/dev/null 2>&1; echo $PandaID"
    job, log = play(
        inside,
        rundir,
        "while [ ! -e beside ]; do sleep 0.05; done; touch /tmp/shared; cat prepared > out.txt",
        preprocess=step(f"echo x > prepared; {where}"),
        coprocess=step(f"touch beside; exec sleep {SLEEP}4"),
        postprocess=step(f"[ -e /tmp/shared ] && {where}"),
        outputs=["out.txt"],
        container_name=str(box.image),
        env=box.environ,
    )
    assert ended(job) == ("finished", 0, 0), log
    files = in_log(inside, job)
    seen = f"/srv/workDir\n{job['PandaID']}\n"
    assert (files["preprocess_stdout.txt"], files["postprocess_stdout.txt"]) == (seen, seen)
    assert {"container_script.sh", "preprocess_script.sh", "coprocess_script.sh"} <= files.keys()
    assert not left_over(f"{SLEEP}4")


# ---- an experiment's plugin

EXAMPLE = Path(__file__).parents[3] / "docs" / "example_plugin"


def zoo(rundir: Path, transformation: str, parameters: str, *options: str) -> tuple[int, dict[str, object], str]:
    """Run a job with the plugin of the documentation."""
    rundir.mkdir(exist_ok=True)
    config = rundir / "my.cfg"
    config.write_text(f"[Experiment]\nname = zoo\npath = {EXAMPLE}\n")
    definition = {"transformation": transformation, "jobPars": parameters, "swRelease": "Zoo-1.2"}
    return pilots.run_file(definition, rundir, "--config", str(config), *options)


def test_a_job_runs_with_the_plugin_of_the_documentation(rundir: Path) -> None:
    look = "-c 'echo $ZOO_RELEASE > seen; while [ ! -s clerk_stdout.txt ]; do sleep 0.05; done'"
    code, update, log = zoo(rundir, "sh", look, "--cleanup=False")
    assert (code, update["state"]) == (0, "finished"), log
    (workdir,) = rundir.glob("pilotkit-*/PanDA_Pilot-1")
    assert (workdir / "seen").read_text() == "Zoo-1.2\n"
    assert (workdir / "clerk_stdout.txt").stat().st_size > 0


def test_the_plugin_of_the_documentation_knows_its_exit_codes(rundir: Path) -> None:
    _, update, log = zoo(rundir, "sh", "-c 'exit 42'")
    assert (update["state"], update["pilotErrorCode"], update["transExitCode"]) == ("failed", C.NOLOCALSPACE, 42), log
    assert "there is no food on this node's disk" in str(update["pilotErrorDiag"])


def test_a_plugin_that_is_not_there_is_named_with_those_there_are(rundir: Path) -> None:
    code, _, log = zoo(rundir, "true", "", "--pilot-user", "circus")
    assert code != 0
    assert "there is no experiment plugin 'circus'; there are: generic, zoo" in log


NOTING = """
import importlib
from pilot.common.orders import UTILITY_AFTER_PAYLOAD_STARTED, UTILITY_WITH_STAGEIN

_GENERIC = importlib.import_module("pilot.user.generic." + __name__.rpartition(".")[2])


def _noting(name):
    def hook(*args, **kwargs):
        with open({log!r}, "a") as stream:
            stream.write(__name__.rpartition(".")[2] + "." + name + "\\n")
        if name == "get_utility_commands" and kwargs["order"] in (None, UTILITY_WITH_STAGEIN):
            return {{"command": "sleep", "args": "60", "label": "clerk"}}
        return getattr(_GENERIC, name)(*args, **kwargs)
    return hook


globals().update({{name: _noting(name) for name in {names!r}}})
"""
# Asked only where there is a container, a command of a server, or a proxy.
NOT_HERE = {"container.get_image", "container.wrapper", "common.process_debug_command", "proxy.verify_proxy"}


def test_every_hook_of_the_table_is_asked_in_one_job(rundir: Path, tmp_path: Path) -> None:
    table = re.findall(r"^\| `(\w+)\.(\w+)\(", (EXAMPLE.parent / "plugins.md").read_text(), re.MULTILINE)
    assert len(table) > 30
    log = tmp_path / "asked"
    (tmp_path / "plugins" / "nosy").mkdir(parents=True)
    (tmp_path / "plugins" / "nosy" / "__init__.py").write_text("")
    for module in {module for module, _ in table}:
        text = NOTING.format(log=str(log), names=[name for of, name in table if of == module])
        (tmp_path / "plugins" / "nosy" / f"{module}.py").write_text(text)
    rundir.mkdir()
    (rundir / "in.txt").write_text("x")
    (rundir / "my.cfg").write_text(
        f"[Experiment]\nname = nosy\npath = {tmp_path}/plugins\n"
        "[Payload]\nmemory_check_first = 0.1\nlooping_check = 1\n"
    )
    definition = {
        "transformation": "sh",
        "jobPars": "-c 'sleep 1.5'",
        "isHPO": "True",
        "preprocess": step("[ $PILOT_EXEC_ITERATION_COUNT -lt 1 ] || exit 160"),
        "inFiles": "in.txt",
        "scopeIn": "x",
        "outFiles": "job.log.tgz",
        "logFile": "job.log.tgz",
    }
    code, update, said = pilots.run_file(definition, rundir, "--config", str(rundir / "my.cfg"))
    assert (code, update["state"]) == (0, "finished"), said
    asked = set(log.read_text().split())
    assert asked == {f"{module}.{name}" for module, name in table} - NOT_HERE


def test_a_sandbox_that_cannot_be_had_is_told_from_a_program_that_failed(site: Site, rundir: Path) -> None:
    parameters = f'-j "" --sourceURL {site.url} -r . -a jobO.0.tar.gz -p "true"'
    (jobid,) = site.submit({"transformation": f"{site.url}/trf/user/runGen-00-00-02", "jobPars": parameters})
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1")
    job = site.wait_for(jobid)
    assert ended(job) == ("failed", C.NOUSERTARBALL, 69), pilot.log()
    assert "jobO.0.tar.gz" in str(job["pilotErrorDiag"])


# ---- what is watched


def test_the_memory_of_a_co_process_counts_as_the_jobs(site: Site, rundir: Path, tmp_path: Path) -> None:
    hog = tmp_path / "hog.py"
    hog.write_text(f"import time\nblock = bytearray(b'x') * {300 * 2**20}\ntime.sleep(120)\n")
    (jobid,) = site.submit(
        {
            "transformation": "sleep",
            "jobPars": "120",
            "minRamCount": 200,
            "coprocess": json.dumps({"command": sys.executable, "args": str(hog)}),
        }
    )
    quick = "[Payload]\nmemory_check_first = 0.5\nmemory_check = 1\nmemory_check_near = 0.5\n"
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", settings=quick)
    job = site.wait_for(jobid)
    assert (job["jobStatus"], job["pilotErrorCode"]) == ("failed", C.PAYLOADEXCEEDMAXMEM), pilot.log()


def test_a_busy_utility_does_not_hide_that_its_payload_is_hung(rundir: Path) -> None:
    rundir.mkdir()
    config = rundir / "my.cfg"
    config.write_text(f"[Experiment]\nname = zoo\npath = {EXAMPLE}\n[Payload]\nlooping_check = 1\nlooping_limit = 4\n")
    definition = {"transformation": "sleep", "jobPars": "60"}
    _, update, log = pilots.run_file(definition, rundir, "--config", str(config))
    assert (update["state"], update["pilotErrorCode"]) == ("failed", C.LOOPINGJOB), log
    assert "clerk" in log
