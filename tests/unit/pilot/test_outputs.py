"""What a payload leaves becomes the job's outputs: patterns, the job report, archives, and the checks before all."""

from __future__ import annotations

import os
import tarfile
import tempfile
import zipfile
from collections.abc import Collection
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control import outputs
from pilot.control.jobrun import JobRun
from pilot.control.outputs import output_names, settle_outputs
from pilot.util.https import Json
from tests.unit.pilot.builders import file_settings, job_run

C = ErrorCodes
GUID = "FF9D1334-9992-48F8-8E35-ED5756F9DD66"


def settle(run: JobRun, own: Collection[str] = (), *, from_report: bool = False, limit: int = 10**6) -> list[str]:
    """The names of the outputs."""
    settle_outputs(run, file_settings(output_limit=limit), own, from_report=from_report)
    return [spec.lfn for spec in run.data.outdata]


def fails(run: JobRun, code: int, *said: str, own: Collection[str] = (), from_report: bool = False) -> None:
    with pytest.raises(PilotException) as raised:
        settle(run, own, from_report=from_report)
    assert raised.value.code == code, raised.value
    assert all(text in raised.value.diag for text in said), raised.value.diag


def job(work: Path, out_files: str, *made: str, **changes: Json) -> JobRun:
    """A job with these outputs, and what its payload has made: files with their own names in them."""
    for name in made:
        (work / name).write_text(name)
    fields: dict[str, Json] = {"outFiles": f"{out_files},job254.log.tgz".lstrip(","), "realDatasets": "ds"}
    return job_run(work, **{**fields, "ddmEndPointOut": "SITE_DISK", **changes})


def reporting(run: JobRun, *names: str, guid: str = GUID) -> JobRun:
    """The same with a job report."""
    subfiles: list[Json] = [{"name": name, "file_guid": guid, "nentries": 5} for name in names]
    run.report = {"files": {"output": [{"type": "HIST", "subFiles": subfiles}]}}
    return run


# ---- what must be there


@pytest.mark.parametrize(
    ("made", "allowed", "code", "left"),
    [
        ({"a": 5, "b": 5}, "", 0, ["a", "b"]),
        ({"a": 5}, "", C.MISSINGOUTPUTFILE, None),
        ({}, "", C.MISSINGOUTPUTFILE, None),
        ({"a": 5, "b": 0}, "", C.EMPTYOUTPUTFILE, None),
        ({"a": 5, "b": 11}, "", C.OUTPUTFILETOOLARGE, None),
        ({"a": 10, "b": 5}, "", 0, ["a", "b"]),
        ({"a": 5}, "b", 0, ["a"]),
        ({"b": 5}, "b", C.MISSINGOUTPUTFILE, None),
        ({"a": 5, "b": 0}, "b", 0, ["a", "b"]),
        ({}, "a,b", 0, []),
        ({}, "a, b", 0, []),
        ({}, "True", 0, []),
        ({"a": 0}, "True", 0, ["a"]),
        ({"a": 11}, "True", C.OUTPUTFILETOOLARGE, None),
    ],
)
def test_outputs_must_be_there_with_something_in_them_unless_the_job_allows_none(
    tmp_path: Path, made: dict[str, int], allowed: str, code: int, left: list[str] | None
) -> None:
    run = job(tmp_path, "a,b", allowNoOutput=allowed)
    for name, size in made.items():
        (tmp_path / name).write_bytes(b"x" * size)
    if code:
        with pytest.raises(PilotException) as raised:
            settle(run, limit=10)
        assert raised.value.code == code
    else:
        assert settle(run, limit=10) == left


def test_a_missing_output_is_named_with_what_is_there_instead(tmp_path: Path) -> None:
    for name in (b"out.TXT", b"bad\nname\x1b", b"\xff"):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_text("1")
    there = "the payload has not made out.txt; its directory holds: bad?name?, out.TXT, ?"
    fails(job_run(tmp_path), C.MISSINGOUTPUTFILE, there)


