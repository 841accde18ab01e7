"""Stage-in and stage-out: which storage, which protocol, which copytool, and what happens when one fails."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from pilot.api.data import LOG_ACTIVITIES, OUTPUT_ACTIVITIES, STAGEIN_ACTIVITIES, StageInClient, StageOutClient
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, SizeTooLarge
from pilot.copytool import mv
from pilot.info.filespec import FileSpec
from pilot.info.infoservice import InfoService
from pilot.util.https import Json
from tests.unit.pilot.builders import LOG, file_settings, infosys, storage

C = ErrorCodes


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def site(tmp_path: Path, **queue: Json) -> InfoService:
    """A queue with two storages, A and B, each a directory; A is the default."""
    both: dict[str, Json] = {"A": storage(tmp_path / "A"), "B": storage(tmp_path / "B")}
    return infosys({"astorages": {"default": ["A"]}, **queue}, both)


def stagein(service: InfoService, work: Path, **settings: Json) -> StageInClient:
    return StageInClient(service, file_settings(**settings), work, LOG)


def stageout(service: InfoService, work: Path, cancelled: bool = False, **settings: Json) -> StageOutClient:
    return StageOutClient(service, file_settings(**settings), work, LOG, lambda: cancelled)


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
        ({"read_lan": ["rucio", "mv"]}, {}, ["mv"]),
        ({}, {"mv": {"setup": ""}}, ["mv"]),
        ({}, {"rucio": {}, "mv": {}}, ["mv"]),
    ],
)
def test_the_queues_copytools_that_there_are_are_taken_in_its_order(
    tmp_path: Path, work: Path, acopytools: Json, copytools: Json, wanted: list[str]
) -> None:
    service = site(tmp_path, acopytools=acopytools, copytools=copytools)
    assert stagein(service, work).copytools(STAGEIN_ACTIVITIES) == wanted


@pytest.mark.parametrize(("acopytools", "shown"), [({"pr": ["rucio", "gfal"]}, "rucio, gfal"), ({}, r"\(none\)")])
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


def test_places_come_by_storage_and_then_by_the_storages_own_order(tmp_path: Path, work: Path) -> None:
    two: list[Json] = [{"endpoint": "file://", "path": "/one"}, {"endpoint": "", "path": "/two"}]
    service = infosys(
        {"astorages": {"pr": ["A", "B"]}},
        {"A": storage(tmp_path, arprotocols={"pr": two}), "B": storage(tmp_path / "B")},
    )
    places = stagein(service, work).places(FileSpec("f", scope="mc"), STAGEIN_ACTIVITIES)
    assert [(place.endpoint, place.surl.split("/mc/")[0], place.copytool) for place in places] == [
        ("A", "file:///one", "mv"),
        ("A", "/two", "mv"),
        ("B", f"file://localhost/{str(tmp_path / 'B').strip('/')}", "mv"),
    ]


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
