"""Stage-in and stage-out: which storage, which protocol, which copytool, and what happens when one fails."""

from __future__ import annotations

import errno
import json
import os
import threading
import zlib
from pathlib import Path

import pytest

from pilot.api.data import LOG_ACTIVITIES, OUTPUT_ACTIVITIES, STAGEIN_ACTIVITIES, StageInClient, StageOutClient, Tools
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, SizeTooLarge
from pilot.copytool import mv, rucio
from pilot.info.filespec import FileSpec
from pilot.info.infoservice import InfoService
from pilot.info.replica import Replica
from pilot.util.guarded import Launcher
from pilot.util.https import Json
from tests.unit.pilot.builders import LOG, file_settings, infosys, storage

C = ErrorCodes
TOOLS = Tools(Launcher(), dict(os.environ))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def site(tmp_path: Path, **queue: Json) -> InfoService:
    """A queue with two storages, A and B, each a directory; A is the default."""
    both: dict[str, Json] = {"A": storage(tmp_path / "A"), "B": storage(tmp_path / "B")}
    return infosys({"astorages": {"default": ["A"]}, **queue}, both)


def stagein(service: InfoService, work: Path, **settings: Json) -> StageInClient:
    return StageInClient(service, logger=LOG, settings=file_settings(**settings), workdir=work, tools=TOOLS)


def stageout(service: InfoService, work: Path, cancelled: bool = False, **settings: Json) -> StageOutClient:
    cancel = threading.Event()
    if cancelled:
        cancel.set()
    return StageOutClient(
        service, logger=LOG, settings=file_settings(**settings), workdir=work, tools=TOOLS, cancel=cancel
    )


def put(root: Path, lfn: str = "f.root", scope: str = "mc", contents: bytes = b"events") -> Path:
    """A file at its place in a storage."""
    path = Path(StageOutClient.get_path(scope, lfn, str(root)))
    path.parent.mkdir(parents=True)
    path.write_bytes(contents)
    return path


# ---- choosing


@pytest.mark.parametrize(
    ("acopytools", "copytools", "wanted"),
    [
        ({"pr": ["mv"]}, {}, ["mv"]),
        ({"default": ["mv"]}, {}, ["mv"]),
        ({"read_lan": ["carrier", "mv"]}, {}, ["mv"]),
        ({}, {"mv": {"setup": ""}}, ["mv"]),
        ({}, {"carrier": {}, "mv": {}}, ["mv"]),
    ],
)
def test_the_queues_copytools_that_there_are_are_taken_in_its_order(
    tmp_path: Path, work: Path, acopytools: Json, copytools: Json, wanted: list[str]
) -> None:
    service = site(tmp_path, acopytools=acopytools, copytools=copytools)
    assert stagein(service, work).copytools(STAGEIN_ACTIVITIES) == wanted


@pytest.mark.parametrize(
    ("acopytools", "shown"), [({"pr": ["carrier", "pigeon"]}, "carrier, pigeon"), ({}, r"\(none\)")]
)
def test_a_queue_without_a_copytool_that_there_is_says_what_it_wants(
    tmp_path: Path, work: Path, acopytools: Json, shown: str
) -> None:
    client = stagein(site(tmp_path, acopytools=acopytools, copytools={}), work)
    with pytest.raises(PilotException, match=f"wants copytools {shown} for read_lan; this pilot has ") as raised:
        client.copytools(STAGEIN_ACTIVITIES)
    assert raised.value.code == C.UNKNOWNCOPYTOOL


@pytest.mark.parametrize(
    ("astorages", "endpoint", "activities", "wanted"),
    [
        ({"default": ["A"]}, "B", OUTPUT_ACTIVITIES, ["B"]),
        ({"default": ["A"]}, "", OUTPUT_ACTIVITIES, ["A"]),
        ({"write_lan": ["B"], "pw": ["A"]}, "", OUTPUT_ACTIVITIES, ["B"]),
        ({"pw": ["A", "B"]}, "", OUTPUT_ACTIVITIES, ["A", "B"]),
        ({"pl": ["B"], "write_lan": ["A"]}, "", LOG_ACTIVITIES, ["B"]),
        ({"write_lan": ["A"]}, "", LOG_ACTIVITIES, ["A"]),
        ({"read_lan": ["B"], "pr": ["A"]}, "", STAGEIN_ACTIVITIES, ["B"]),
        ({}, "", OUTPUT_ACTIVITIES, []),
    ],
)
def test_the_jobs_storage_is_taken_and_else_the_queues_for_the_activity(
    tmp_path: Path, work: Path, astorages: Json, endpoint: str, activities: tuple[str, ...], wanted: list[str]
) -> None:
    client = stageout(site(tmp_path, astorages=astorages), work)
    assert client.endpoints(FileSpec("f", ddmendpoint=endpoint), activities) == wanted


