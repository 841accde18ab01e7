"""The staging clients and copytools as scripts of users and plugins call them, by their documented names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pilot.api.data import StageInClient, StageOutClient, Tools
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import ConversionFailure, NotDefined, PilotException
from pilot.control.data import stage_in_auto, stage_out_auto
from pilot.copytool import common, https, mv
from pilot.info.filespec import FileSpec
from pilot.info.infoservice import InfoService
from pilot.info.replica import Replica
from pilot.info.storagedata import Protocol
from pilot.util.guarded import Launcher
from pilot.util.https import Json
from tests.unit.pilot.builders import LOG, file_settings, infosys, storage

C = ErrorCodes
CONTENTS = b"events" * 100


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def site(tmp_path: Path) -> InfoService:
    storages: dict[str, Json] = {"A": storage(tmp_path / "A", id=7), "B": storage(tmp_path / "B", id=8)}
    queue: dict[str, Json] = {"astorages": {"default": ["A"]}, "acopytools": {"pr": ["mv"], "pw": ["https"]}}
    return infosys(queue, storages)


def stagein(tmp_path: Path, work: Path) -> StageInClient:
    tools = Tools(Launcher(), dict(os.environ))
    return StageInClient(site(tmp_path), logger=LOG, settings=file_settings(), workdir=work, tools=tools)


def stageout(tmp_path: Path, work: Path) -> StageOutClient:
    tools = Tools(Launcher(), dict(os.environ))
    return StageOutClient(site(tmp_path), logger=LOG, settings=file_settings(), workdir=work, tools=tools)


def stored(tmp_path: Path, lfn: str = "f.root") -> FileSpec:
    path = Path(StageOutClient.get_path("mc", lfn, str(tmp_path / "A")))
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENTS)
    return FileSpec(lfn, scope="mc", ddmendpoint="A")


# ---- copytools called by hand


def test_a_copytool_can_be_called_with_a_directory_alone(tmp_path: Path, work: Path) -> None:
    (tmp_path / "f").write_bytes(CONTENTS)
    spec = FileSpec("f.root", turl=str(tmp_path / "f"))
    assert mv.copy_in([spec], workdir=str(work)) == [spec]
    assert (work / "f.root").read_bytes() == CONTENTS and spec.status == "transferred"
    out = FileSpec("f.root", "output", turl=str(tmp_path / "out" / "g"))
    assert mv.copy_out([out], workdir=str(work)) == [out]
    assert (tmp_path / "out" / "g").read_bytes() == CONTENTS


def test_what_else_a_caller_gives_reaches_the_copytool_as_options(work: Path) -> None:
    made = common.transfer_of([], {"workdir": str(work), "setup": "/opt", "trace_report": object(), "n": 3})
    assert made.workdir == work and made.options["setup"] == "/opt" and made.options["n"] == "3"
    assert "trace_report" not in made.options


@pytest.fixture
def third_party(tmp_path: Path) -> Iterator[ModuleType]:
    """A copytool that knows only the documented contract."""
    module = ModuleType("my_tool")

    def copy_in(files: list[FileSpec], **kwargs: object) -> list[FileSpec]:
        for spec in files:
            Path(str(kwargs["workdir"]), spec.lfn).write_bytes(
                Path(spec.turl.replace("file://localhost", "")).read_bytes()
            )
            spec.status = f"transferred {kwargs['flag']}"
        return files

    module.copy_in = copy_in  # type: ignore[attr-defined]
    module.is_valid_for_copy_in = lambda files: True  # type: ignore[attr-defined]
    sys.modules["my_tool"] = module
    yield module
    del sys.modules["my_tool"]


def test_a_third_partys_copytool_is_called_as_documented(tmp_path: Path, work: Path, third_party: ModuleType) -> None:
    spec = stored(tmp_path)
    assert stagein(tmp_path, work).transfer_files(third_party, [spec], "pr", flag="yes") == [spec]
    assert (work / "f.root").read_bytes() == CONTENTS and spec.status == "transferred yes"


def test_our_own_copytools_are_called_by_the_same_name(tmp_path: Path, work: Path) -> None:
    spec = stored(tmp_path)
    assert stagein(tmp_path, work).transfer_files(mv, [spec]) == [spec]
    assert (work / "f.root").read_bytes() == CONTENTS
    out = FileSpec("f.root", "output", scope="mc", ddmendpoint="B")
    assert stageout(tmp_path, work).transfer_files(mv, [out], ["pw"]) == [out]
    assert Path(StageOutClient.get_path("mc", "f.root", str(tmp_path / "B"))).read_bytes() == CONTENTS


def test_a_copytool_without_a_way_to_a_file_is_refused(tmp_path: Path, work: Path) -> None:
    with pytest.raises(
        PilotException, match=r"no storage of f\.root has a protocol that copytool https speaks"
    ) as raised:
        stagein(tmp_path, work).transfer_files(https, [stored(tmp_path)])
    assert raised.value.code == C.NOSTORAGEPROTOCOL
    with pytest.raises(PilotException, match="does not take these files: /x"):
        stagein(tmp_path, work).transfer_files(https, [FileSpec("f", surl="/x")])


# ---- choosing, by documented names


def test_replicas_are_chosen_and_sorted_in_every_form() -> None:
    objects = [Replica("B", "root://b//f"), Replica("A", "https://a/f")]
    tuples = [(one.pfn, {"ddmendpoint": one.ddmendpoint}) for one in objects]
    dicts = [{"pfn": one.pfn, "ddmendpoint": one.ddmendpoint, "domain": ""} for one in objects]
    for forms in (objects, tuples, dicts):
        assert StageInClient.sort_replicas(forms, ["A"]) == [forms[1], forms[0]]
        assert StageInClient.sort_replicas(forms, []) == forms
        assert StageInClient.get_preferred_replica(forms, ["https"]) == forms[1]
        assert StageInClient.get_preferred_replica(forms, None) == forms[0]
        assert StageInClient.get_preferred_replica(forms, ["srm"]) is None


def test_a_replica_reads_as_a_dictionary_too() -> None:
    replica = Replica("A", "root://a//f", "lan", 2)
    assert dict(replica) == {"ddmendpoint": "A", "pfn": "root://a//f", "domain": "lan", "priority": 2}
    assert replica["pfn"] == "root://a//f" and replica.get("none", "x") == "x"
    with pytest.raises(KeyError):
        replica["keys"]


def test_replicas_come_from_what_rucio_says_or_from_the_storages(tmp_path: Path, work: Path) -> None:
    client = stagein(tmp_path, work)
    pfns: Json = {"root://r//f": {"rse": "R", "domain": "wan", "priority": 1}, "davs://r/f": {"rse": "R"}}
    spec = client.add_replicas(FileSpec("f", scope="mc"), {"scope": "mc", "name": "f", "pfns": pfns})
    assert spec.replicas == [Replica("R", "root://r//f", "wan", 1), Replica("R", "davs://r/f")]
    computed = stored(tmp_path)
    client.resolve_replicas([spec, computed], use_vp=True)
    assert len(spec.replicas) == 2
    assert [(one.ddmendpoint, one.domain) for one in computed.replicas] == [("A", "lan")]


def test_protocols_and_storages_are_filled_in(tmp_path: Path, work: Path) -> None:
    client, spec = stagein(tmp_path, work), stored(tmp_path)
    client.prepare_inputddms([spec])
    client.prepare_sources([spec])
    client.require_protocols([spec], mv, "pr")
    assert spec.inputddms == ["A"] and spec.ddm_activity == ["pr"]
    assert (
        spec.turl
        == spec.surl
        == spec.protocols[0].endpoint + StageOutClient.get_path("mc", "f.root", str(tmp_path / "A"))
    )
    known = {"endpoint": "file://localhost", "path": str(tmp_path / "A"), "flavour": "local"}
    assert StageInClient.resolve_protocol(spec, ["file"]) == [known]
    assert StageInClient.resolve_protocol(spec, ["root"]) == []
    assert spec.protocols[0]["flavour"] == "local"
    local = FileSpec("g")
    client.require_protocols([local], mv, "pr", local_dir="/d")
    assert local.turl == "/d/g"


def test_destinations_and_their_surls_are_resolved(tmp_path: Path, work: Path) -> None:
    client = stageout(tmp_path, work)
    named, unnamed = FileSpec("a", "output", scope="mc", ddmendpoint="B"), FileSpec("b", "output", scope="mc")
    assert client.prepare_destinations([named, unnamed], ["pw"]) == [named, unnamed]
    assert [spec.ddmendpoint for spec in (named, unnamed)] == ["B", "A"]
    wanted = {"pfn": f"root://h//p/{StageOutClient.get_path('mc', 'a', '')[1:]}", "ddmendpoint": "B"}
    assert client.resolve_surl(named, {"endpoint": "root://h", "path": "/p"}, {}) == wanted
    assert client.resolve_surl(named, dict(Protocol("root://h", "/p")), {}) == wanted  # type: ignore[arg-type]
    with pytest.raises(PilotException, match="no storage for c"):
        StageOutClient(logger=LOG).prepare_destinations([FileSpec("c")], "pw")


def test_copytools_are_named_in_any_form(tmp_path: Path, work: Path) -> None:
    client = stagein(tmp_path, work)
    client.set_acopytools()
    assert client.acopytools == {"pr": ["mv"], "pw": ["https"]}
    assert StageInClient.get_default_copytools("rucio") == ["rucio"]
    assert StageInClient.get_default_copytools(["mv", "gfal"]) == ["mv", "gfal"]
    assert StageInClient.get_default_copytools("") == StageInClient.get_default_copytools(None) == []


@pytest.mark.parametrize(
    ("environ", "site_name"),
    [
        ({"SITE_NAME": "S", "OSG_SITE_NAME": "O"}, "S"),
        ({"ATLAS_SITE_NAME": "A", "OSG_SITE_NAME": "O"}, "A"),
        ({"OSG_SITE_NAME": "O"}, "O"),
        ({}, "ROAMING"),
    ],
)
def test_the_site_comes_from_the_environment(
    environ: dict[str, str], site_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SITE_NAME", "ATLAS_SITE_NAME", "OSG_SITE_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert StageInClient.detect_client_location()["site"] == site_name


def test_storages_are_found_by_name_and_number(tmp_path: Path) -> None:
    service = site(tmp_path)
    assert service.resolve_ddmendpoint_storageid() == {"A": 7, "B": 8}
    assert (service.get_storage_id("B"), service.get_ddmendpoint(7)) == (8, "A")
    assert service.resolve_storage_data(["A"])["A"].name == "A"
    assert service.resolve_queuedata(service.queuedata.name) is service.queuedata
    for call in (
        lambda: service.get_storage_id("X"),
        lambda: service.get_ddmendpoint(1),
        lambda: service.resolve_queuedata("X"),
    ):
        with pytest.raises(NotDefined):
            call()


# ---- helpers for copytools of one's own


@pytest.mark.parametrize(
    ("said", "reads", "code", "state"),
    [
        (
            "[ERROR] Server responded with an error: [3011] No such file or directory",
            True,
            C.MISSINGINPUTFILE,
            "NO_FILE",
        ),
        ("write failed: No space left on device", False, C.NOREMOTESPACE, "NO_SPACE"),
        ("Permission denied", True, C.STAGEINAUTHENTICATIONFAILURE, "PERMISSION_DENIED"),
        ("", False, C.STAGEOUTFAILED, "COPY_ERROR"),
    ],
)
def test_the_words_of_a_tool_become_an_error_dictionary(said: str, reads: bool, code: int, state: str) -> None:
    found = common.resolve_common_transfer_errors(said, is_stagein=reads)
    assert (found["rcode"], found["state"]) == (code, state)
    assert found["error"] == (said or "it failed")


def test_small_helpers_do_what_is_documented(tmp_path: Path) -> None:
    assert common.get_copysetup({"gfal": {"setup": "/opt/x.sh"}, "mv": {}, "odd": "text"}, "gfal") == "/opt/x.sh"
    assert [common.get_copysetup({"mv": {}, "odd": "text"}, name) for name in ("mv", "odd", "none")] == ["", "", ""]
    assert common.get_timeout(2**30) > common.get_timeout(0) == 3600
    assert common.get_timeout(0, add=5) == common.get_timeout(0) + 5
    files: list[dict[str, Json]] = [
        {"name": "a", "destination": "x"},
        {"name": "b", "destination": "y"},
        {"name": "c", "destination": "x"},
    ]
    assert common.merge_destinations(files) == {"x": [files[0], files[2]], "y": [files[1]]}
    with pytest.raises(ConversionFailure):
        common.merge_destinations([{"name": "a"}])


def test_a_file_is_compared_with_the_catalogues_checksum(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    spec = FileSpec("f")
    assert common.verify_catalog_checksum(spec, str(path)) == ("", "")
    assert spec.checksum == {"adler32": "024d0127"}
    assert common.verify_catalog_checksum(spec, str(path)) == ("", "")
    path.write_bytes(b"abd")
    state, text = common.verify_catalog_checksum(spec, str(path))
    assert state == "AD_MISMATCH" and "024d0127" in text and "024e0128" in text and spec.status == "failed"
    assert common.verify_catalog_checksum(FileSpec("f", checksum={"md5": "0" * 32}), str(path))[0] == "MD_MISMATCH"


# ---- stage_in_auto, stage_out_auto


def test_files_are_brought_in_and_taken_out_without_any_pilot(tmp_path: Path) -> None:
    for name in ("here", "there", "store"):
        (tmp_path / name).mkdir()
    (tmp_path / "store" / "a").write_bytes(CONTENTS)
    wanted: list[dict[str, Json]] = [
        {"name": "a", "source": str(tmp_path / "store" / "a"), "destination": str(tmp_path / "here"), "scope": "mc"},
        {"name": "lost", "source": str(tmp_path / "store" / "lost"), "destination": str(tmp_path / "here")},
        {"name": "a", "source": str(tmp_path / "store" / "a"), "destination": str(tmp_path / "there"), "bytes": 5},
    ]
    assert stage_in_auto(wanted) is wanted
    assert [(one["status"], one["errno"]) for one in wanted] == [
        ("transferred", 0), ("failed", C.MISSINGINPUTFILE), ("failed", C.STAGEINFAILED),
    ]  # fmt: skip
    assert wanted[0]["bytes"] == len(CONTENTS) and wanted[0]["adler32"]
    assert "lost is not at" in str(wanted[1]["errmsg"]) and "the catalogue says 5" in str(wanted[2]["errmsg"])
    assert [sorted(os.listdir(tmp_path / name)) for name in ("here", "there")] == [["a"], []]
    out: list[dict[str, Json]] = [
        {"name": "a", "source": str(tmp_path / "here"), "destination": str(tmp_path / "new" / "b")},
        {"name": "none", "source": str(tmp_path / "here"), "destination": str(tmp_path / "new" / "c")},
    ]
    stage_out_auto(out)
    assert [(one["status"], one["errno"]) for one in out] == [("transferred", 0), ("failed", C.MISSINGOUTPUTFILE)]
    assert (tmp_path / "new" / "b").read_bytes() == CONTENTS


@pytest.mark.parametrize(
    "bad", [{}, {"name": "a", "source": "/x"}, {"name": "../a", "source": "/x", "destination": "/"}]
)
def test_a_file_that_is_not_described_is_refused(bad: dict[str, Json]) -> None:
    with pytest.raises(PilotException):
        stage_in_auto([bad])
