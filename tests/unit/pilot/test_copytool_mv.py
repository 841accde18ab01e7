"""The copytool for mounted storage: real files, both checksums, and never half a file under a file's name."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool import common, mv
from pilot.copytool.common import Transfer
from pilot.info.filespec import FileSpec
from pilot.info.storagedata import StorageData
from pilot.util.filehandling import Copied, copy_with_checksum
from pilot.util.watch import Limits
from tests.unit.pilot import builders

C = ErrorCodes
CONTENTS = b"events " * 1000
SUMS = {"adler32": f"{zlib.adler32(CONTENTS):08x}", "md5": hashlib.md5(CONTENTS).hexdigest()}
BOTH = pytest.mark.parametrize("algorithm", ["adler32", "md5"])


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def transfer(work: Path, algorithm: str = "adler32", cancelled: Callable[[], bool] = lambda: False) -> Transfer:
    return builders.transfer(work, checksum_type=algorithm, cancelled=cancelled)


def stored(store: Path, lfn: str = "f.root", contents: bytes = CONTENTS) -> FileSpec:
    """An input that lies in storage."""
    (store / lfn).write_bytes(contents)
    return FileSpec(lfn, surl=f"file://localhost{store}/{lfn}")


def made(work: Path, store: Path, lfn: str = "f.root", contents: bytes = CONTENTS) -> FileSpec:
    """An output that the payload has made."""
    (work / lfn).write_bytes(contents)
    return FileSpec(lfn, "output", surl=f"file://localhost{store}/vo/3d/b9/{lfn}")


def fails(code: int, call: Callable[[], None], *said: str) -> None:
    with pytest.raises(PilotException) as raised:
        call()
    assert raised.value.code == code, raised.value
    assert all(text in raised.value.diag for text in said), raised.value.diag


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if not path.is_dir())


# ---- in


@BOTH
def test_a_file_is_brought_in_and_its_figures_are_noted(work: Path, store: Path, algorithm: str) -> None:
    spec = stored(store)
    mv.copy_in([spec], transfer(work, algorithm))
    assert (work / "f.root").read_bytes() == CONTENTS
    assert (spec.filesize, spec.checksum, spec.status) == (len(CONTENTS), {algorithm: SUMS[algorithm]}, "transferred")
    assert spec.turl == spec.surl
    assert names(work) == ["f.root"]


@BOTH
@pytest.mark.parametrize("setting", ["adler32", "md5"])
def test_the_catalogues_checksum_decides_by_which_a_file_is_compared(
    work: Path, store: Path, algorithm: str, setting: str
) -> None:
    spec = stored(store)
    spec.filesize, spec.checksum = len(CONTENTS), {algorithm: SUMS[algorithm]}
    mv.copy_in([spec], transfer(work, setting))
    assert spec.checksum == {algorithm: SUMS[algorithm]}


@pytest.mark.parametrize(("algorithm", "code"), [("adler32", C.GETADMISMATCH), ("md5", C.GETMD5MISMATCH)])
def test_a_damaged_file_is_refused_with_both_checksums_and_does_not_stay(
    work: Path, store: Path, algorithm: str, code: int
) -> None:
    spec = stored(store)
    spec.checksum = {algorithm: "0" * len(SUMS[algorithm])}
    fails(code, lambda: mv.copy_in([spec], transfer(work)), SUMS[algorithm], "0" * len(SUMS[algorithm]), spec.surl)
    assert names(work) == []
    assert spec.status == ""


def test_a_file_of_another_size_is_refused_with_both_sizes(work: Path, store: Path) -> None:
    spec = stored(store)
    spec.filesize = 5
    fails(C.STAGEINFAILED, lambda: mv.copy_in([spec], transfer(work)), f"{len(CONTENTS)} bytes", "the catalogue says 5")
    assert names(work) == []


def test_an_empty_file_is_a_file(work: Path, store: Path) -> None:
    spec = stored(store, contents=b"")
    spec.checksum = {"adler32": "00000001"}
    mv.copy_in([spec], transfer(work))
    assert (work / "f.root").read_bytes() == b""


def test_a_file_that_is_not_there_is_named_with_its_place(work: Path, store: Path) -> None:
    spec = FileSpec("f.root", surl=f"file://localhost{store}/none/f.root")
    fails(C.MISSINGINPUTFILE, lambda: mv.copy_in([spec], transfer(work)), "f.root is not at", spec.surl)


def test_the_files_before_the_first_bad_one_stay(work: Path, store: Path) -> None:
    good, bad, never = stored(store, "a"), FileSpec("b", surl=f"file://{store}/b"), stored(store, "c")
    fails(C.MISSINGINPUTFILE, lambda: mv.copy_in([good, bad, never], transfer(work)))
    assert names(work) == ["a"]
    assert (good.status, bad.status, never.status) == ("transferred", "", "")


def test_a_link_in_storage_is_followed(work: Path, store: Path) -> None:
    spec = stored(store, "real")
    (store / "link").symlink_to(store / "real")
    spec.lfn, spec.surl = "f.root", f"{store}/link"
    mv.copy_in([spec], transfer(work))
    assert (work / "f.root").read_bytes() == CONTENTS and not (work / "f.root").is_symlink()


def test_a_link_that_waits_at_the_target_is_replaced_and_not_followed(work: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (work / "f.root").symlink_to(tmp_path / "victim")
    mv.copy_in([stored(store)], transfer(work))
    assert (tmp_path / "victim").read_text() == "precious"
    assert (work / "f.root").read_bytes() == CONTENTS and not (work / "f.root").is_symlink()


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_what_is_no_plain_file_is_refused_without_waiting_for_it(work: Path, store: Path, kind: str) -> None:
    if kind == "directory":
        (store / "f.root").mkdir()
    else:
        os.mkfifo(store / "f.root")
    spec = FileSpec("f.root", surl=f"{store}/f.root")
    fails(C.STAGEINFAILED, lambda: mv.copy_in([spec], transfer(work)), spec.surl)


def test_a_cancelled_stage_in_leaves_nothing(work: Path, store: Path) -> None:
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 1

    spec = stored(store, contents=bytes(3_000_000))
    fails(C.STAGEINFAILED, lambda: mv.copy_in([spec], transfer(work, cancelled=cancelled)), "was cancelled")
    assert names(work) == []


def test_a_full_work_disk_has_its_own_code_and_nothing_half_written(small_disk: Path, store: Path) -> None:
    spec = stored(store, contents=bytes(2_000_000))
    spec.filesize = 2_000_000
    fails(C.NOLOCALSPACE, lambda: mv.copy_in([spec], transfer(small_disk)), "f.root", "2000000 bytes")
    assert names(small_disk) == []


@pytest.mark.parametrize("lfn", ["a#b.root", "a%20b", "a:b", "a@b~c+d=e", "x" * 255, "mc:ev.root#1"])
def test_odd_names_go_in_and_out_as_they_are(work: Path, store: Path, lfn: str) -> None:
    spec = made(work, store, lfn)
    mv.copy_out([spec], transfer(work))
    assert names(store) == [lfn]
    (work / lfn).unlink()
    mv.copy_in([spec], transfer(work))
    assert names(work) == [lfn] and (work / lfn).read_bytes() == CONTENTS


# ---- out


@BOTH
def test_a_file_is_taken_out_and_its_figures_are_noted(work: Path, store: Path, algorithm: str) -> None:
    spec = made(work, store)
    mv.copy_out([spec], transfer(work, algorithm))
    assert (store / "vo/3d/b9/f.root").read_bytes() == CONTENTS
    assert (spec.filesize, spec.checksum, spec.status) == (len(CONTENTS), {algorithm: SUMS[algorithm]}, "transferred")
    assert names(store) == ["f.root"]
    assert (work / "f.root").exists()


def test_a_file_of_an_earlier_attempt_is_replaced_in_one_step(work: Path, store: Path) -> None:
    spec = made(work, store)
    (store / "vo/3d/b9").mkdir(parents=True)
    (store / "vo/3d/b9/f.root").write_text("older")
    with (store / "vo/3d/b9/f.root").open() as reader:
        mv.copy_out([spec], transfer(work))
        assert reader.read() == "older"
    assert (store / "vo/3d/b9/f.root").read_bytes() == CONTENTS


def test_a_storage_that_is_not_mounted_is_not_made(work: Path, tmp_path: Path) -> None:
    """Its directory on a node where it is not mounted would be one of the node's own disk."""
    root = tmp_path / "nfs" / "data"
    described = StorageData({"name": "NFS", "arprotocols": {"pw": [{"endpoint": "file://", "path": f"{root}/"}]}})
    spec = replace(made(work, root), ddmendpoint="NFS")
    given = replace(transfer(work), storage_of={"NFS": described}.get)
    with pytest.raises(PilotException, match=f"storage NFS is not mounted here, there is no {root}") as caught:
        mv.copy_out([spec], given)
    assert caught.value.code == C.STAGEOUTFAILED and not (tmp_path / "nfs").exists()
    # Nor is what lies there missing, which would be news for a catalogue.
    fails(C.STAGEINFAILED, lambda: mv.copy_in([replace(spec, filetype="input")], given), f"there is no {root}")
    root.mkdir(parents=True)
    mv.copy_out([spec], given)
    assert (root / "vo/3d/b9/f.root").read_bytes() == CONTENTS


