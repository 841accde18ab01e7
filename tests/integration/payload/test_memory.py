"""Memory of real payloads under real pilots (promise U2): what counts, what is allowed, and who has killed."""

from __future__ import annotations

import json
import tarfile
import time
from pathlib import Path

import pytest

from tests import pilots
from tests.integration.payload.conftest import Submit, settings
from tests.site import QUEUE, Site

ONCE = ("-v", "1")
# Measured every 0.4 s; three in a row decide.
QUICK = settings(memory_check_first=0.2, memory_check=0.4, memory_check_near=0.2, memory_samples=3)
LIMIT = 80  # MB


def members(log: Path) -> dict[str, str]:
    """The files of a log tarball."""
    with tarfile.open(log) as archive:
        return {
            Path(member.name).name: archive.extractfile(member).read().decode("utf-8", "replace")  # type: ignore[union-attr]
            for member in archive.getmembers()
            if member.isfile()
        }


def test_a_payload_that_reads_and_maps_four_times_its_limit_of_file_data_lives(
    site: Site, rundir: Path, submit: Submit, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    program = f"""
        import mmap, time
        with open({str(big)!r}, "wb") as out:
            for _ in range({4 * LIMIT}):
                out.write(bytes(range(256)) * 4096)
        data = open({str(big)!r}, "rb")
        while data.read(1 << 20):
            pass
        view = mmap.mmap(data.fileno(), 0, prot=mmap.PROT_READ)
        touched = sum(view[at] for at in range(0, len(view), 4096))
        time.sleep(2.5)
    """
    jobid = submit(program, minRamCount=LIMIT)
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, settings=QUICK)
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    # It was looked at while it had all of it mapped: PSS with pages of files is far over the limit.
    assert int(str(job["maxPSS"])) > 3 * LIMIT * 1024


def test_a_payload_ten_percent_over_its_limit_is_ended_with_the_samples_as_evidence(
    site: Site, rundir: Path, submit: Submit
) -> None:
    program = f"""
        import time
        time.sleep(0.5)
        block = bytearray(b"x") * {LIMIT * 11 // 10 * 2**20}
        time.sleep(60)
    """
    jobid = submit(program, minRamCount=LIMIT)
    begun = time.monotonic()
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, settings=QUICK)
    job = site.wait_for(jobid, "failed")
    assert job["pilotErrorCode"] == 1235, pilot.log()
    # With these settings 0.4 + 3 * 0.2 s after it went over; the bound is for a busy machine.
    assert time.monotonic() - begun < 30
    said = str(job["pilotErrorDiag"])
    assert f"{LIMIT} MB are allowed (minRamCount of the job)" in said
    assert "over it 3 time(s) in a row" in said and "largest: python3" in said
    log = members(site.stored(jobid, "log")[0])
    assert "memory samples: " in log["pilotlog.txt"]
    table = log["memory_monitor_output.txt"].splitlines()
    assert table[0].split("\t")[:5] == ["Time", "nprocs", "nthreads", "pss", "rss"]
    assert len(table) >= 4
    assert json.loads(log["memory_monitor_summary.json"])["Max"]["maxPSS"] > LIMIT * 1024


def test_workers_that_share_memory_are_not_counted_over_and_over(site: Site, rundir: Path, submit: Submit) -> None:
    program = f"""
        import os, time
        block = bytearray(b"x") * {LIMIT * 6 // 10 * 2**20}
        for _ in range(16):
            if os.fork() == 0:
                time.sleep(3)
                os._exit(0)
        time.sleep(3)
    """
    jobid = submit(program, minRamCount=2 * LIMIT)
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, settings=QUICK)
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    assert int(str(job["maxRSS"])) > 8 * LIMIT * 1024 > 2 * LIMIT * 1024 > int(str(job["maxPSS"]))
    assert job["metrics"]["maxNumProc"] >= 17  # type: ignore[index]


def test_a_short_peak_is_no_reason_to_end_a_job(site: Site, rundir: Path, submit: Submit) -> None:
    program = f"""
        import time
        for _ in range(3):
            block = bytearray(b"x") * {2 * LIMIT * 2**20}
            time.sleep(0.5)
            del block
            time.sleep(0.7)
    """
    jobid = submit(program, minRamCount=LIMIT)
    patient = settings(memory_check_first=0.2, memory_check=0.2, memory_check_near=0.2, memory_samples=12)
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, settings=patient)
    assert site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()


