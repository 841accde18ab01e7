"""Files that the payload reads where they lie: found, opened for a test, and copied when that does not work."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from pilot.api.data import StageInClient, Tools
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.info.filespec import FileSpec
from pilot.info.infoservice import InfoService
from pilot.info.replica import Replica
from pilot.util.guarded import Launcher
from pilot.util.https import Json
from tests.unit.pilot.builders import LOG, file_settings, infosys, storage
from tests.unit.pilot.davserver import DavServer, Handler

C = ErrorCodes
CONTENTS = b"events" * 1000


class Client(StageInClient):
    """Reads http too, which the test's server speaks without certificates."""

    direct_localinput_allowed_schemas: ClassVar[list[str]] = ["file", "http", "dcap"]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def dav(tmp_path: Path) -> Iterator[DavServer]:
    (tmp_path / "dav").mkdir()
    server = DavServer(tmp_path / "dav")
    try:
        yield server
    finally:
        server.close()


def site(tmp_path: Path, **queue: Json) -> InfoService:
    """A queue whose near storage A may be read where it lies, by mv and https."""
    settings: dict[str, Json] = {
        "astorages": {"default": ["A"]}, "direct_access_lan": True, "acopytools": {"default": ["mv", "https"]},
        "copytools": {"mv": {}, "https": {}}, "maxinputsize": 1,
    }  # fmt: skip
    return infosys({**settings, **queue}, {"A": storage(tmp_path / "A")})


def client(service: InfoService, work: Path, cancel: threading.Event | None = None, **settings: Json) -> Client:
    tools = Tools(Launcher(), dict(os.environ))
    return Client(service, logger=LOG, settings=file_settings(**settings), workdir=work, tools=tools, cancel=cancel)


def wanted(url: str, name: str = "f.root", **about: object) -> FileSpec:
    """An input of a job that asks for direct access, with a replica in A."""
    made = FileSpec(name, accessmode="direct", replicas=[Replica("A", url)], filesize=len(CONTENTS))
    for key, value in about.items():
        setattr(made, key, value)
    return made


def on_disk(tmp_path: Path, name: str = "f.root") -> str:
    path = tmp_path / "A" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(CONTENTS)
    return f"file://localhost{path}"


def rows(of: StageInClient) -> list[tuple[str, str, str, int]]:
    return [(one.lfn, one.tool, one.kind, one.bytes) for one in of.attempts]


def test_a_file_that_may_be_read_where_it_lies_is_not_moved(tmp_path: Path, work: Path, dav: DavServer) -> None:
    (dav.root / "g.root").write_bytes(CONTENTS)
    near, far = wanted(on_disk(tmp_path)), wanted(f"{dav.url}/g.root", "g.root")
    mover = client(site(tmp_path), work)
    assert mover.transfer([near, far]) == [near, far]
    assert [(spec.status, spec.turl, spec.ddmendpoint) for spec in (near, far)] == [
        ("remote_io", near.replicas[0].pfn, "A"),
        ("remote_io", far.replicas[0].pfn, "A"),
    ]
    assert os.listdir(work) == []
    assert sorted(rows(mover)) == [("f.root", "remote_io", "ok", 0), ("g.root", "remote_io", "ok", 0)]


def test_a_file_read_where_it_lies_takes_neither_space_nor_a_part_of_the_queues_limit(
    tmp_path: Path, work: Path
) -> None:
    spec = wanted(on_disk(tmp_path), filesize=2**60)
    mover = client(site(tmp_path), work)
    mover.transfer([spec])
    assert spec.status == "remote_io"
    mover.check_availablespace([spec])