def test_a_file_that_is_none_of_the_jobs_is_left_alone_unless_it_is_the_same(work: Path, store: Path) -> None:
    spec = made(work, store)
    (store / "vo/3d/b9").mkdir(parents=True)
    there = store / "vo/3d/b9/f.root"
    there.write_bytes(b"x" * len(CONTENTS))
    with pytest.raises(PilotException, match="not overwritten") as caught:
        mv.copy_out([spec], replace(transfer(work), may_replace=False))
    assert (caught.value.code, there.read_bytes()) == (C.FILEEXISTS, b"x" * len(CONTENTS))
    there.write_bytes(CONTENTS)
    mv.copy_out([spec], replace(transfer(work), may_replace=False))
    assert [path.name for path in there.parent.iterdir()] == ["f.root"]


@pytest.mark.parametrize(("algorithm", "code"), [("adler32", C.PUTADMISMATCH), ("md5", C.PUTMD5MISMATCH)])
def test_storage_that_damages_files_is_found_out(
    work: Path, store: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, code: int
) -> None:
    real = copy_with_checksum

    def damaging(source: Path, target: Path, kind: str, cancelled: Callable[[], bool]) -> Copied:
        copied = real(source, target, kind, cancelled)
        target.write_bytes(b"X" + target.read_bytes()[1:])
        return copied

    monkeypatch.setattr(mv, "copy_with_checksum", damaging)
    spec = made(work, store)
    fails(code, lambda: mv.copy_out([spec], transfer(work, algorithm)), SUMS[algorithm], "f.root")
    assert names(store) == []
    assert spec.status == ""


