"""Whole jobs whose outputs are more than a list of names: archives, patterns, what a job report tells."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import pilots
from tests.site import DISK, QUEUE, Site

ONCE = ("-v", "1")
GUID = "FF9D1334-9992-48F8-8E35-ED5756F9DD66"


def play(site: Site, rundir: Path, script: str, **job: object) -> tuple[int, dict[str, object], str]:
    """Run a job whose payload is a script of the shell, as a pilot of the field gets it; PandaID, job, pilot's log."""
    (jobid,) = site.submit({"transformation": "bash", "jobPars": f"-c '{script}'", **job})
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE)
    return jobid, site.wait_for(jobid), pilot.log()


def in_storage(site: Site, jobid: int) -> dict[str, Path]:
    """Output files that are really there, by LFN."""
    files = [file for file in site.files(jobid, "output") if file["status"] == "ready"]
    places = {str(file["lfn"]): Path(str(file["surl"]).replace("file://localhost", "")) for file in files}
    assert all(path.is_file() for path in places.values())
    return places


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_members_are_packed_into_the_archive_that_goes_to_storage_and_nothing_else_does(
    site: Site, rundir: Path, suffix: str
) -> None:
    name = f"packed.{suffix}"
    parameters = f"-c 'echo a > a.txt; echo 1 > h.1.root; echo 2 > h.2.root' '<ZIP_MAP>{name}:a.txt,h.*.root</ZIP_MAP>'"
    jobid, job, log = play(site, rundir, "", jobPars=parameters, outFiles=f"{name},a.txt")
    assert job["jobStatus"] == "finished", log
    stored = in_storage(site, jobid)
    assert list(stored) == [name]
    if suffix == "zip":
        with zipfile.ZipFile(stored[name]) as archive:
            found = {member: archive.read(member) for member in archive.namelist()}
    else:
        with tarfile.open(stored[name], "r:") as packed:
            found = {member.name: packed.extractfile(member).read() for member in packed}  # type: ignore[union-attr]
    assert found == {"a.txt": b"a\n", "h.1.root": b"1\n", "h.2.root": b"2\n"}
    # Nor do they go with the log.
    with tarfile.open(site.stored(jobid, "log")[0]) as tarball:
        assert not {"a.txt", "h.1.root", "h.2.root"} & {Path(one).name for one in tarball.getnames()}
    assert {str(file["lfn"]): file["status"] for file in site.files(jobid, "output")}["a.txt"] == "packed"


def test_a_member_that_the_payload_has_not_made_is_named(site: Site, rundir: Path) -> None:
    parameters = "-c 'echo a > a.txt' '<ZIP_MAP>lost.zip:a.txt,b.txt</ZIP_MAP>'"
    jobid, job, _ = play(site, rundir, "", jobPars=parameters, outFiles="lost.zip")
    assert (job["jobStatus"], job["pilotErrorCode"]) == ("failed", 1165)
    assert "not made b.txt, which belongs into lost.zip" in str(job["pilotErrorDiag"])
    assert in_storage(site, jobid) == {}


def test_an_archive_that_is_no_output_is_refused_before_the_payload_runs(site: Site, rundir: Path) -> None:
    parameters = "-c 'echo ran' '<ZIP_MAP>none.zip:a.txt</ZIP_MAP>'"
    _, job, log = play(site, rundir, "", jobPars=parameters, outFiles="a.txt")
    assert job["jobStatus"] == "failed" and "ZIP_MAP: archive 'none.zip' is none of" in str(job["pilotErrorDiag"])
    assert "payload ended" not in log


def test_a_pattern_becomes_files_of_their_own_which_the_server_registers(site: Site, rundir: Path) -> None:
    script = "for n in 2 10 1; do echo $n > user.w.$n.root; done; mkdir user.w.dir.root; echo {} > jobReport.json"
    jobid, job, log = play(site, rundir, script, outFiles="user.w.*.root", realDatasets="user.w.ds")
    assert job["jobStatus"] == "finished", log
    stored = in_storage(site, jobid)
    assert list(stored) == ["user.w.1.root", "user.w.10.root", "user.w.2.root"]
    assert [path.read_text() for path in stored.values()] == ["1\n", "10\n", "2\n"]
    files = {str(file["lfn"]): file for file in site.files(jobid, "output")}
    assert {files[name]["dataset"] for name in stored} == {"user.w.ds"}
    assert len({files[name]["guid"] for name in stored}) == 3
    assert files["user.w.*.root"]["status"] == "matched"