@pytest.mark.parametrize("kind", ["directory", "pipe", "broken link", "circle"])
def test_what_is_no_plain_file_is_no_output(tmp_path: Path, kind: str) -> None:
    if kind == "directory":
        (tmp_path / "out.txt").mkdir()
    elif kind == "pipe":
        os.mkfifo(tmp_path / "out.txt")
    else:
        (tmp_path / "out.txt").symlink_to("/nonexistent" if kind == "broken link" else "out.txt")
    fails(job_run(tmp_path), C.MISSINGOUTPUTFILE, "out.txt")


@pytest.mark.parametrize("pattern", ["out.txt", "*.txt", "z.zip"])
def test_a_link_out_of_the_directory_is_not_followed_whatever_it_leads_to(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "secret").write_text("the pilot's")
    work = tmp_path / "work"
    work.mkdir()
    (work / "out.txt").symlink_to(tmp_path / "secret")
    changes: dict[str, Json] = {"jobPars": "<ZIP_MAP>z.zip:out.txt</ZIP_MAP>"} if pattern == "z.zip" else {}
    fails(job(work, pattern, **changes), C.MISSINGOUTPUTFILE, "output out.txt is a link that leads out of")


def test_a_link_inside_the_directory_is_followed(tmp_path: Path) -> None:
    run = job(tmp_path, "out.txt,more.txt")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "real").write_text("events")
    (tmp_path / "out.txt").symlink_to("run/real")
    (tmp_path / "more.txt").symlink_to(tmp_path / "run" / "real")
    assert settle(run) == ["out.txt", "more.txt"]


def test_a_payload_that_removed_its_directory_has_no_outputs(tmp_path: Path) -> None:
    fails(job_run(tmp_path / "gone"), C.MISSINGOUTPUTFILE, "directory cannot be looked into")


def test_a_job_without_outputs_needs_no_directory(tmp_path: Path) -> None:
    assert settle(job(tmp_path / "gone", "")) == []


@pytest.mark.usefixtures("as_nobody")
def test_a_payload_that_locked_its_directory_has_no_outputs() -> None:
    with tempfile.TemporaryDirectory(prefix="pilotkit-test-", dir="/tmp") as place:
        work = Path(place, "work")
        work.mkdir(mode=0)
        try:
            fails(job_run(work), C.MISSINGOUTPUTFILE, "directory cannot be looked into", "Permission denied")
        finally:
            work.chmod(0o700)


# ---- patterns


def test_a_pattern_becomes_the_files_that_match_in_alphabetical_order_with_all_it_says_of_them(tmp_path: Path) -> None:
    run = job(
        tmp_path, "first.txt,u.*.root,v?.root", "first.txt", "u.2.root", "u.10.root", "u.1.root", "v1.root", "v10.root",
        scopeOut="s1,s2,s3", realDatasets="d1,d2,d3,dl", ddmEndPointOut="E1,E2,E3,EL",
    )  # fmt: skip
    assert settle(run) == ["first.txt", "u.1.root", "u.10.root", "u.2.root", "v1.root"]
    said = [(spec.scope, spec.dataset, spec.ddmendpoint, spec.filetype, spec.guid) for spec in run.data.outdata]
    assert said == [("s1", "d1", "E1", "output", "")] + [("s2", "d2", "E2", "output", "")] * 3 + [
        ("s3", "d3", "E3", "output", "")
    ]


def test_a_pattern_means_nothing_hidden_nothing_named_and_nothing_that_is_not_the_payloads(tmp_path: Path) -> None:
    made = ("a.txt", "b.txt", ".hidden", "payload.stdout", "job254.log.tgz", "panda_secrets.json", "packed", "z.zip")
    run = job(tmp_path, "*,b.txt,z.zip", *made, jobPars="<ZIP_MAP>z.zip:packed</ZIP_MAP>")
    (tmp_path / "folder").mkdir()
    own = {"payload.stdout", "job254.log.tgz", "panda_secrets.json"}
    assert settle(run, own) == ["a.txt", "b.txt", "z.zip"]


def test_a_file_belongs_to_the_first_pattern_that_it_matches(tmp_path: Path) -> None:
    run = job(tmp_path, "a*,*.root", "a1.root", "b1.root", "a2.txt", scopeOut="s1,s2", realDatasets="d1,d2,d3")
    assert settle(run) == ["a1.root", "a2.txt", "b1.root"]
    assert [spec.dataset for spec in run.data.outdata] == ["d1", "d1", "d2"]