def test_a_missing_output_is_named(work: Path, store: Path) -> None:
    spec = FileSpec("f.root", "output", surl=f"file://localhost{store}/f.root")
    fails(C.MISSINGOUTPUTFILE, lambda: mv.copy_out([spec], transfer(work)), "output file f.root is not there")


@pytest.mark.parametrize("kind", ["directory", "pipe", "broken link"])
def test_an_output_that_is_no_plain_file_is_missing(work: Path, store: Path, kind: str) -> None:
    if kind == "directory":
        (work / "f.root").mkdir()
    elif kind == "pipe":
        os.mkfifo(work / "f.root")
    else:
        (work / "f.root").symlink_to("/nonexistent")
    spec = FileSpec("f.root", "output", surl=f"{store}/f.root")
    fails(C.MISSINGOUTPUTFILE, lambda: mv.copy_out([spec], transfer(work)))


def test_full_storage_has_its_own_code_and_nothing_half_written(small_disk: Path, work: Path) -> None:
    spec = made(work, small_disk, contents=bytes(2_000_000))
    fails(C.NOREMOTESPACE, lambda: mv.copy_out([spec], transfer(work)), "no space at", "f.root")
    assert names(small_disk) == []


def test_storage_that_is_no_directory_is_a_failure_that_names_it(work: Path, store: Path) -> None:
    (store / "vo").write_text("a file")
    spec = made(work, store)
    fails(C.STAGEOUTFAILED, lambda: mv.copy_out([spec], transfer(work)), "f.root to", "Not a directory", str(store))


@pytest.mark.usefixtures("as_nobody")
def test_what_storage_refuses_is_denied_as_with_every_other_tool() -> None:
    with tempfile.TemporaryDirectory(prefix="pilotkit-test-", dir="/tmp") as place:
        work, store = Path(place, "work"), Path(place, "store")
        work.mkdir()
        store.mkdir()
        output, closed, below = made(work, store), stored(store, "closed"), FileSpec("b", surl=f"{store}/shut/b")
        (store / "closed").chmod(0)
        (store / "shut").mkdir(mode=0)
        store.chmod(0o555)
        fails(C.STAGEOUTAUTHENTICATIONFAILURE, lambda: mv.copy_out([output], transfer(work)), "Permission denied")
        for spec in (closed, below):
            fails(C.STAGEINAUTHENTICATIONFAILURE, lambda: mv.copy_in([spec], transfer(work)), "Permission denied")  # noqa: B023
        work.chmod(0o555)
        store.chmod(0o755)
        fails(C.STAGEINFAILED, lambda: mv.copy_in([stored(store)], transfer(work)), "Permission denied")