def test_a_pattern_of_everything_takes_nothing_that_is_the_pilots(site: Site, rundir: Path) -> None:
    (maker,) = site.submit({"transformation": "bash", "jobPars": "-c 'echo in > w.in.txt'", "outFiles": "w.in.txt"})
    (jobid,) = site.submit(
        {
            "transformation": "bash",
            "jobPars": "-c 'cat w.in.txt > w.out.txt; echo {} > jobReport.json; echo x > panda_secrets.json'",
            "inputs": ["w.in.txt"],
            "outFiles": "*",
        }
    )
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "3")
    assert site.wait_for(maker)["jobStatus"] == site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()
    assert list(in_storage(site, jobid)) == ["w.out.txt"]


def test_a_pattern_that_nothing_matches_is_a_missing_output(site: Site, rundir: Path) -> None:
    _, job, _ = play(site, rundir, "echo 1 > other.txt", outFiles="user.n.*.root")
    assert (job["jobStatus"], job["pilotErrorCode"]) == ("failed", 1165)
    assert "not made user.n.*.root" in str(job["pilotErrorDiag"])


def test_an_output_that_is_a_link_to_a_file_of_somebody_else_stays_where_it_is(
    site: Site, rundir: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("the pilot's")
    jobid, job, _ = play(site, rundir, f"ln -s {tmp_path}/precious l.1.root", outFiles="l.*.root")
    assert (job["jobStatus"], job["pilotErrorCode"]) == ("failed", 1165)
    assert "l.1.root is a link that leads out of the job" in str(job["pilotErrorDiag"])
    assert in_storage(site, jobid) == {}


def report_of(*names: str) -> str:
    files = [{"name": name, "file_guid": GUID, "nentries": 7} for name in names]
    return json.dumps({"files": {"output": [{"type": "HIST", "subFiles": files}]}}).replace('"', '\\"')


def test_the_guid_of_the_job_report_is_the_outputs(site: Site, rundir: Path) -> None:
    script = f'echo 1 > g.root; echo "{report_of("g.root", "else.root")}" > jobReport.json; echo 2 > else.root'
    jobid, job, log = play(site, rundir, script, outFiles="g.root")
    assert job["jobStatus"] == "finished", log
    assert [(file["lfn"], file["guid"]) for file in site.files(jobid, "output")] == [("g.root", GUID)]


def test_a_job_that_names_no_output_has_those_of_its_report(site: Site, rundir: Path) -> None:
    script = f'echo 1 > r1.root; echo 2 > r2.root; echo "{report_of("r1.root")}" > jobReport.json'
    jobid, job, log = play(site, rundir, script)
    assert job["jobStatus"] == "finished", log
    assert list(in_storage(site, jobid)) == ["r1.root"]
    (output,) = site.files(jobid, "output")
    assert (output["guid"], output["dataset"]) == (GUID, site.files(jobid, "log")[0]["dataset"])


def test_an_output_of_the_report_that_is_not_there_fails_the_job(site: Site, rundir: Path) -> None:
    _, job, _ = play(site, rundir, f'echo "{report_of("r3.root")}" > jobReport.json')
    assert (job["jobStatus"], job["pilotErrorCode"]) == ("failed", 1165)


def test_an_output_may_be_missing_where_the_job_allows_it(site: Site, rundir: Path) -> None:
    jobid, job, log = play(site, rundir, "echo 1 > there.txt", outFiles="there.txt,not.txt", allowNoOutput="not.txt")
    assert job["jobStatus"] == "finished", log
    assert list(in_storage(site, jobid)) == ["there.txt"]


# ---- the table of transfers


def test_the_final_report_tells_every_attempt_to_move_a_file_and_the_command_line_shows_it(
    site: Site, rundir: Path
) -> None:
    (maker,) = site.submit({"transformation": "bash", "jobPars": "-c 'echo in > t.in.txt'", "outFiles": "t.in.txt"})
    (jobid,) = site.submit(
        {
            "transformation": "bash",
            "jobPars": "-c 'cp t.in.txt t.out.txt; echo {\\\"mine\\\": 1} > jobReport.json'",
            "inputs": ["t.in.txt"],
            "outFiles": "t.out.txt",
        }
    )
    pilots.run(site.url, QUEUE, rundir, "-v", "3")
    site.wait_for(maker, "finished")
    job = site.wait_for(jobid, "finished")
    log = str(site.files(jobid, "log")[0]["lfn"])
    moved = [(row["lfn"], row["direction"], row["tool"], row["kind"]) for row in job["transfers"]]  # type: ignore[attr-defined]
    assert moved == [
        ("t.in.txt", "in", "mv", "ok"), ("t.out.txt", "out", "mv", "ok"), (log, "out", "mv", "ok")
    ]  # fmt: skip
    (report,) = [text["text"] for text in job["texts"] if text["kind"] == "metaData"]  # type: ignore[attr-defined]
    assert json.loads(report)["mine"] == 1 and json.loads(report)["pilotkit"]["left_out"] == 0
    shown = subprocess.run(
        [sys.executable, "-m", "server.cli.main", "job", str(jobid), "--url", site.url],
        capture_output=True, text=True, timeout=60, check=True, cwd=pilots.ROOT,
    ).stdout  # fmt: skip
    table = shown[shown.index("\ntransfers\n") :]
    assert "t.in.txt" in table and "RESULT" in table


def test_the_attempts_of_a_job_that_failed_for_them_are_told_too(site: Site, rundir: Path) -> None:
    given = {"lfn": "t.lost.txt", "scope": "mc", "endpoint": DISK, "fsize": 5, "checksum": "ad:084b021f"}
    (jobid,) = site.submit({"command": "true", "inputs": [given]})
    pilots.run(site.url, QUEUE, rundir, *ONCE)
    job = site.wait_for(jobid, "failed")
    first = job["transfers"][0]  # type: ignore[index]
    assert (first["lfn"], first["kind"], first["code"]) == ("t.lost.txt", "missing", 1331)


# ---- under ARC


def test_under_arc_the_outputs_stay_where_the_pilot_was_started_and_arc_is_told_where_they_go(
    site: Site, rundir: Path
) -> None:
    protocol = {"endpoint": "davs://storage.example:443", "id": 1, "path": "/arc"}
    described = {"state": "ACTIVE", "is_deterministic": True, "arprotocols": {"default": [protocol]}}
    site.call("storage/add", {"storages": {"ARC_DISK": described}})
    override = {"astorages": {"default": ["ARC_DISK"]}, "copytools": {"mv": {"output_list": True, "copy_type": "mv"}}}
    (jobid,) = site.submit(
        {
            "transformation": "bash",
            "jobPars": f"-c 'echo arc > arc.txt' --overwriteQueueData={json.dumps(override)}",
            "outFiles": "arc.txt",
            "ddmEndPointOut": "ARC_DISK",
            "realDatasets": "arc.ds",
        }
    )
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE)
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    (output,), (log,) = site.files(jobid, "output"), site.files(jobid, "log")
    # The server gives a log the queue's own storage, which has a local path alone.
    assert str(output["surl"]).startswith("davs://storage.example:443/arc/") and output["endpoint"] == "ARC_DISK"
    assert (rundir / "arc.txt").read_text() == "arc\n" and (rundir / str(log["lfn"])).is_file()
    lines = dict(line.split() for line in (rundir / "output.list").read_text().splitlines())
    assert set(lines) == {"arc.txt", log["lfn"]}
    checksum = str(output["checksum"]).removeprefix("ad:")
    assert lines["arc.txt"] == f"{output['surl']}:checksumtype=adler32:checksumvalue={checksum}"
    entries = ElementTree.parse(rundir / "OutputFiles.xml").getroot()
    assert entries.tag == "outfiles"
    first = {child.tag: child.text for child in entries[0]}
    assert first.pop("date")
    assert first == {
        "ad32": checksum, "surl": output["surl"], "lfn": "arc.txt", "dataset": "arc.ds", "guid": output["guid"],
        "size": "4",
    }  # fmt: skip
    assert [entry.findtext("lfn") for entry in entries] == ["arc.txt", log["lfn"]]


# ---- inputs elsewhere


def test_inputs_can_lie_in_a_directory_that_outlives_the_job_which_gets_links(
    site: Site, rundir: Path, tmp_path: Path
) -> None:
    (maker,) = site.submit({"transformation": "bash", "jobPars": "-c 'echo in > i.in.txt'", "outFiles": "i.in.txt"})
    command = "cat i.in.txt; test -L i.in.txt && cp i.in.txt i.out.txt"
    made = {"transformation": "bash", "jobPars": f"-c '{command}'", "inputs": ["i.in.txt"], "outFiles": "i.out.txt"}
    first, second = site.submit(made, {**made, "outFiles": "i.more.txt", "jobPars": "-c 'cp i.in.txt i.more.txt'"})
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "4", "--input-destination-dir", str(tmp_path / "shared"))
    for jobid in (maker, first, second):
        assert site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()
    assert (tmp_path / "shared" / "i.in.txt").read_text() == "in\n"
    assert [path.read_text() for path in (*site.stored(first), *site.stored(second))] == ["in\n", "in\n"]
    # Fetched once.
    ways = [row["direction"] for jobid in (first, second) for row in site.job(jobid)["transfers"]]  # type: ignore[attr-defined]
    assert ways.count("in") == 1
