"""The copytools for remote storage against a real XRootD server, when all is well and when it is not."""

from __future__ import annotations

import os
import socket
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from pilot.api.data import StageInClient, StageOutClient, Tools
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool import https, xrdcp
from pilot.info.filespec import FileSpec
from pilot.info.infoservice import InfoService
from pilot.info.replica import Replica
from pilot.util.guarded import Launcher
from pilot.util.watch import Limits
from tests.unit.pilot import builders
from tests.xrootd import XRootD

C = ErrorCodes
CONTENTS = os.urandom(5_000_000)
ADLER = {"adler32": f"{zlib.adler32(CONTENTS):08x}"}


@dataclass(frozen=True)
class Tool:
    """A copytool and how it names a file of the server."""

    module: ModuleType
    url: Callable[[XRootD, str], str]


TOOLS = {"xrdcp": Tool(xrdcp, XRootD.root), "https": Tool(https, XRootD.http)}


@pytest.fixture(params=sorted(TOOLS))
def tool(request: pytest.FixtureRequest) -> Tool:
    return TOOLS[request.param]


def stored(server: XRootD, tool: Tool, name: str = "f.root", **known: object) -> FileSpec:
    server.put(name, CONTENTS)
    return FileSpec(name, surl=tool.url(server, name), **known)  # type: ignore[arg-type]


def made(server: XRootD, tool: Tool, work: Path, place: str = "new/dir/out.root", size: int = 0) -> FileSpec:
    (work / "out.root").write_bytes(os.urandom(size) if size else CONTENTS)
    return FileSpec("out.root", "output", surl=tool.url(server, place))


def fails(call: Callable[[], None], *codes: int) -> str:
    with pytest.raises(PilotException) as raised:
        call()
    assert raised.value.code in codes, raised.value
    return raised.value.diag


def left(work: Path) -> list[str]:
    return sorted(path.name for path in work.iterdir())


def test_a_file_comes_in_verified(xrootd: XRootD, tool: Tool, work: Path) -> None:
    spec = stored(xrootd, tool, filesize=len(CONTENTS), checksum=ADLER)
    tool.module.copy_in([spec], builders.transfer(work))
    assert (work / "f.root").read_bytes() == CONTENTS and left(work) == ["f.root"]
    assert (spec.status, spec.checksum, spec.turl) == ("transferred", ADLER, spec.surl)


@pytest.mark.parametrize("name", ["a.b_c+d=e@f:g~h-i", "hash#sign", "per%20cent"])
def test_names_with_every_character_that_is_allowed_arrive_both_ways(
    xrootd: XRootD, tool: Tool, work: Path, name: str
) -> None:
    (work / name).write_bytes(CONTENTS)
    tool.module.copy_out([FileSpec(name, "output", surl=tool.url(xrootd, f"names/{name}"))], builders.transfer(work))
    (work / name).unlink()
    tool.module.copy_in([FileSpec(name, surl=tool.url(xrootd, f"names/{name}"))], builders.transfer(work))
    assert (work / name).read_bytes() == CONTENTS


@pytest.mark.parametrize("algorithm", ["adler32", "md5"])
def test_a_file_goes_out_and_is_verified_at_the_other_end(
    xrootd: XRootD, tool: Tool, work: Path, algorithm: str
) -> None:
    spec = made(xrootd, tool, work)
    tool.module.copy_out([spec], builders.transfer(work, checksum_type=algorithm))
    assert (xrootd.data / "new/dir/out.root").read_bytes() == CONTENTS
    assert spec.status == "transferred" and spec.filesize == len(CONTENTS)
    again = FileSpec("again.root", surl=spec.surl, checksum=spec.checksum, filesize=spec.filesize)
    tool.module.copy_in([again], builders.transfer(work))
    assert (work / "again.root").read_bytes() == CONTENTS