def test_a_cancelled_stage_out_leaves_nothing(work: Path, store: Path) -> None:
    spec = made(work, store, contents=bytes(3_000_000))
    fails(C.STAGEOUTFAILED, lambda: mv.copy_out([spec], transfer(work, cancelled=lambda: True)), "was cancelled")
    assert names(store) == []


# ---- links and moves, where the queue asks for them


def asking(work: Path, copy_type: str, **changes: Any) -> Transfer:
    return builders.transfer(work, options={"copy_type": copy_type}, **changes)


@pytest.fixture
def shared() -> Iterator[tuple[Path, Path]]:
    """A job's directory and a storage that other users can reach, which tmp_path is not."""
    with tempfile.TemporaryDirectory(prefix="pilotkit-test-", dir="/tmp") as place:
        work, store = Path(place, "work"), Path(place, "store")
        Path(place).chmod(0o755)
        for folder, mode in ((work, 0o777), (store, 0o755)):
            folder.mkdir()
            folder.chmod(mode)
        yield work, store


def test_an_input_is_a_link_where_the_payload_cannot_write_through_it(
    shared: tuple[Path, Path], request: pytest.FixtureRequest
) -> None:
    work, store = shared
    spec = stored(store)
    spec.filesize, spec.checksum = len(CONTENTS), {"adler32": SUMS["adler32"]}
    if os.geteuid() != 0:
        pytest.skip("only root can make a file that another user cannot change")
    request.getfixturevalue("as_nobody")
    mv.copy_in([spec], asking(work, "symlink,mv"))
    assert (work / "f.root").is_symlink() and (work / "f.root").read_bytes() == CONTENTS
    assert spec.status == "transferred" and names(work) == ["f.root"]
    spec.checksum = {"adler32": "00000000"}
    (work / "f.root").unlink()
    fails(C.GETADMISMATCH, lambda: mv.copy_in([spec], asking(work, "symlink")), SUMS["adler32"])
    assert names(work) == []


def test_an_input_that_the_payload_could_alter_is_copied_whatever_the_queue_says(work: Path, store: Path) -> None:
    for spec in (stored(store, "a"), stored(store, "b")):
        # An owner could allow himself to write.
        (store / spec.lfn).chmod(0o444 if spec.lfn == "a" else 0o666)
        mv.copy_in([spec], asking(work, "symlink"))
        assert not (work / spec.lfn).is_symlink()
        assert not os.path.samefile(work / spec.lfn, store / spec.lfn)


@pytest.mark.parametrize("copy_type", ["mv", "move"])
def test_an_input_is_never_moved_out_of_storage(work: Path, store: Path, copy_type: str) -> None:
    mv.copy_in([stored(store)], asking(work, copy_type))
    assert names(store) == names(work) == ["f.root"]


@BOTH
@pytest.mark.parametrize("copy_type", ["mv", "symlink,mv", "move cp"])
def test_an_output_that_is_moved_is_the_same_file_and_verified(
    work: Path, store: Path, algorithm: str, copy_type: str
) -> None:
    spec = made(work, store)
    inode = (work / "f.root").stat().st_ino
    mv.copy_out([spec], asking(work, copy_type, checksum_type=algorithm))
    assert (store / "vo/3d/b9/f.root").stat().st_ino == inode
    assert (spec.filesize, spec.checksum, spec.status) == (len(CONTENTS), {algorithm: SUMS[algorithm]}, "transferred")
    assert names(work) == [] and names(store) == ["f.root"]


def test_an_output_that_is_a_link_is_moved_and_not_its_link(work: Path, store: Path) -> None:
    spec = made(work, store)
    (work / "f.root").rename(work / "real")
    (work / "f.root").symlink_to("real")
    mv.copy_out([spec], asking(work, "mv"))
    assert (store / "vo/3d/b9/f.root").read_bytes() == CONTENTS and not (store / "vo/3d/b9/f.root").is_symlink()


