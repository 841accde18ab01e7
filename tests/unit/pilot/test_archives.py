"""Archives of output files: readable by everybody's tools, whole or not there."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from pilot.util.archives import pack, size_of
from pilot.util.filehandling import Cancelled

BOTH = pytest.mark.parametrize("tar", [False, True], ids=["zip", "tar"])


def never() -> bool:
    return False


@pytest.fixture
def members(tmp_path: Path) -> dict[str, Path]:
    files = {"b.root": b"events" * 500_000, "a.txt": b"text", "empty": b""}
    for name, contents in files.items():
        (tmp_path / name).write_bytes(contents)
    return {name: tmp_path / name for name in files}


def unpacked(archive: Path, tar: bool) -> dict[str, bytes]:
    if not tar:
        with zipfile.ZipFile(archive) as opened:
            assert opened.testzip() is None
            assert {info.compress_type for info in opened.infolist()} == {zipfile.ZIP_STORED}
            return {name: opened.read(name) for name in opened.namelist()}
    with tarfile.open(archive, "r:") as found:
        return {member.name: found.extractfile(member).read() for member in found}  # type: ignore[union-attr]


@BOTH
def test_files_are_packed_in_their_order_without_compression(
    tmp_path: Path, members: dict[str, Path], tar: bool
) -> None:
    target = tmp_path / "out"
    target.write_text("an older one")
    pack(target, members, tar=tar, cancelled=never)
    found = unpacked(target, tar)
    assert list(found) == ["b.root", "a.txt", "empty"]
    assert found == {name: path.read_bytes() for name, path in members.items()}
    assert sum(map(len, found.values())) < target.stat().st_size <= size_of(members)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.root", "empty", "out"]


@BOTH
def test_what_is_stopped_or_fails_leaves_nothing(tmp_path: Path, members: dict[str, Path], tar: bool) -> None:
    asked: list[int] = []
    with pytest.raises(Cancelled):
        pack(tmp_path / "out", members, tar=tar, cancelled=lambda: len(asked) > 1 or bool(asked.append(1)))
    with pytest.raises(FileNotFoundError):
        pack(tmp_path / "out", {"x": tmp_path / "x"}, tar=tar, cancelled=never)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.root", "empty"]


@BOTH
def test_a_file_of_the_year_1970_and_one_with_two_names_are_packed(tmp_path: Path, tar: bool) -> None:
    (tmp_path / "old").write_text("old")
    os.utime(tmp_path / "old", (0, 0))
    os.link(tmp_path / "old", tmp_path / "again")
    pack(tmp_path / "out", {name: tmp_path / name for name in ("old", "again")}, tar=tar, cancelled=never)
    assert unpacked(tmp_path / "out", tar) == {"old": b"old", "again": b"old"}
