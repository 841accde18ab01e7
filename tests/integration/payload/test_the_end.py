"""What is left of a payload when it has ended: its words, its report, its core dumps, its log (promise U7)."""

from __future__ import annotations

import json
import resource
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pilot.control.cores import kernel_pattern
from tests import pilots
from tests.integration.payload.conftest import Submit, settings
from tests.site import QUEUE, Site

ONCE = ("-v", "1")


def members(log: Path) -> dict[str, bytes]:
    """The files of a log tarball by name."""
    with tarfile.open(log) as archive:
        return {
            member.name.partition("/")[2]: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive.getmembers()
            if member.isfile()
        }


def text_of(site: Site, jobid: int, kind: str) -> str:
    """What the server keeps of a job's long texts."""
    texts = site.job(jobid)["texts"]
    assert isinstance(texts, list)
    return next((str(one["text"]) for one in texts if one["kind"] == kind), "")


def play(site: Site, rundir: Path, jobid: int, **values: object) -> tuple[dict[str, object], pilots.Pilot]:
    """Run one pilot; the job when it is over."""
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, settings=settings(**values))
    return site.wait_for(jobid), pilot


def test_the_last_64_kib_of_stdout_come_with_the_final_update(site: Site, rundir: Path, submit: Submit) -> None:
    jobid = submit("""
        for number in range(20_000):
            print(f"event {number}")
        print("the end")
    """)
    job, pilot = play(site, rundir, jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    said = text_of(site, jobid, "stdout")
    assert said.endswith("event 19999\nthe end\n") and 65_000 < len(said) <= 65_536


def test_a_line_of_ten_megabytes_and_nul_bytes_are_no_hindrance(site: Site, rundir: Path, submit: Submit) -> None:
    jobid = submit(r"""
        import os, sys
        os.write(1, b"x" * 10_000_000 + b"\0\0\xff\xfe\n")
        os.write(2, b"y" * 10_000_000 + b"\0" * 1000)
        sys.exit(3)
    """)
    job, pilot = play(site, rundir, jobid)
    assert (job["jobStatus"], job["transExitCode"]) == ("failed", 3), pilot.log()
    log = members(site.stored(jobid, "log")[0])
    assert log["payload.stdout"] == b"x" * 10_000_000 + b"\0\0\xff\xfe\n"
    assert len(log["payload.stderr"]) == 10_001_000
    assert 60_000 < len(text_of(site, jobid, "stdout")) <= 65_536


def test_gigabytes_of_output_cost_the_pilot_no_memory(site: Site, rundir: Path, submit: Submit) -> None:
    # 5 GB (as a file with holes, which reads like any other) and another one that is written for real.
    jobid = submit("""
        import os
        block = b"event 1 of run 2 is processed\\n" * 35_000
        for _ in range(300):
            os.write(1, block)
        os.truncate(1, 5 * 10**9)
        os.lseek(1, 0, os.SEEK_END)
        os.write(1, b"the end\\n")
    """)
    largest = 0

    def is_over() -> bool:
        nonlocal largest
        with suppress(psutil.NoSuchProcess):
            largest = max(largest, psutil.Process(pilot.pid).memory_info().rss)
        return pilot.process.poll() is not None

    with pilots.running(site.url, QUEUE, rundir, *ONCE, settings=settings(stdout_limit=10**7)) as pilot:
        pilots.wait_until(is_over, "the end of the pilot", pilots.LIMIT)
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    assert 0 < largest < 150 * 2**20
    assert text_of(site, jobid, "stdout").endswith("the end\n")
    with tarfile.open(site.stored(jobid, "log")[0]) as archive:
        (output,) = [one for one in archive.getmembers() if one.name.endswith("/payload.stdout")]
        assert output.size < 105 * 10**6
        (listed,) = [one for one in archive.getmembers() if one.name.endswith("/pilot_left_out.txt")]
        assert b"payload.stdout: only its first and last 52428800 bytes" in archive.extractfile(listed).read()  # type: ignore[union-attr]


def test_the_log_arrives_whatever_the_payload_has_done_to_its_directory(
    site: Site, rundir: Path, submit: Submit
) -> None:
    (jobid,) = site.submit(
        {"command": "rm -rf $PWD/* $PWD/.[a-z]*; mkdir a; mkfifo a/p; ln -s /etc/passwd a/l; chmod 0 a .; exit 4"}
    )
    job, pilot = play(site, rundir, jobid)
    assert (job["jobStatus"], job["transExitCode"]) == ("failed", 4), pilot.log()
    log = members(site.stored(jobid, "log")[0])
    assert b"payload ended with exit code 4" in log["pilotlog.txt"]
    assert "a/l" not in log and b"a/p: a socket, pipe or device\n" in log["pilot_left_out.txt"]


def test_the_metrics_of_a_job_have_what_its_report_says(site: Site, rundir: Path, submit: Submit) -> None:
    report = {
        "exitCode": 0,
        "resource": {"executor": {"step": {"nevents": 90, "dbTime": 2.5, "dbData": 77}}},
        "files": {"output": [{"subFiles": [{"name": "x", "nentries": 30}]}]},
    }
    jobid = submit(f"""
        import json
        json.dump({report!r}, open("jobReport.json", "w"))
        json.dump({{"loss": 0.25}}, open("userJobMetadata.json", "w"))
        open("x", "w").write("events")
    """)
    job, pilot = play(site, rundir, jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    metrics = job["metrics"]
    assert isinstance(metrics, dict)
    assert {name: metrics[name] for name in ("nEvents", "nEventsW", "dbTime", "dbData", "coreCount")} == {
        "nEvents": 90, "nEventsW": 30, "dbTime": 2, "dbData": 77, "coreCount": 1,
    }  # fmt: skip
    sent = json.loads(text_of(site, jobid, "metaData"))
    assert sent["userJobMetadata"] == {"loss": 0.25} and sent["exitCode"] == 0, pilot.log()


@pytest.mark.parametrize("policy", ["keep", "drop"])
def test_a_core_dump_of_a_real_program_is_kept_or_dropped_and_told_of(
    site: Site, rundir: Path, submit: Submit, policy: str
) -> None:
    if kernel_pattern() == "" or resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip(
            "this node makes no core dumps in a process's own directory: its core_pattern or limit is against it"
        )
    jobid = submit("""
        import ctypes, resource
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        ctypes.string_at(0)
    """)
    job, pilot = play(site, rundir, jobid, core_dumps=policy)
    assert (job["pilotErrorCode"], job["transExitCode"]) == (1328, 139), pilot.log()
    log = members(site.stored(jobid, "log")[0])
    assert len([name for name in log if log[name][:4] == b"\x7fELF"]) == (1 if policy == "keep" else 0)
    assert ("is in the log" if policy == "keep" else "was removed") in str(job["pilotErrorDiag"])


_BREAKER = """#!{python}
import runpy, sys
sys.path.insert(0, {root!r})
from pilot.control.{module} import {controller}

def fail(self, *_, **__):
    raise ValueError("the token is " + open({token!r}).read())

{controller}.{method} = fail
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "controller", "method", "thread"),
    [
        ("data", "DataController", "_stage_in", "stage-in"),
        ("payload", "PayloadController", "_execute", "payload"),
        ("payloads.play", "Play", "_log_end", "payload"),
        ("payloads.play", "Play", "_ended", "payload"),
        ("payload", "PayloadController", "_finish_memory_files", "payload"),
        ("data", "DataController", "_stage_out", "stage-out"),
        ("monitor", "Monitor", "_look_at", "monitor"),
    ],
)
def test_a_fault_of_the_pilot_is_reported_with_the_log_and_without_secrets(
    site: Site, rundir: Path, submit: Submit, tmp_path: Path, module: str, controller: str, method: str, thread: str
) -> None:
    token, breaker = tmp_path / "token", tmp_path / "breaker"
    token.write_text("c4na7y-c4na7y-c4na7y")
    where = {"python": sys.executable, "root": str(pilots.ROOT), "token": str(token)}
    breaker.write_text(_BREAKER.format(**where, module=module, controller=controller, method=method))
    breaker.chmod(0o755)
    jobid = submit(f"import time; print('begun', flush=True); time.sleep({20 if thread == 'monitor' else 0.2})")
    env = {"PANDA_AUTH_TOKEN": str(token), "PANDA_AUTH_ORIGIN": "vo"}
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, env=env, python=str(breaker), settings="")
    job = site.wait_for(jobid)
    assert (job["jobStatus"], job["pilotErrorCode"]) == ("failed", 1319), pilot.log()
    assert f"thread {thread} died" in str(job["pilotErrorDiag"])
    assert "ValueError: the token is ***" in pilot.log() and "c4na7y" not in pilot.log() + json.dumps(job, default=str)
    assert b"ValueError: the token is ***" in members(site.stored(jobid, "log")[0])["pilotlog.txt"]