def test_a_pattern_without_a_match_is_a_missing_output_unless_the_job_allows_it(tmp_path: Path) -> None:
    fails(job(tmp_path, "*.root", "a.txt"), C.MISSINGOUTPUTFILE, "has not made *.root", "holds: a.txt")
    assert settle(job(tmp_path, "*.root", allowNoOutput="*.root")) == []


def test_an_empty_match_fails_the_job_unless_the_pattern_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a.root").touch()
    fails(job(tmp_path, "*.root"), C.EMPTYOUTPUTFILE, "a.root is empty")
    assert settle(job(tmp_path, "*.root", allowNoOutput="*.root")) == ["a.root"]


@pytest.mark.parametrize("name", ["a b.root", "a;b.root", "a,b.root", "ä.root", "a\nb.root", "-rf.root", "x,y.root"])
def test_a_match_that_can_be_no_file_name_in_storage_is_refused_by_name(tmp_path: Path, name: str) -> None:
    fails(job(tmp_path, "*.root", name), C.BADOUTPUTFILENAME, "field outFiles (*.root): ", "is no valid file name")


def test_a_match_that_is_too_long_is_refused(tmp_path: Path) -> None:
    run = job(tmp_path, "*.root", f"{'x' * 100}.root")
    with pytest.raises(PilotException) as raised:
        settle_outputs(run, file_settings(lfn_limit=104), (), from_report=False)
    assert raised.value.code == C.LFNTOOLONG and "has 105 bytes, 104 are allowed" in raised.value.diag


def test_a_pattern_that_means_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "_MOST_OUTPUTS", 2)
    fails(job(tmp_path, "*.root", "a.root", "b.root", "c.root"), C.BADOUTPUTFILENAME, "3 output files, 2 is the most")


# ---- the job report


def test_guids_of_the_report_are_used_when_they_are_guids(tmp_path: Path) -> None:
    run = reporting(job(tmp_path, "a.root,b*.root", "a.root", "b1.root", "c.root"), "a.root", "b1.root", "c.root")
    assert settle(run) == ["a.root", "b1.root"]
    assert [spec.guid for spec in run.data.outdata] == [GUID, GUID]
    again = reporting(job(tmp_path, "a.root"), "a.root", guid="no GUID")
    assert settle(again) == ["a.root"] and again.data.outdata[0].guid == ""


def test_files_that_only_the_report_names_become_outputs_where_they_are_wanted(tmp_path: Path) -> None:
    run = reporting(
        job(tmp_path, "", "b.root", "a.root", "c.root", realDatasets="dl", scopeLog="sl"), "b.root", "a.root"
    )
    assert settle(run, from_report=True) == ["b.root", "a.root"]
    assert [(spec.scope, spec.dataset, spec.ddmendpoint, spec.guid) for spec in run.data.outdata] == [
        ("sl", "dl", "SITE_DISK", GUID)
    ] * 2
    assert settle(reporting(job(tmp_path, ""), "a.root")) == []
    assert settle(job(tmp_path, ""), from_report=True) == []


def test_a_file_that_only_the_report_names_must_be_there(tmp_path: Path) -> None:
    fails(reporting(job(tmp_path, ""), "a.root"), C.MISSINGOUTPUTFILE, "has not made a.root", from_report=True)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", ".hidden", "a b", "a\0b", "*.root"])
def test_a_report_names_no_file_outside_the_directory(tmp_path: Path, name: str) -> None:
    fails(reporting(job(tmp_path, ""), name), C.BADOUTPUTFILENAME, "files.output of the job report", from_report=True)


def test_a_report_cannot_ask_for_the_pilots_own_files(tmp_path: Path) -> None:
    run = reporting(job(tmp_path, "", "panda_secrets.json"), "panda_secrets.json")
    fails(run, C.BADOUTPUTFILENAME, "names panda_secrets.json", own={"panda_secrets.json"}, from_report=True)


# ---- archives


def zip_job(work: Path, zipmap: str, *made: str, **changes: Json) -> JobRun:
    return job(work, zipmap.partition(":")[0], *made, jobPars=f"run <ZIP_MAP>{zipmap}</ZIP_MAP>", **changes)


