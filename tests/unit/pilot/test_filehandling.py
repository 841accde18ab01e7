"""Files: checksums, atomic writes and trees that are removed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import FileHandlingFailure, PilotException
from pilot.util.blot import Secrets
from pilot.util.filehandling import (
    Cancelled,
    Checksum,
    calculate_checksum,
    copy_with_checksum,
    directory_size,
    get_guid,
    masked_tail,
    read_json,
    remove_tree,
    tail_bytes,
    write_atomically,
    write_json,
)
from tests.unit.pilot.builders import deep_tree

ROOT = Path(__file__).parents[3]


# ---- checksums and copies


@pytest.mark.parametrize(
    ("algorithm", "contents", "wanted"),
    [
        ("adler32", b"", "00000001"),
        ("adler32", b"hello\n", "084b021f"),  # as the recorded pilot reported it
        ("adler32", b"a" * 100, f"{zlib.adler32(b'a' * 100):08x}"),
        ("md5", b"", "d41d8cd98f00b204e9800998ecf8427e"),
        ("md5", b"hello\n", "b1946ac92492d2347c6235b4d2611184"),
    ],
)
def test_a_checksum_is_that_of_the_catalogues(tmp_path: Path, algorithm: str, contents: bytes, wanted: str) -> None:
    (tmp_path / "f").write_bytes(contents)
    assert calculate_checksum(str(tmp_path / "f"), algorithm) == wanted


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_a_checksum_does_not_depend_on_the_blocks(blocks: list[bytes]) -> None:
    adler, md5 = Checksum("adler32"), Checksum("md5")
    for block in blocks:
        adler.update(block)
        md5.update(block)
    whole = b"".join(blocks)
    assert (adler.value, md5.value) == (f"{zlib.adler32(whole):08x}", hashlib.md5(whole).hexdigest())


def test_an_unknown_checksum_type_has_its_code() -> None:
    with pytest.raises(PilotException, match="checksum type 'sha1' is not known") as raised:
        Checksum("sha1")
    assert raised.value.code == ErrorCodes.UNKNOWNCHECKSUMTYPE


def test_a_file_that_cannot_be_read_for_its_checksum_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileHandlingFailure, match="none cannot be read for its checksum: No such file"):
        calculate_checksum(str(tmp_path / "none"))


def test_a_big_file_costs_no_memory(tmp_path: Path) -> None:
    """Checksum, copy and tarball of 300 MB in a process that may not have 300 MB: none of them may hold the file."""
    big = tmp_path / "work" / "big"
    big.parent.mkdir()
    with big.open("wb") as stream:
        stream.truncate(300_000_000)
    program = f"""
import resource
from pathlib import Path
from pilot.util.filehandling import calculate_checksum, copy_with_checksum
from pilot.util.tarball import Bounds, Content, tar_directory
import tarfile
resource.setrlimit(resource.RLIMIT_DATA, (100_000_000, 100_000_000))
work = Path({str(big.parent)!r})
assert calculate_checksum(str(work / "big"), "adler32") == copy_with_checksum(
    work / "big", work / "copy", "adler32", lambda: False).checksum
for limit in (250_000_000, 400_000_000):
    tar_directory(Content(work, skip=["copy"]), work / "log.tgz", "root", Bounds(1, limit, 10**10, 100))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_copy_is_the_same_and_knows_its_checksum(tmp_path: Path) -> None:
    contents = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(contents)
    copied = copy_with_checksum(tmp_path / "a", tmp_path / "b", "md5", lambda: False)
    assert (tmp_path / "b").read_bytes() == contents
    assert (copied.size, copied.checksum) == (3_000_000, hashlib.md5(contents).hexdigest())


def test_a_copy_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    with pytest.raises(FileExistsError):
        copy_with_checksum(tmp_path / "a", tmp_path / "b", "adler32", lambda: False)
    assert (tmp_path / "b").read_text() == "old"


def test_a_copy_can_be_cancelled_between_two_blocks(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(5_000_000))
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(Cancelled):
        copy_with_checksum(tmp_path / "a", tmp_path / "b", "adler32", cancelled)
    assert 0 < (tmp_path / "b").stat().st_size < 5_000_000


# ---- small files


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"old")
    seen: set[bytes] = set()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        write_atomically(path, b"x" * (number * 100))
    over.set()
    reader.join()
    assert seen <= {b"old"} | {b"x" * (number * 100) for number in range(200)}
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_write_that_fails_leaves_nothing_and_the_old_file(small_disk: Path) -> None:
    path = small_disk / "f"
    write_atomically(path, b"old")
    with pytest.raises(OSError):
        write_atomically(path, bytes(2_000_000))
    assert path.read_bytes() == b"old"
    assert [p.name for p in small_disk.iterdir()] == ["f"]