def test_an_input_is_looked_for_in_every_storage_before_the_next_protocol_is_tried(tmp_path: Path, work: Path) -> None:
    two: list[Json] = [{"endpoint": "file://", "path": "/one"}, {"endpoint": "", "path": "/two"}]
    service = infosys(
        {"astorages": {"pr": ["A", "B"]}},
        {"A": storage(tmp_path, arprotocols={"pr": two}), "B": storage(tmp_path / "B")},
    )
    places = stagein(service, work).places(FileSpec("f", scope="mc"), STAGEIN_ACTIVITIES)
    assert [(place.endpoint, place.surl.split("/mc/")[0], place.copytool) for place in places] == [
        ("A", "file:///one", "mv"),
        ("B", f"file://localhost/{str(tmp_path / 'B').strip('/')}", "mv"),
        ("A", "/two", "mv"),
    ]


def test_an_output_goes_to_its_first_storage_by_any_protocol_before_another_is_taken(
    tmp_path: Path, work: Path
) -> None:
    two: list[Json] = [{"endpoint": "file://", "path": "/one"}, {"endpoint": "", "path": "/two"}]
    service = infosys(
        {"astorages": {"pw": ["A", "B"]}},
        {"A": storage(tmp_path, arprotocols={"pw": two}), "B": storage(tmp_path / "B")},
    )
    places = stageout(service, work).places(FileSpec("f", "output", scope="mc"), OUTPUT_ACTIVITIES)
    assert [place.endpoint for place in places] == ["A", "A", "B"]


def test_replicas_that_are_known_are_taken_rather_than_computed_places(tmp_path: Path, work: Path) -> None:
    for name, contents in (("bad", b"evants"), ("good", b"events")):
        (tmp_path / name).write_bytes(contents)
    replicas = [Replica("FAR", f"file://{tmp_path}/good", "wan"), Replica("B", f"file://{tmp_path}/bad")]
    spec = FileSpec("f.root", scope="mc", checksum={"adler32": f"{zlib.adler32(b'events'):08x}"}, replicas=replicas)
    client = stagein(site(tmp_path, astorages={"pr": ["A", "B"]}), work)
    client.transfer([spec])
    assert (work / "f.root").read_bytes() == b"events" and spec.ddmendpoint == "FAR"
    assert [(one.endpoint, one.kind, one.code) for one in client.attempts] == [
        ("B", "damaged", C.GETADMISMATCH),
        ("FAR", "ok", 0),
    ]


def test_a_storage_that_is_not_the_queues_own_is_read_by_its_protocols_for_the_wide_area(
    tmp_path: Path, work: Path
) -> None:
    def at(path: str) -> list[Json]:
        return [{"endpoint": "file://", "path": path}]

    both: dict[str, Json] = {name: storage(tmp_path) for name in "AB"}
    for described in both.values():
        described["arprotocols"] = {"read_lan": at("/near"), "read_wan": at("/far")}  # type: ignore[index,call-overload]
    client = stagein(infosys({"astorages": {"pr": ["A"]}}, both), work)
    for endpoint, wanted in (("A", "file:///near"), ("B", "file:///far")):
        (place,) = client.places(FileSpec("f", scope="mc", ddmendpoint=endpoint), STAGEIN_ACTIVITIES)
        assert place.surl.startswith(wanted)


def test_a_protocol_that_no_copytool_speaks_is_passed_over(tmp_path: Path, work: Path) -> None:
    mixed: list[Json] = [{"endpoint": "root://h:1094", "path": "/x"}, {"endpoint": "file://", "path": "/y"}]
    service = infosys({"astorages": {"pr": ["A"]}}, {"A": storage(tmp_path, arprotocols={"pr": mixed})})
    places = stagein(service, work).places(FileSpec("f", scope="mc"), STAGEIN_ACTIVITIES)
    assert [place.surl.split("/mc/")[0] for place in places] == ["file:///y"]