def test_in_shadow_mode_a_payload_over_its_limits_lives_and_the_report_names_the_rule(
    site: Site, rundir: Path, submit: Submit
) -> None:
    program = f"""
        import time
        block = bytearray(b"x") * {2 * LIMIT * 2**20}
        time.sleep(6)
    """
    jobid = submit(program, minRamCount=LIMIT)
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, "--shadow", settings=QUICK)
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    assert pilot.log().count("shadow mode: it would be ended now: 1235 PAYLOADEXCEEDMAXMEM") == 1
    assert job["metrics"]["exceeded"] == 1235  # type: ignore[index]


def test_a_payload_that_the_kernel_kills_for_memory_has_run_out_of_memory(
    site: Site, rundir: Path, submit: Submit, memory_group: Path
) -> None:
    (memory_group / "memory.limit_in_bytes").write_text(str(150 * 2**20))
    jobid = submit("""
        import time
        time.sleep(0.5)
        block = bytearray(b"x") * (400 * 2**20)
    """)
    with pilots.running(site.url, QUEUE, rundir, *ONCE, settings=QUICK) as pilot:
        # The pilot is in the slot's group before it has started anything.
        (memory_group / "cgroup.procs").write_text(str(pilot.pid))
        job = site.wait_for(jobid, "failed")
        pilot.wait()
    assert (job["pilotErrorCode"], job["transExitCode"]) == (1212, 137), pilot.log()
    assert "1 process(es) killed for memory in control group" in str(job["pilotErrorDiag"])
    assert "which may hold 150 MB" in str(job["pilotErrorDiag"])
    assert job["error"]["blame"] == "payload"  # type: ignore[index]


def test_a_worker_that_is_killed_by_somebody_is_not_blamed_on_memory(site: Site, rundir: Path, submit: Submit) -> None:
    jobid = submit("import os; os.kill(os.getpid(), 9)")
    pilots.run(site.url, QUEUE, rundir, *ONCE, settings=QUICK)
    job = site.wait_for(jobid, "failed")
    assert (job["pilotErrorCode"], job["transExitCode"]) == (1305, 137)


_PRMON = """#!/bin/sh
# Stands in for prmon, which no package repository has: same options, same files, other figures than the pilot's own.
while [ $# -gt 0 ]; do
  case $1 in
    --pid) pid=$2;; --filename) table=$2;; --json-summary) summary=$2;; --interval) every=$2;;
  esac
  shift 2
done
printf 'Time\\tnprocs\\tpss\\tswap\\n%s\\t1\\t4242\\t0\\n' "$(date +%s)" > "$table"
trap 'printf "{\\"Max\\": {\\"pss\\": 4242, \\"rss\\": 4343}, \\"Avg\\": {\\"pss\\": 4141}}" > "$summary"; exit 0' TERM
kill -0 "$pid" && while :; do sleep 0.1; done
"""


def test_a_sites_own_prmon_is_used_when_it_is_on_the_path(
    site: Site, rundir: Path, submit: Submit, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    prmon = tmp_path / "bin" / "prmon"
    prmon.write_text(_PRMON)
    prmon.chmod(0o755)
    jobid = submit("import time; time.sleep(2)")
    path = f"{prmon.parent}:{pilots.environment()['PATH']}"
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, settings=QUICK, env={"PATH": path})
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    assert (job["maxPSS"], job["maxRSS"], job["avgPSS"]) == (4242, 4343, 4141), pilot.log()
    assert "4242" in members(site.stored(jobid, "log")[0])["memory_monitor_output.txt"]
    assert "monitor=prmon" in pilot.log()


def test_a_leak_is_fitted_and_reported(site: Site, rundir: Path, submit: Submit) -> None:
    jobid = submit("""
        import time
        kept, begun = [], time.monotonic()
        while (elapsed := time.monotonic() - begun) < 7:
            while len(kept) < 10 * elapsed:
                kept.append(bytearray(b"x") * 1_000_000)
            time.sleep(0.1)
    """)
    pilots.run(site.url, QUEUE, rundir, *ONCE, settings=QUICK)
    job = site.wait_for(jobid, "finished")
    # About 10 MB a second, measured with a clock of whole seconds.
    assert float(job["metrics"]["leak"]) == pytest.approx(10_000, rel=0.6)  # type: ignore[index]
    assert float(job["metrics"]["chi2"]) >= 0  # type: ignore[index]
