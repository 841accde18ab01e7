"""Which replica, protocol and storage is taken when the first ones fail, with a real XRootD server."""

from __future__ import annotations

import socket
from pathlib import Path

from pilot.api.data import StageInClient, StageOutClient
from pilot.common.errorcodes import ErrorCodes
from pilot.info.filespec import FileSpec
from pilot.info.replica import Replica
from tests.integration.data.tools import ADLER, CONTENTS, damaged, here, left, queue
from tests.unit.pilot import builders
from tests.xrootd import XRootD

C = ErrorCodes


def test_a_corrupt_second_replica_and_a_good_third_give_the_file(xrootd: XRootD, work: Path) -> None:
    xrootd.put("corrupt", damaged(CONTENTS))
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