@pytest.mark.parametrize(
    ("queue", "stored", "code", "said"),
    [
        ({"astorages": {}}, {}, C.NOSTORAGE, "neither the job nor queue SITE_QUEUE names a storage for f.root"),
        ({"astorages": {"pr": ["NONE"]}}, {}, C.NOSTORAGE, "storage NONE has no description"),
        ({}, {"arprotocols": {}}, C.NOSTORAGEPROTOCOL, "no protocol of storage A for read_lan suits copytool mv"),
        ({}, {"arprotocols": {"pr": [{"endpoint": "root://h"}]}}, C.NOSTORAGEPROTOCOL, "no protocol of storage A"),
        ({}, {"is_deterministic": False}, C.NONDETERMINISTICDDM, "storage A is not deterministic"),
        ({}, {"arprotocols": {"pr": "x"}}, C.QUEUEDATANOTOK, "storage A: arprotocols[pr] is not a list"),
    ],
)
def test_no_place_is_an_error_that_says_what_is_missing(
    tmp_path: Path, work: Path, queue: dict[str, Json], stored: dict[str, Json], code: int, said: str
) -> None:
    service = infosys({"astorages": {"pr": ["A"]}, **queue}, {"A": storage(tmp_path, **stored)})
    with pytest.raises(PilotException) as raised:
        stagein(service, work).transfer([FileSpec("f.root", scope="mc")])
    assert (raised.value.code, said in raised.value.diag) == (code, True), raised.value.diag


# ---- in


def test_inputs_come_from_their_place_in_storage(tmp_path: Path, work: Path) -> None:
    place = put(tmp_path / "A")
    spec = FileSpec("f.root", scope="mc", filesize=6, checksum={"adler32": f"{zlib.adler32(b'events'):08x}"})
    stagein(site(tmp_path), work).transfer([spec])
    assert (work / "f.root").read_bytes() == b"events"
    assert (spec.status, spec.ddmendpoint) == ("transferred", "A")
    assert spec.turl == f"file://localhost{place}"


def test_the_next_storage_is_tried_when_one_fails(tmp_path: Path, work: Path) -> None:
    put(tmp_path / "B")
    spec = FileSpec("f.root", scope="mc")
    stagein(site(tmp_path, astorages={"pr": ["A", "B"]}), work).transfer([spec])
    assert (spec.status, spec.ddmendpoint) == ("transferred", "B")


def test_a_damaged_replica_is_passed_over_for_a_good_one(tmp_path: Path, work: Path) -> None:
    put(tmp_path / "A", contents=b"evants")
    put(tmp_path / "B")
    spec = FileSpec("f.root", scope="mc", checksum={"adler32": f"{zlib.adler32(b'events'):08x}"})
    stagein(site(tmp_path, astorages={"pr": ["A", "B"]}), work).transfer([spec])
    assert (work / "f.root").read_bytes() == b"events"


def test_the_first_failure_is_the_one_that_is_reported(tmp_path: Path, work: Path) -> None:
    put(tmp_path / "A", contents=b"evants")
    spec = FileSpec("f.root", scope="mc", checksum={"adler32": f"{zlib.adler32(b'events'):08x}"})
    with pytest.raises(PilotException) as raised:
        stagein(site(tmp_path, astorages={"pr": ["A", "B"]}), work).transfer([spec])
    assert raised.value.code == C.GETADMISMATCH
    assert spec.status == "failed"


