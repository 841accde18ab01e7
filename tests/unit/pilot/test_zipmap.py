"""ZIP_MAP: which files of a job become which archive."""

from __future__ import annotations

import pytest

from pilot.common.exception import ConversionFailure
from pilot.info.jobdata import JobData
from pilot.info.zipmap import Archive, read_zipmap, take_zipmap
from tests.unit.pilot.builders import definition


@pytest.mark.parametrize(
    ("text", "command", "zipmap"),
    [
        ("run -a <ZIP_MAP>z.zip:a,b</ZIP_MAP> -c", "run -a -c", "z.zip:a,b"),
        ("run -a '<ZIP_MAP>z.zip:a,b</ZIP_MAP>' -c", "run -a -c", "z.zip:a,b"),
        ('run "<ZIP_MAP>z.zip:a</ZIP_MAP>"', "run ", "z.zip:a"),
        ("run '<ZIP_MAP>z.zip:a</ZIP_MAP> -c'", "run ' -c'", "z.zip:a"),
        ("<ZIP_MAP>z.zip:a</ZIP_MAP> run <ZIP_MAP>y.tar:b</ZIP_MAP> -c", " run -c", "z.zip:a y.tar:b"),
        ("run <ZIP_MAP>z.zip:a", "run <ZIP_MAP>z.zip:a", ""),
        ("run <ZIP_MAP> <ZIP_MAP>z.zip:a</ZIP_MAP>", "run <ZIP_MAP> ", "z.zip:a"),
        ("run", "run", ""),
    ],
)
def test_the_marks_and_their_quotes_are_taken_out_of_the_command(text: str, command: str, zipmap: str) -> None:
    assert take_zipmap(text) == (command, zipmap)


def test_many_marks_cost_no_time() -> None:
    command, found = take_zipmap("<ZIP_MAP>z</ZIP_MAP>" * 50_000)
    assert command.strip() == "" and found.count("z") == 50_000


def test_several_archives_with_patterns_are_read() -> None:
    found = read_zipmap("z.zip:a,hist_*.root y.tar:b", ["z.zip", "y.tar", "c"], 255)
    assert found == [Archive("z.zip", ("a", "hist_*.root")), Archive("y.tar", ("b",))]


@pytest.mark.parametrize(
    ("lfn", "tar"),
    [("a.zip", False), ("a.tar", True), ("a.tar.2", True), ("a.zip.1", False), ("pool.root", False), ("tar", False)],
)
def test_the_name_says_what_kind_of_archive_it_is(lfn: str, tar: bool) -> None:
    assert read_zipmap(f"{lfn}:a", [lfn], 255)[0].is_tar is tar


@pytest.mark.parametrize("lfn", ["a.tar.gz", "a.tgz", "a.tgz.1", "a.tar.bz2", "a.root.gz"])
def test_a_name_that_promises_compression_is_refused(lfn: str) -> None:
    with pytest.raises(ConversionFailure, match="without compression"):
        read_zipmap(f"{lfn}:a", [lfn], 255)


def test_an_archive_is_one_file() -> None:
    with pytest.raises(ConversionFailure, match="none of the job's outputs"):
        read_zipmap("*.zip:a", ["*.zip"], 255)


def test_members_that_the_definition_lists_as_outputs_are_no_outputs_of_their_own() -> None:
    changes = {"outFiles": "z.zip,a,c,job254.log.tgz", "ddmEndPointOut": "SITE_DISK", "realDatasets": "ds"}
    job = JobData(definition(jobPars="x <ZIP_MAP>z.zip:a,b</ZIP_MAP>", **changes))
    assert [spec.lfn for spec in job.outdata] == ["z.zip", "c"]
    assert job.archives == [Archive("z.zip", ("a", "b"))]