def test_a_file_that_is_none_of_the_jobs_is_left_alone(xrootd: XRootD, tool: Tool, work: Path) -> None:
    spec = made(xrootd, tool, work)
    there = xrootd.data / "new/dir/out.root"
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(b"precious")
    first = builders.transfer(work, may_replace=False)
    fails(lambda: tool.module.copy_out([spec], first), C.FILEEXISTS)
    assert there.read_bytes() == b"precious"


def test_a_missing_file_is_missing(xrootd: XRootD, tool: Tool, work: Path) -> None:
    spec = FileSpec("none", surl=tool.url(xrootd, "none"))
    said = fails(lambda: tool.module.copy_in([spec], builders.transfer(work)), C.MISSINGINPUTFILE)
    assert spec.surl in said and left(work) == []


def test_a_wrong_checksum_is_named_with_both_values(xrootd: XRootD, tool: Tool, work: Path) -> None:
    spec = stored(xrootd, tool, checksum={"adler32": "00000001"})
    said = fails(lambda: tool.module.copy_in([spec], builders.transfer(work)), C.GETADMISMATCH)
    assert ADLER["adler32"] in said and "00000001" in said and left(work) == []


def test_a_wrong_size_is_named_with_both_values(xrootd: XRootD, tool: Tool, work: Path) -> None:
    spec = stored(xrootd, tool, filesize=7)
    said = fails(lambda: tool.module.copy_in([spec], builders.transfer(work)), C.STAGEINFAILED)
    assert "has 5000000 bytes, the catalogue says 7" in said and left(work) == []


def test_a_file_that_may_not_be_read_is_denied(xrootd: XRootD, tool: Tool, work: Path) -> None:
    spec = stored(xrootd, tool, "secret")
    (xrootd.data / "secret").chmod(0)
    fails(lambda: tool.module.copy_in([spec], builders.transfer(work)), C.STAGEINAUTHENTICATIONFAILURE)
    assert left(work) == []


def test_a_place_that_may_not_be_written_is_denied(xrootd: XRootD, tool: Tool, work: Path) -> None:
    (xrootd.data / "locked").mkdir(mode=0o555, exist_ok=True)
    spec = made(xrootd, tool, work, "locked/out.root")
    fails(lambda: tool.module.copy_out([spec], builders.transfer(work)), C.STAGEOUTAUTHENTICATIONFAILURE)