def test_inputs_may_come_from_a_plain_directory(tmp_path: Path, work: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f.root").write_bytes(b"events")
    spec = FileSpec("f.root", scope="mc", filesize=6)
    stagein(site(tmp_path, astorages={}), work).transfer([spec], input_dir=str(tmp_path / "in"))
    assert (work / "f.root").read_bytes() == b"events"


@pytest.mark.parametrize(
    ("maxinputsize", "setting", "sizes", "fits"),
    [
        (0, 1, [2**20], True),
        (0, 1, [2**20, 1], False),
        (2, 1, [2**20, 2**20], True),
        (2, 1, [2**20, 2**20, 1], False),
        (-1, 1, [2**20 + 1], False),
        (0, 1, [], True),
    ],
)
def test_the_inputs_together_may_not_exceed_the_queues_limit(
    tmp_path: Path, work: Path, maxinputsize: int, setting: int, sizes: list[int], fits: bool
) -> None:
    client = stagein(site(tmp_path, maxinputsize=maxinputsize), work, input_limit=setting)
    files = [FileSpec(f"f{n}", filesize=size) for n, size in enumerate(sizes)]
    if fits:
        client.check_availablespace(files)
    else:
        with pytest.raises(SizeTooLarge, match=f"the input files have {sum(sizes)} bytes, the queue allows"):
            client.check_availablespace(files)


def test_inputs_that_do_not_fit_on_the_disk_are_not_begun(small_disk: Path, tmp_path: Path) -> None:
    spec = FileSpec("f.root", scope="mc", filesize=2_000_000)
    with pytest.raises(PilotException, match=r"but only .* are free at") as raised:
        stagein(site(tmp_path), small_disk).transfer([spec])
    assert raised.value.code == C.NOLOCALSPACE


def test_no_inputs_need_no_storage(tmp_path: Path, work: Path) -> None:
    stagein(site(tmp_path, astorages={}, acopytools={}, copytools={}), work).transfer([])


# ---- out


def test_outputs_go_to_their_place_in_storage(tmp_path: Path, work: Path) -> None:
    (work / "f.root").write_bytes(b"events")
    spec = FileSpec("f.root", "output", scope="user.jdoe")
    stageout(site(tmp_path), work).transfer([spec])
    place = Path(StageOutClient.get_path("user.jdoe", "f.root", str(tmp_path / "A")))
    assert place.read_bytes() == b"events"
    assert (spec.status, spec.ddmendpoint, spec.filesize) == ("transferred", "A", 6)
    assert spec.checksum == {"adler32": f"{zlib.adler32(b'events'):08x}"}


def test_the_checksum_of_outputs_is_that_of_the_settings(tmp_path: Path, work: Path) -> None:
    (work / "f.root").write_bytes(b"events")
    spec = FileSpec("f.root", "output", scope="mc")
    stageout(site(tmp_path), work, checksum_type="md5").transfer([spec])
    assert list(spec.checksum) == ["md5"]


def test_outputs_may_go_to_a_plain_directory(tmp_path: Path, work: Path) -> None:
    (work / "f.root").write_bytes(b"events")
    spec = FileSpec("f.root", "output", scope="mc")
    stageout(site(tmp_path, astorages={}), work).transfer([spec], output_dir=str(tmp_path / "new" / "out"))
    assert (tmp_path / "new" / "out" / "f.root").read_bytes() == b"events"


def test_the_next_storage_takes_what_the_first_does_not(tmp_path: Path, work: Path) -> None:
    (tmp_path / "A").write_text("no directory")
    (work / "f.root").write_bytes(b"events")
    spec = FileSpec("f.root", "output", scope="mc")
    stageout(site(tmp_path, astorages={"pw": ["A", "B"]}), work).transfer([spec])
    assert (spec.status, spec.ddmendpoint) == ("transferred", "B")


@pytest.mark.parametrize(("attempts", "works"), [(1, False), (2, True)])
def test_a_file_is_tried_as_often_as_is_asked_for(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, attempts: int, works: bool
) -> None:
    tries: list[int] = []
    real = mv.copy_out

    def flaky(files: list[FileSpec], transfer: object) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise PilotException("storage is busy", code=C.STAGEOUTFAILED)
        real(files, transfer)  # type: ignore[arg-type]

    monkeypatch.setattr(mv, "copy_out", flaky)
    (work / "f.root").write_bytes(b"events")
    spec = FileSpec("f.root", "output", scope="mc")
    client = stageout(site(tmp_path), work)
    if works:
        client.transfer([spec], attempts=attempts)
        assert spec.status == "transferred"
    else:
        with pytest.raises(PilotException, match="storage is busy"):
            client.transfer([spec], attempts=attempts)
        assert spec.status == "failed"
    assert len(tries) == attempts


def test_every_attempt_is_noted_and_the_table_is_in_the_log(
    tmp_path: Path, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "B")
    caplog.set_level("INFO", LOG.name)
    client = stagein(site(tmp_path, astorages={"pr": ["A", "B"]}), work)
    client.transfer([FileSpec("f.root", scope="mc")])
    assert [(one.number, one.endpoint, one.kind, one.bytes) for one in client.attempts] == [
        (1, "A", "missing", 0),
        (2, "B", "ok", 6),
    ]
    assert "places for f.root, best first:\n  1. A: file://localhost/" in caplog.text
    assert "missing (1331)" in caplog.text
    assert json.loads(json.dumps(client.attempts[0].as_json()))["code"] == C.MISSINGINPUTFILE


def test_a_copytool_that_is_not_installed_is_tried_once_and_the_next_one_does_the_work(
    tmp_path: Path, work: Path
) -> None:
    put(tmp_path / "B")
    service = site(tmp_path, astorages={"pr": ["A", "B"]}, acopytools={"pr": ["lsm", "mv"]})
    client = StageInClient(
        service, logger=LOG, settings=file_settings(), workdir=work, tools=Tools(Launcher(), {"PATH": str(tmp_path)})
    )
    client.transfer([FileSpec("f.root", scope="mc")])
    assert [(one.tool, one.kind) for one in client.attempts] == [("lsm", "middleware"), ("mv", "missing"), ("mv", "ok")]
    assert "lsm-get is not on the PATH" in client.attempts[0].text and client.attempts[0].code == 1342


def test_an_input_that_failed_for_a_lasting_reason_is_not_tried_a_second_time(tmp_path: Path, work: Path) -> None:
    client = stagein(site(tmp_path), work, stagein_attempts=3)
    with pytest.raises(PilotException):
        client.transfer([FileSpec("f.root", scope="mc")])
    assert len(client.attempts) == 1


@pytest.mark.parametrize(("catchall", "setting", "most"), [("", 3, 3), ("ntransfers=2", 3, 2), ("ntransfers=x", 1, 1)])
def test_files_move_at_the_same_time_up_to_the_queues_limit(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, catchall: str, setting: int, most: int
) -> None:
    together = threading.Barrier(most, timeout=20)
    running, seen, lock = 0, 0, threading.Lock()

    def meet(files: list[FileSpec], transfer: object) -> None:
        nonlocal running, seen
        with lock:
            running += 1
            seen = max(seen, running)
        together.wait()
        with lock:
            running -= 1

    monkeypatch.setattr(mv, "copy_in", meet)
    client = stagein(site(tmp_path, catchall=catchall), work, transfers_at_once=setting)
    client.transfer([FileSpec(f"f{n}", scope="mc") for n in range(2 * most)])
    assert seen == most and len(client.attempts) == 2 * most


def test_a_cancelled_stage_out_tries_no_other_place(tmp_path: Path, work: Path) -> None:
    (work / "f.root").write_bytes(b"events")
    spec = FileSpec("f.root", "output", scope="mc")
    client = stageout(site(tmp_path, astorages={"pw": ["A", "B"]}), work, cancelled=True)
    with pytest.raises(PilotException, match="was cancelled"):
        client.transfer([spec], attempts=3)
    assert spec.ddmendpoint == "A" and spec.status == "failed"


def test_the_documented_path_of_a_file() -> None:
    assert StageOutClient.get_path("vo", "out.txt") == "rucio/vo/3d/b9/out.txt"
    assert StageOutClient.get_path("vo", "out.txt", "/data") == "/data/vo/3d/b9/out.txt"


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, C.NOLOCALSPACE), (errno.EDQUOT, C.NOLOCALSPACE), (errno.EACCES, C.STAGEINFAILED)],
)
def test_a_directory_that_takes_nothing_fails_the_file_and_not_the_pilot(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def refuse(files: list[FileSpec], transfer: object) -> None:
        raise OSError(number, os.strerror(number), str(work))

    service = site(tmp_path, acopytools={"pr": ["rucio"]}, astorages={"pr": ["A"]})
    monkeypatch.setattr(rucio, "copy_in", refuse)
    monkeypatch.setattr(rucio, "copy_in_bulk", refuse)
    client = stagein(service, work, stagein_attempts=1)
    with pytest.raises(PilotException, match=os.strerror(number)) as raised:
        client.transfer([FileSpec(f"f{n}", scope="mc") for n in range(2)])
    assert raised.value.code == code
    assert {one.code for one in client.attempts} == {code} and len(client.attempts) >= 2


def test_a_stage_out_from_a_directory_that_takes_nothing_is_an_error_with_its_reason(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(files: list[FileSpec], transfer: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(work))

    monkeypatch.setattr(mv, "copy_out", refuse)
    with pytest.raises(PilotException, match=r"f\.root: Permission denied") as raised:
        stageout(site(tmp_path), work).transfer([FileSpec("f.root", "output", scope="mc")])
    assert raised.value.code == C.STAGEOUTFAILED
