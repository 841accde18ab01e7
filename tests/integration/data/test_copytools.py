"""The copytools for remote storage against a real XRootD server, in good and in bad order."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.api.data import StageInClient
from pilot.common.errorcodes import ErrorCodes
from pilot.copytool import xrdcp
from pilot.info.filespec import FileSpec
from pilot.info.replica import Replica
from tests.integration.data.tools import ADLER, CONTENTS, TOOLS, Tool, fails, here, left, made, queue, require, stored
from tests.unit.pilot import builders
from tests.xrootd import XRootD

C = ErrorCodes


@pytest.fixture(params=TOOLS, ids=str)
def tool(request: pytest.FixtureRequest) -> Tool:
    require(request.param)
    return request.param


def test_a_file_comes_in_verified(xrootd: XRootD, tool: Tool, work: Path) -> None:
    spec = stored(xrootd, tool, filesize=len(CONTENTS), checksum=ADLER)
    tool.module.copy_in([spec], tool.transfer(work))
    assert (work / "f.root").read_bytes() == CONTENTS and left(work) == ["f.root"]
    assert (spec.status, spec.checksum, spec.turl) == ("transferred", ADLER, spec.surl)


@pytest.mark.parametrize("name", ["a.b_c+d=e@f:g~h-i", "hash#sign", "per%20cent"])
def test_names_with_every_character_that_is_allowed_arrive_both_ways(
    xrootd: XRootD, tool: Tool, work: Path, name: str
) -> None:
    (work / name).write_bytes(CONTENTS)
    tool.module.copy_out([FileSpec(name, "output", surl=tool.url(xrootd, f"names/{name}"))], tool.transfer(work))
    (work / name).unlink()
    tool.module.copy_in([FileSpec(name, surl=tool.url(xrootd, f"names/{name}"))], tool.transfer(work))
    assert (work / name).read_bytes() == CONTENTS


@pytest.mark.parametrize("algorithm", ["adler32", "md5"])
def test_a_file_goes_out_and_is_verified_at_the_other_end(
    xrootd: XRootD, tool: Tool, work: Path, algorithm: str
) -> None:
    spec = made(xrootd, tool, work)
    tool.module.copy_out([spec], tool.transfer(work, checksum_type=algorithm))
    assert (xrootd.data / "new/dir/out.root").read_bytes() == CONTENTS
    assert spec.status == "transferred" and spec.filesize == len(CONTENTS)
    again = FileSpec("again.root", surl=spec.surl, checksum=spec.checksum, filesize=spec.filesize)
    tool.module.copy_in([again], tool.transfer(work))
    assert (work / "again.root").read_bytes() == CONTENTS


def test_a_file_that_is_none_of_the_jobs_is_left_alone(xrootd: XRootD, tool: Tool, work: Path) -> None:
    spec = made(xrootd, tool, work)
    there = xrootd.data / "new/dir/out.root"
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(b"precious")
    first = tool.transfer(work, may_replace=False)
    fails(lambda: tool.module.copy_out([spec], first), C.FILEEXISTS)
    assert there.read_bytes() == b"precious"


def test_a_missing_file_is_missing(xrootd: XRootD, tool: Tool, work: Path) -> None:
    spec = FileSpec("none", surl=tool.url(xrootd, "none"))
    said = fails(lambda: tool.module.copy_in([spec], tool.transfer(work)), C.MISSINGINPUTFILE)
    assert spec.surl in said and left(work) == []


def test_a_wrong_checksum_is_named_with_both_values(xrootd: XRootD, tool: Tool, work: Path) -> None:
    spec = stored(xrootd, tool, checksum={"adler32": "00000001"})
    said = fails(lambda: tool.module.copy_in([spec], tool.transfer(work)), C.GETADMISMATCH)
    assert ADLER["adler32"] in said and "00000001" in said and left(work) == []


def test_a_wrong_size_is_named_with_both_values(xrootd: XRootD, tool: Tool, work: Path) -> None:
    spec = stored(xrootd, tool, filesize=7)
    said = fails(lambda: tool.module.copy_in([spec], tool.transfer(work)), C.STAGEINFAILED)
    assert "has 5000000 bytes, the catalogue says 7" in said and left(work) == []


def test_a_file_that_may_not_be_read_is_denied(xrootd: XRootD, tool: Tool, work: Path) -> None:
    spec = stored(xrootd, tool, "secret")
    (xrootd.data / "secret").chmod(0)
    fails(lambda: tool.module.copy_in([spec], tool.transfer(work)), C.STAGEINAUTHENTICATIONFAILURE)
    assert left(work) == []


def test_a_place_that_may_not_be_written_is_denied(xrootd: XRootD, tool: Tool, work: Path) -> None:
    (xrootd.data / "locked").mkdir(mode=0o555, exist_ok=True)
    spec = made(xrootd, tool, work, "locked/out.root")
    fails(lambda: tool.module.copy_out([spec], tool.transfer(work)), C.STAGEOUTAUTHENTICATIONFAILURE)


def test_many_small_files_come_in_through_the_client_several_at_a_time(xrootd: XRootD, tool: Tool, work: Path) -> None:
    files = []
    for number in range(12):
        xrootd.put(f"many/{number}", b"%d" % number * 1000)
        replicas = [Replica("A", tool.url(xrootd, f"many/{number}"))]
        files.append(FileSpec(f"f{number}", scope="mc", replicas=replicas))
    client = StageInClient(
        queue(tool.name, copytools={tool.name: tool.options}),
        logger=builders.LOG,
        settings=builders.file_settings(),
        workdir=work,
        tools=here(),
    )
    client.transfer(files)
    assert all((work / f"f{number}").read_bytes() == b"%d" % number * 1000 for number in range(12))
    assert {one.kind for one in client.attempts} == {"ok"}


@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        ("adler32: 94f4cac0 /w/got 3000000\n", (3000000, "94f4cac0", "adler32")),
        ("adler32: 4cac0 root://h:1094/a b/f 12\n", (12, "0004cac0", "adler32")),
        ("md5: 617747DE36078A2A01704336B3C1F484 /w/got 5\n", (5, "617747de36078a2a01704336b3c1f484", "md5")),
        ("Run: [ERROR] CheckSum error\n", (None, None, None)),
    ],
)
def test_what_xrdcp_prints_is_read(output: str, wanted: object) -> None:
    assert xrdcp.get_file_info_from_output(output) == wanted