def test_what_lies_outside_the_jobs_directory_is_never_moved_away(work: Path, store: Path, tmp_path: Path) -> None:
    spec = made(work, store)
    (work / "f.root").rename(tmp_path / "precious")
    (work / "f.root").symlink_to(tmp_path / "precious")
    mv.copy_out([spec], asking(work, "mv"))
    assert (store / "vo/3d/b9/f.root").read_bytes() == (tmp_path / "precious").read_bytes() == CONTENTS
    assert (store / "vo/3d/b9/f.root").stat().st_nlink == 1


def test_an_output_that_cannot_be_moved_to_another_disk_is_copied(small_disk: Path, work: Path) -> None:
    spec = made(work, small_disk)
    mv.copy_out([spec], asking(work, "mv"))
    assert (small_disk / "vo/3d/b9/f.root").read_bytes() == CONTENTS
    assert names(small_disk) == names(work) == ["f.root"]


@pytest.mark.parametrize("copy_type", ["", "copy", "cp", "symlink"])
def test_otherwise_an_output_is_copied(work: Path, store: Path, copy_type: str) -> None:
    mv.copy_out([made(work, store)], asking(work, copy_type))
    assert names(store) == names(work) == ["f.root"]


def test_an_output_that_may_not_take_its_place_stays_where_it_was(work: Path, store: Path) -> None:
    spec = made(work, store)
    (store / "vo/3d/b9").mkdir(parents=True)
    (store / "vo/3d/b9/f.root").write_text("another's")
    fails(C.FILEEXISTS, lambda: mv.copy_out([spec], asking(work, "mv", may_replace=False)), "not overwritten")
    fails(C.STAGEOUTFAILED, lambda: mv.copy_out([spec], asking(work, "mv", cancelled=lambda: True)), "was cancelled")
    assert names(work) == names(store) == ["f.root"] and (work / "f.root").read_bytes() == CONTENTS


def test_a_word_that_is_no_way_to_copy_is_named(work: Path, store: Path) -> None:
    for copy in (lambda: mv.copy_in([stored(store)], asking(work, "teleport")),
                 lambda: mv.copy_out([made(work, store)], asking(work, "cp,teleport"))):  # fmt: skip
        fails(C.QUEUEDATANOTOK, copy, "copytools[mv][copy_type] is 'teleport', which is none of copy, cp, symlink, mv")


def test_the_documented_helpers_answer_as_commands_do(work: Path) -> None:
    (work / "a").write_text("a")
    assert mv.copy(str(work / "a"), str(work / "b")) == (0, "", "")
    assert mv.move(str(work / "b"), str(work / "c")) == (0, "", "")
    assert mv.symlink(str(work / "c"), str(work / "d")) == (0, "", "")
    assert {path.name: path.read_text() for path in work.iterdir()} == {"a": "a", "c": "a", "d": "a"}
    for call in (mv.copy, mv.move):
        code, out, err = call(str(work / "none"), str(work / "e"))
        assert (code, out) == (2, "") and "No such file" in err
    assert mv.symlink("x", str(work / "a"))[0] == 17


# ---- what ARC is told


def listed(tmp_path: Path, spec: FileSpec, token: str = "") -> str:
    mv.create_output_list([spec], str(tmp_path), {"DISK": StorageData({"name": "DISK", "token": token})})
    return (tmp_path / "output.list").read_text()


@pytest.mark.parametrize(
    ("surl", "token", "line"),
    [
        ("root://h:1094//a/f", "T", "f root://h:1094//a/f:checksumtype=adler32:checksumvalue=0a0b0c0d\n"),
        ("srm://h:8443/a/f", "T", "f srm://h:8443;spacetoken=T/a/f:checksumtype=adler32:checksumvalue=0a0b0c0d\n"),
        ("srm://h:8443/a/f", "", "f srm://h:8443/a/f:checksumtype=adler32:checksumvalue=0a0b0c0d\n"),
    ],
)
def test_arc_is_told_where_a_file_goes_and_its_checksum(tmp_path: Path, surl: str, token: str, line: str) -> None:
    spec = FileSpec("f", "output", ddmendpoint="DISK", surl=surl, checksum={"adler32": "0a0b0c0d"})
    assert listed(tmp_path, spec, token) == line
    assert listed(tmp_path, replace(spec, lfn="g"), token).splitlines()[1].startswith("g ")


def test_arc_is_told_nothing_that_it_would_misread(tmp_path: Path) -> None:
    spec = FileSpec("f", "output", ddmendpoint="DISK", surl="root://h/a f")
    fails(C.QUEUEDATANOTOK, lambda: void(listed(tmp_path, spec)), "is no URL")
    fails(C.NOSTORAGE, lambda: void(listed(tmp_path, replace(spec, ddmendpoint="X"))), "storage X of f has no desc")
    fails(C.FILEHANDLINGFAILURE, lambda: void(listed(tmp_path / "none", replace(spec, surl="root://h/f"))), "written")
    assert not (tmp_path / "output.list").exists()