def test_json_survives_a_file(tmp_path: Path) -> None:
    name = str(tmp_path / "f.json")
    write_json(name, {"b": [1, None, "é"], "a": True})
    assert read_json(name) == {"a": True, "b": [1, None, "é"]}


def test_what_is_no_json_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileHandlingFailure, match=r"f\.json cannot be written"):
        write_json(str(tmp_path / "f.json"), {"a": object()})  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("contents", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_file_that_is_no_json_is_named(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "f.json").write_bytes(contents)
    with pytest.raises(FileHandlingFailure, match=r"f\.json is not valid JSON: "):
        read_json(str(tmp_path / "f.json"))


def test_a_json_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileHandlingFailure, match=r"f\.json cannot be read: No such file or directory"):
        read_json(str(tmp_path / "f.json"))


@pytest.mark.parametrize(
    ("size", "wanted"), [(0, b""), (1, b"9"), (4, b"6789"), (10, b"0123456789"), (99, b"0123456789")]
)
def test_a_tail_is_the_end_of_a_file(tmp_path: Path, size: int, wanted: bytes) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    assert tail_bytes(tmp_path / "f", size) == wanted


def test_a_file_that_is_not_there_has_no_tail(tmp_path: Path) -> None:
    assert tail_bytes(tmp_path / "none", 10) == b""


@pytest.mark.parametrize("size", [1, 5, 6, 11, 12, 40, 100])
def test_a_tail_has_no_secret_in_it_nor_the_half_of_one(tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_text("some c4na7y-c4na7y words c4na7y-c4na7y the end")
    masked = f"some {'*' * 13} words {'*' * 13} the end"
    assert masked_tail(tmp_path / "f", size, Secrets(["c4na7y-c4na7y"])).decode() == masked[-size:]


def test_a_guid_is_new_each_time_and_in_upper_case() -> None:
    first, second = get_guid(), get_guid()
    assert first != second and first == first.upper() and len(first) == 36 and first.count("-") == 4


def test_the_size_of_a_directory_is_what_it_takes_on_disk(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f").write_bytes(os.urandom(100_000))
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(10**10)
    (tmp_path / "link").symlink_to("/usr")
    assert 100_000 <= directory_size(tmp_path) < 1_000_000
    assert directory_size(tmp_path / "none") == 0


# ---- trees that go


def test_a_tree_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "f").write_text("")
    (tree / "link").symlink_to(outside)
    (tree / "broken").symlink_to("/nonexistent")
    os.mkfifo(tree / "pipe")
    assert remove_tree(tree) is None
    assert not tree.exists()
    assert (outside / "kept").exists()


def test_a_link_to_a_tree_is_no_tree(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "tree")
    problem = remove_tree(tmp_path / "link")
    assert problem is not None and "is a link" in problem
    assert (tmp_path / "tree").stat().st_mode & 0o777 == 0o755


def test_a_tree_that_is_not_there_is_no_problem(tmp_path: Path) -> None:
    assert remove_tree(tmp_path / "none") is None


@pytest.mark.usefixtures("as_nobody")
def test_a_tree_goes_although_its_payload_took_its_permissions_away() -> None:
    with tempfile.TemporaryDirectory(prefix="pilotkit-test-", dir="/tmp") as place:
        tree = Path(place, "tree")
        (tree / "a" / "b").mkdir(parents=True)
        (tree / "a" / "b" / "f").write_text("")
        (tree / "a" / "f").write_text("")
        outside = Path(place, "outside")
        outside.mkdir(mode=0o500)
        (tree / "a" / "link").symlink_to(outside)
        for path in (tree / "a" / "b", tree / "a", tree):
            path.chmod(0)
        assert remove_tree(tree) is None
        assert not tree.exists()
        assert outside.stat().st_mode & 0o777 == 0o500


@pytest.mark.usefixtures("as_nobody")
def test_a_tree_that_cannot_go_is_named_and_what_is_above_it_stays_as_it_is() -> None:
    with tempfile.TemporaryDirectory(prefix="pilotkit-test-", dir="/tmp") as place:
        tree = Path(place, "tree")
        tree.mkdir()
        os.chmod(place, 0o555)
        problem = remove_tree(tree)
        assert os.stat(place).st_mode & 0o777 == 0o555
        assert problem is not None and str(tree) in problem
        os.chmod(place, 0o755)


def test_removing_warns_of_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    remove_tree(tmp_path / "tree")
    assert [str(warning.message) for warning in recwarn] == []


def test_a_tree_of_a_thousand_levels_is_measured_and_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    with deep_tree(tree, "d", 1200):
        assert directory_size(tree) >= 100_000
        assert remove_tree(tree) is None and not tree.exists()


def test_what_is_mounted_in_a_tree_stays(small_disk: Path) -> None:
    (small_disk / "f").write_text("of somebody else")
    problem = remove_tree(small_disk.parent)
    assert problem is not None and "something is mounted there" in problem
    assert (small_disk / "f").exists()