def test_members_and_what_matches_are_packed_once_and_in_order(tmp_path: Path) -> None:
    run = zip_job(tmp_path, "z.zip:b.txt,h*.root", "h2.root", "h1.root", "b.txt", "other")
    assert settle(run) == ["z.zip"]
    with zipfile.ZipFile(tmp_path / "z.zip") as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            "b.txt": "b.txt", "h1.root": "h1.root", "h2.root": "h2.root"
        }  # fmt: skip
        assert archive.namelist() == ["b.txt", "h1.root", "h2.root"]


def test_a_name_ending_in_tar_makes_a_tar_archive(tmp_path: Path) -> None:
    assert settle(zip_job(tmp_path, "z.tar:*", "a", "b", "own"), {"own"}) == ["z.tar"]
    with tarfile.open(tmp_path / "z.tar", "r:") as archive:
        assert archive.getnames() == ["a", "b"]


@pytest.mark.parametrize("member", ["b.txt", "b*.txt"])
def test_a_member_that_is_missing_is_named_with_its_archive(tmp_path: Path, member: str) -> None:
    run = zip_job(tmp_path, f"z.zip:a.txt,{member}", "a.txt")
    fails(run, C.MISSINGOUTPUTFILE, f"has not made {member}, which belongs into z.zip", "holds: a.txt")
    assert not (tmp_path / "z.zip").exists()


def test_a_member_that_may_be_missing_is_left_out(tmp_path: Path) -> None:
    assert settle(zip_job(tmp_path, "z.zip:a,b", "a", allowNoOutput="b")) == ["z.zip"]
    with zipfile.ZipFile(tmp_path / "z.zip") as archive:
        assert archive.namelist() == ["a"]


def test_an_archive_of_nothing_is_missing_unless_it_may_be(tmp_path: Path) -> None:
    fails(zip_job(tmp_path, "z.zip:a", allowNoOutput="a"), C.MISSINGOUTPUTFILE, "has not made z.zip")
    assert settle(zip_job(tmp_path, "z.zip:a", allowNoOutput="a,z.zip")) == []


def test_an_archive_that_is_too_large_is_refused(tmp_path: Path) -> None:
    run = zip_job(tmp_path, "z.zip:a,b", "a", "b")
    with pytest.raises(PilotException) as raised:
        settle(run, limit=100)
    assert raised.value.code == C.OUTPUTFILETOOLARGE and "z.zip has" in raised.value.diag


def test_a_disk_without_room_for_an_archive_is_told_before_it_is_begun(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = zip_job(small_disk, "z.zip:a")
    monkeypatch.setattr(outputs, "pack", lambda *args, **kwargs: pytest.fail("it was begun"))
    (small_disk / "a").write_bytes(bytes(600_000))
    fails(run, C.NOLOCALSPACE, "no space to pack z.zip: 667584 bytes are needed")
    assert [path.name for path in small_disk.iterdir()] == ["a"]


def test_an_archive_is_given_up_in_a_hurry(tmp_path: Path) -> None:
    run = zip_job(tmp_path, "z.zip:a", "a")
    run.give_up_outputs.set()
    fails(run, C.STAGEOUTFAILED, "z.zip was given up")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_stands_in_an_archives_place_is_replaced_if_it_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "z.zip").symlink_to("victim")
    assert settle(zip_job(tmp_path, "z.zip:a", "a")) == ["z.zip"]
    assert (tmp_path / "victim").read_text() == "precious" and zipfile.is_zipfile(tmp_path / "z.zip")
    (tmp_path / "y.zip").mkdir()
    fails(zip_job(tmp_path, "y.zip:a", "a"), C.FILEHANDLINGFAILURE, "archive y.zip cannot be packed: Is a directory")


# ---- the log has no place for them


def test_outputs_patterns_and_members_are_known_by_name_however_the_job_ended(tmp_path: Path) -> None:
    run = job(tmp_path, "z.zip,a*,b", "a1", "a2", "m1", "a.log", "note", jobPars="<ZIP_MAP>z.zip:m*</ZIP_MAP>")
    assert {"z.zip", "b", "a1", "a2", "m1"} < output_names(run, {"a.log"})
    assert not {"a.log", "note"} & output_names(run, {"a.log"})
    assert output_names(job(tmp_path / "gone", "a*"), ()) == {"a*"}