def test_a_server_that_is_gone_cannot_be_reached(tool: Tool, work: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = XRootD(listener.getsockname()[1], work)
    (work / "out.root").write_bytes(CONTENTS)
    source, sink = FileSpec("f", surl=tool.url(gone, "f")), FileSpec("out.root", "output", surl=tool.url(gone, "o"))
    said = fails(lambda: tool.module.copy_in([source], builders.transfer(work)), C.STAGEINFAILED)
    assert "the server cannot be reached" in said
    said = fails(lambda: tool.module.copy_out([sink], builders.transfer(work)), C.STAGEOUTFAILED)
    assert "the server cannot be reached" in said and left(work) == ["out.root"]


def test_a_download_that_breaks_off_leaves_no_half_file(broken: tuple[str, XRootD], tool: Tool, work: Path) -> None:
    how, server = broken
    begun = time.monotonic()
    slow = builders.transfer(work, limits=Limits(4.0, 1000.0, 1e6))
    said = fails(
        lambda: tool.module.copy_in([stored(server, tool)], slow), C.STAGEINTIMEOUT, *([1099] if how == "cut" else [])
    )
    assert left(work) == [] and time.monotonic() - begun < 60
    assert how == "cut" or "stopped, no byte moved for" in said


def test_an_upload_that_breaks_off_is_an_error_and_nothing_is_left(
    broken: tuple[str, XRootD], xrootd: XRootD, tool: Tool, work: Path
) -> None:
    how, server = broken
    begun = time.monotonic()
    slow = builders.transfer(work, limits=Limits(4.0, 1000.0, 1e6))
    spec = made(server, tool, work, f"broken/{how}.root", size=60_000_000)
    codes = (C.STAGEOUTTIMEOUT, *([C.STAGEOUTFAILED] if how == "cut" else []))
    fails(lambda: tool.module.copy_out([spec], slow), *codes)
    assert time.monotonic() - begun < 60 and spec.status != "transferred"


def test_many_small_files_come_in_through_the_client_several_at_a_time(xrootd: XRootD, tool: Tool, work: Path) -> None:
    name = next(name for name, known in TOOLS.items() if known is tool)
    files = []
    for number in range(12):
        xrootd.put(f"many/{number}", b"%d" % number * 1000)
        replicas = [Replica("A", tool.url(xrootd, f"many/{number}"))]
        files.append(FileSpec(f"f{number}", scope="mc", replicas=replicas))
    client = StageInClient(
        queue(name), logger=builders.LOG, settings=builders.file_settings(), workdir=work, tools=here()
    )
    client.transfer(files)
    assert all((work / f"f{number}").read_bytes() == b"%d" % number * 1000 for number in range(12))
    assert {one.kind for one in client.attempts} == {"ok"}


def queue(*tools: str) -> InfoService:
    return builders.infosys({"acopytools": {"default": list(tools)}, "astorages": {"default": ["A", "B", "C"]}}, {})


def here() -> Tools:
    return Tools(Launcher(), dict(os.environ))


def test_a_corrupt_second_replica_and_a_good_third_give_the_file(xrootd: XRootD, work: Path) -> None:
    xrootd.put("corrupt", b"x" + CONTENTS[1:])
    xrootd.put("good", CONTENTS)
    replicas = [
        Replica("A", xrootd.root("missing")),
        Replica("B", xrootd.root("corrupt")),
        Replica("C", xrootd.root("good")),
    ]
    spec = FileSpec("f.root", scope="mc", filesize=len(CONTENTS), checksum=ADLER, replicas=replicas)
    client = StageInClient(
        queue("xrdcp"), logger=builders.LOG, settings=builders.file_settings(), workdir=work, tools=here()
    )
    client.transfer([spec])
    assert (work / "f.root").read_bytes() == CONTENTS and left(work) == ["f.root"]
    assert [(one.endpoint, one.kind, one.code) for one in client.attempts] == [
        ("A", "missing", C.MISSINGINPUTFILE),
        ("B", "damaged", C.GETADMISMATCH),
        ("C", "ok", 0),
    ]


def test_the_next_protocol_helps_when_the_first_is_gone(xrootd: XRootD, work: Path) -> None:
    xrootd.put("f.root", CONTENTS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = XRootD(listener.getsockname()[1], xrootd.data)
    replicas = [Replica("A", gone.root("f.root")), Replica("A", xrootd.http("f.root"))]
    spec = FileSpec("f.root", scope="mc", checksum=ADLER, replicas=replicas)
    client = StageInClient(
        queue("xrdcp", "https"), logger=builders.LOG, settings=builders.file_settings(), workdir=work, tools=here()
    )
    client.transfer([spec])
    assert [(one.tool, one.kind) for one in client.attempts] == [("xrdcp", "unreachable"), ("https", "ok")]


def test_an_output_goes_to_the_next_storage_when_the_first_is_closed(xrootd: XRootD, work: Path) -> None:
    def protocols(path: str) -> dict[str, object]:
        endpoint = f"root://127.0.0.1:{xrootd.port}/"
        return {"state": "ACTIVE", "arprotocols": {"default": [{"endpoint": endpoint, "path": path}]}}

    service = builders.infosys(
        {"acopytools": {"default": ["xrdcp"]}, "astorages": {"default": ["A", "B"]}},
        {"A": protocols("/elsewhere"), "B": protocols("/data/b")},  # type: ignore[dict-item]
    )
    (work / "out.root").write_bytes(CONTENTS)
    spec = FileSpec("out.root", "output", scope="mc")
    client = StageOutClient(service, logger=builders.LOG, settings=builders.file_settings(), workdir=work, tools=here())
    client.transfer([spec])
    assert [(one.endpoint, one.kind) for one in client.attempts] == [("A", "denied"), ("B", "ok")]
    assert spec.ddmendpoint == "B" and any(name.startswith("b/mc/") for name in xrootd.files())


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