def test_what_nobody_here_can_open_is_taken_as_it_is(
    tmp_path: Path, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = wanted("dcap://nowhere/f.root")
    with caplog.at_level("INFO"):
        client(site(tmp_path), work).transfer([spec])
    assert spec.status == "remote_io"
    assert "f.root is not opened for a test: no copytool here opens dcap://nowhere/f.root" in caplog.text


def test_a_mixed_job_copies_what_is_no_root_file_and_reads_the_rest(
    tmp_path: Path, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, text = wanted(on_disk(tmp_path)), wanted(on_disk(tmp_path, "notes.txt"), "notes.txt")
    with caplog.at_level("INFO"):
        client(site(tmp_path), work).transfer([data, text])
    assert (data.status, text.status) == ("remote_io", "transferred")
    assert os.listdir(work) == ["notes.txt"]
    assert "notes.txt is copied: it is no ROOT file" in caplog.text
    assert "f.root is read at file://localhost" in caplog.text


def test_a_job_that_does_not_ask_gets_copies(tmp_path: Path, work: Path) -> None:
    spec = wanted(on_disk(tmp_path), accessmode="")
    client(site(tmp_path), work).transfer([spec])
    assert spec.status == "transferred" and os.listdir(work) == ["f.root"]


def test_a_file_that_is_there_already_is_left_alone(tmp_path: Path, work: Path) -> None:
    spec = wanted("http://127.0.0.1:1/f.root", status="no_transfer")
    client(site(tmp_path), work).transfer([spec])
    assert spec.status == "no_transfer" and os.listdir(work) == []


def test_input_dir_is_no_storage(tmp_path: Path, work: Path) -> None:
    spec = wanted(on_disk(tmp_path))
    client(site(tmp_path), work).transfer([spec], input_dir=str(tmp_path / "A"))
    assert spec.status == "transferred" and os.listdir(work) == ["f.root"]


def test_a_file_that_does_not_open_where_it_lies_is_copied_from_elsewhere(tmp_path: Path, work: Path) -> None:
    spec = wanted("http://127.0.0.1:1/f.root")
    spec.replicas.append(Replica("B", on_disk(tmp_path)))
    mover = client(site(tmp_path), work)
    mover.transfer([spec])
    assert (spec.status, spec.surl) == ("transferred", spec.replicas[1].pfn)
    assert (work / "f.root").read_bytes() == CONTENTS
    assert rows(mover)[0] == ("f.root", "remote_io", "unreachable", 0)
    assert rows(mover)[-1][1:3] == ("mv", "ok")


def refused(handler: Handler) -> bool:
    handler.send(403)
    return True


def silent(handler: Handler) -> bool:
    handler.hang()
    return True


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (None, C.REMOTEFILECOULDNOTBEOPENED, "answers 404"),
        (refused, C.REMOTEFILECOULDNOTBEOPENED, "answers 403"),
        (silent, C.REMOTEFILEOPENTIMEDOUT, "no byte moved"),
    ],
)
def test_files_that_do_not_open_are_named_with_the_reason_of_each(
    tmp_path: Path, work: Path, dav: DavServer, fault: object, code: int, words: str
) -> None:
    dav.fault = fault  # type: ignore[assignment]
    bad = [wanted(f"{dav.url}/{name}", name) for name in ("a.root", "b.root")]
    good = wanted(on_disk(tmp_path))
    limit = 1.0 if fault is silent else 20.0
    mover = client(site(tmp_path), work, remote_open_limit=limit, direct_access_fallback=False)
    with pytest.raises(PilotException) as raised:
        mover.transfer([bad[0], good, bad[1]])
    assert raised.value.code == code
    assert raised.value.diag.startswith("2 of 3 remote files do not open: a.root, ")
    assert "; b.root, " in raised.value.diag and raised.value.diag.count(words) == 2
    assert os.listdir(work) == []


def test_the_first_reason_is_told_when_the_copy_fails_too(tmp_path: Path, work: Path) -> None:
    spec = wanted("http://127.0.0.1:1/f.root")
    with pytest.raises(PilotException, match="1 of 1 remote files do not open") as raised:
        client(site(tmp_path), work, stagein_attempts=1).transfer([spec])
    assert raised.value.code == C.REMOTEFILECOULDNOTBEOPENED
    assert spec.status == "failed"


def test_the_first_reason_is_told_when_a_copy_does_not_fit(tmp_path: Path, work: Path) -> None:
    spec = wanted("http://127.0.0.1:1/f.root", filesize=2**21)
    with pytest.raises(PilotException, match="nor can it be copied: the input files have 2097152 bytes") as raised:
        client(site(tmp_path), work).transfer([spec])
    assert raised.value.code == C.REMOTEFILECOULDNOTBEOPENED


def test_opening_many_files_takes_no_more_at_once_than_the_queue_says(
    tmp_path: Path, work: Path, dav: DavServer
) -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def slow(handler: Handler) -> bool:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)  # so that the others have time to come too
        with lock:
            under_way -= 1
        return False

    dav.fault = slow
    files = [wanted(f"{dav.url}/f{n}.root", f"f{n}.root") for n in range(8)]
    for spec in files:
        (dav.root / spec.lfn).write_bytes(CONTENTS)
    client(site(tmp_path, catchall="nopenfiles=3"), work).transfer(files)
    assert 1 < most <= 3 and {spec.status for spec in files} == {"remote_io"}


def test_a_cancelled_job_stops_opening_files(tmp_path: Path, work: Path, dav: DavServer) -> None:
    cancel = threading.Event()

    def ordered(handler: Handler) -> bool:
        cancel.set()
        handler.hang()
        return True

    dav.fault = ordered
    started = time.monotonic()
    with pytest.raises(PilotException, match="was cancelled"):
        client(site(tmp_path), work, cancel).transfer([wanted(f"{dav.url}/f.root")])
    assert time.monotonic() - started < 15.0


def test_the_queues_settings_are_told_as_documented(tmp_path: Path, work: Path) -> None:
    far: dict[str, Json] = {"direct_access_wan": True, "allow_wan": True}
    for settings, told in (
        ({"direct_access_lan": False}, (False, "")),
        ({}, (True, "LAN")),
        (far, (True, "WAN")),
        ({"direct_access_lan": False, **far}, (True, "WAN")),
    ):
        assert client(site(tmp_path, **settings), work).get_direct_access_variables(None) == told


def test_a_replica_is_resolved_by_primary_schemes_first(tmp_path: Path, work: Path) -> None:
    spec = wanted("srm://a/f.root")
    spec.replicas += [Replica("B", "https://b/f.root"), Replica("C", "root://c//f.root")]
    mover = client(site(tmp_path), work)
    found = {"surl": "root://c//f.root", "ddmendpoint": "C", "pfn": "root://c//f.root", "domain": "wan"}
    assert mover.resolve_replica(spec, ["root"], ["https"]) == found
    assert (mover.resolve_replica(spec, ["gsiftp"], ["https"]) or {})["ddmendpoint"] == "B"
    assert (mover.resolve_replica(spec) or {})["ddmendpoint"] == "A"
    assert mover.resolve_replica(spec, domain="lan", allowed_schemas=["root"]) is None