def void(_: object) -> None:
    """For what is called to fail."""


# ---- places


@pytest.mark.parametrize(
    ("surl", "path"),
    [
        ("file://localhost/a/b", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("file://host:99//a/b", "/a/b"),
        ("/a/b", "/a/b"),
        ("/a/b#c?d", "/a/b#c?d"),
        ("file://localhost/a/b#c%20d", "/a/b#c%20d"),
    ],
)
def test_a_place_is_a_path_on_this_node(surl: str, path: str) -> None:
    assert os.path.normpath(mv.local_path(surl)) == os.path.normpath(path)


@pytest.mark.parametrize(
    ("surl", "wanted"),
    [("file://localhost/a", True), ("/a", True), ("root://h/a", False), ("https://h/a", False), ("", False)],
)
def test_only_local_places_are_valid(surl: str, wanted: bool) -> None:
    spec = FileSpec("f", surl=surl)
    assert mv.is_valid_for_copy_in([spec]) is wanted
    assert mv.is_valid_for_copy_out([spec]) is wanted
    assert mv.is_valid_for_copy_in([]) and mv.is_valid_for_copy_out([])


# ---- comparing


@pytest.mark.parametrize(
    ("filesize", "checksum", "algorithm", "code"),
    [
        (0, {}, "adler32", 0),
        (10, {}, "adler32", 0),
        (10, {"adler32": "0000000a"}, "adler32", 0),
        (10, {"md5": "x"}, "adler32", 0),
        (11, {}, "adler32", C.STAGEINFAILED),
        (10, {"adler32": "0000000b"}, "adler32", C.GETADMISMATCH),
        (0, {"md5": "x"}, "md5", C.GETMD5MISMATCH),
        (11, {"adler32": "0000000b"}, "adler32", C.STAGEINFAILED),
    ],
)
def test_a_copy_is_compared_with_what_the_catalogue_knows(
    filesize: int, checksum: dict[str, str], algorithm: str, code: int
) -> None:
    spec = FileSpec("f", filesize=filesize, checksum=checksum)
    copied = Copied(10, "0000000a")
    if code:
        fails(code, lambda: common.verify_copied(spec, copied, algorithm, "there"), "f from there")
    else:
        common.verify_copied(spec, copied, algorithm, "there")


@pytest.mark.parametrize("change", [{"size": 9}, {"checksum": "0000000b"}])
def test_what_was_stored_must_be_what_was_sent(change: dict[str, object]) -> None:
    sent = Copied(10, "0000000a")
    common.verify_stored(FileSpec("f"), sent, sent, "adler32", "there")
    arrived = replace(sent, **change)  # type: ignore[arg-type]
    fails(C.PUTADMISMATCH, lambda: common.verify_stored(FileSpec("f"), sent, arrived, "adler32", "there"), "there has")


@pytest.mark.parametrize(
    ("checksum", "wanted"), [({}, "adler32"), ({"md5": "x"}, "md5"), ({"adler32": "x"}, "adler32")]
)
def test_the_checksum_to_compare_is_the_one_the_catalogue_has(checksum: dict[str, str], wanted: str) -> None:
    assert common.expected_algorithm(FileSpec("f", checksum=checksum)) == wanted


@pytest.mark.parametrize("read", [True, False])
def test_a_disk_that_does_not_answer_any_more_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: bool
) -> None:
    over = threading.Event()

    def hang(*_: object) -> Copied:
        over.wait(30)
        return Copied(0, "")

    monkeypatch.setattr(mv, "copy_with_checksum", hang)
    (tmp_path / "f").write_bytes(b"events")
    spec = FileSpec("f", surl=str(tmp_path / "f") if read else str(tmp_path / "store" / "f"))
    slow = builders.transfer(tmp_path, limits=Limits(1.0, 60.0, 1e6))
    before = set(threading.enumerate())
    try:
        with pytest.raises(PilotException, match="no byte moved") as raised:
            (mv.copy_in if read else mv.copy_out)([spec], slow)
    finally:
        over.set()
        for thread in set(threading.enumerate()) - before:
            thread.join(20)
    assert raised.value.code == (C.STAGEINTIMEOUT if read else C.STAGEOUTTIMEOUT)
