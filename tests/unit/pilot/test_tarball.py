"""The log tarball: whatever a payload has left behind, it is made, bounded, and holds nobody's secrets."""

from __future__ import annotations

import base64
import os
import socket
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import LogFileCreationFailure, PilotException
from pilot.util import tarball
from pilot.util.blot import Secrets
from pilot.util.filehandling import remove_tree
from pilot.util.tarball import LEFT_OUT, Bounds, Content, tar_directory
from tests.unit.pilot.builders import deep_tree


def pack(work: Path, limit: int = 10_000, *, total: int = 10**10, files: int = 1000, **content: Any) -> Path:
    tarball = work / "log.tgz"
    bounds = Bounds(1, limit, total, files)
    tar_directory(Content(work, **content), tarball, "tarball_PandaJob_254_Q", bounds)
    return tarball


def unpack(tarball: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(tarball) as archive:
        for member in archive:
            assert member.isfile(), member.name
            stream = archive.extractfile(member)
            assert stream is not None
            found[member.name.partition("/")[2]] = stream.read()
            assert member.name.startswith("tarball_PandaJob_254_Q/")
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
    return found


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made = tmp_path / "PanDA_Pilot-254"
    (made / "sub" / "deep").mkdir(parents=True)
    (made / "payload.stdout").write_text("hello\n")
    (made / "sub" / "deep" / "f").write_bytes(b"\0\1\2\xff" * 100)
    return made


def test_a_tarball_holds_the_files_of_a_directory_and_what_is_added(work: Path) -> None:
    got = unpack(pack(work, extra=(("pilotlog.txt", b"what happened\n"),)))
    assert got == {
        "payload.stdout": b"hello\n",
        "sub/deep/f": b"\0\1\2\xff" * 100,
        "pilotlog.txt": b"what happened\n",
    }


def test_a_tarball_holds_neither_itself_nor_what_is_skipped(work: Path) -> None:
    (work / "log.tgz").write_text("an older one")
    (work / "out.root").write_text("large")
    (work / "tmp").mkdir()
    (work / "tmp" / "junk").write_text("")
    (work / "sub" / "out.root").write_text("only the one above is skipped")
    assert sorted(unpack(pack(work, skip=("log.tgz", "out.root", "tmp")))) == [
        "payload.stdout",
        "sub/deep/f",
        "sub/out.root",
    ]
    assert not [path for path in work.iterdir() if path.name.endswith(".part")]


def test_links_pipes_and_sockets_are_left_out(work: Path) -> None:
    (work / "secret").symlink_to("/etc/passwd")
    (work / "escape").symlink_to("/etc")
    (work / "inside").symlink_to("payload.stdout")
    (work / "broken").symlink_to("/nonexistent")
    os.mkfifo(work / "pipe")
    here = os.getcwd()
    os.chdir(work)  # the path of a socket may have 108 characters
    try:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind("socket")
        got = unpack(pack(work))
        listening.close()
        assert sorted(got) == ["payload.stdout", LEFT_OUT, "sub/deep/f"]
        assert got[LEFT_OUT].decode().splitlines() == [
            "broken: a link",
            "escape: a link",
            "inside: a link",
            "pipe: a socket, pipe or device",
            "secret: a link",
            "socket: a socket, pipe or device",
        ]
    finally:
        os.chdir(here)


def test_hard_links_are_two_good_files(work: Path) -> None:
    os.link(work / "payload.stdout", work / "second")
    with tarfile.open(pack(work)) as archive:
        for name in ("payload.stdout", "second"):
            stream = archive.extractfile(f"tarball_PandaJob_254_Q/{name}")
            assert stream is not None and stream.read() == b"hello\n"


@pytest.mark.parametrize("size", [9_999, 10_000])
def test_a_file_up_to_the_limit_is_whole(work: Path, size: int) -> None:
    contents = os.urandom(size)
    (work / "big").write_bytes(contents)
    assert unpack(pack(work))["big"] == contents


@pytest.mark.parametrize("size", [10_001, 123_457])
def test_a_larger_file_is_cut_to_its_first_and_last_half(work: Path, size: int) -> None:
    contents = os.urandom(size)
    (work / "big").write_bytes(contents)
    got = unpack(pack(work))["big"]
    mark = f"\n[... {size - 10_000} bytes left out by the pilot ...]\n".encode()
    assert got == contents[:5000] + mark + contents[-5000:]


def test_a_line_of_ten_megabytes_and_nul_bytes_go_in_as_they_are(work: Path) -> None:
    (work / "payload.stdout").write_bytes(b"x" * 10_000_000 + b"\0\n")
    assert unpack(pack(work, limit=20_000_000))["payload.stdout"] == b"x" * 10_000_000 + b"\0\n"


@pytest.mark.parametrize("grown", [1_000, 9_500, 18_000, 60_000])
@pytest.mark.parametrize("size", [9_000, 50_000])
def test_a_file_that_changes_while_it_is_packed_does_not_spoil_the_tarball(
    work: Path, monkeypatch: pytest.MonkeyPatch, grown: int, size: int
) -> None:
    growing = work / "growing"
    growing.write_bytes(b"g" * size)
    real = tarball._Packing._write

    def write(packing: Any, name: str, *rest: Any) -> None:
        if name == "growing":
            os.truncate(growing, grown)
        real(packing, name, *rest)

    monkeypatch.setattr(tarball._Packing, "_write", write)
    got = unpack(pack(work))
    assert got["payload.stdout"] == b"hello\n" and got["sub/deep/f"]
    assert got["growing"].startswith(b"g" * 1000)
    assert len(got["growing"]) == (size if size == 9_000 else 10_000 + got["growing"].count(b"[... 40000 bytes") * 45)
    assert (b"bytes of it could not be read" in got.get(LEFT_OUT, b"")) == (grown < size)


def test_a_file_that_becomes_a_pipe_or_a_link_or_vanishes_holds_nothing_up(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tarball._Packing._add_file
    names = ["gone", "link", "pipe"]
    for name in names:
        (work / name).write_text("a file when it was looked at")

    def add(packing: Any, path: str, name: str) -> None:
        if name in names:
            os.unlink(path)
        if name == "pipe":
            os.mkfifo(path)
        elif name == "link":
            os.symlink("/etc/passwd", path)
        real(packing, path, name)

    monkeypatch.setattr(tarball._Packing, "_add_file", add)
    got = unpack(pack(work))
    assert sorted(got) == ["payload.stdout", LEFT_OUT, "sub/deep/f"]
    assert b"gone: it has vanished\n" in got[LEFT_OUT] and b"link: it cannot be read: Too many" in got[LEFT_OUT]


def test_a_file_that_may_not_be_read_is_left_out(as_nobody: None) -> None:
    with tempfile.TemporaryDirectory(prefix="pilotkit-test-", dir="/tmp") as place:
        work = Path(place, "work")
        (work / "locked").mkdir(parents=True)
        (work / "payload.stdout").write_text("hello\n")
        (work / "unreadable").write_text("secret")
        (work / "unreadable").chmod(0)
        (work / "locked").chmod(0)
        got = unpack(pack(work))
        (work / "locked").chmod(0o700)
    assert got.pop(LEFT_OUT).decode().splitlines() == [
        "unreadable: it cannot be read: Permission denied",
        "locked: it cannot be read: Permission denied",
    ]
    assert got == {"payload.stdout": b"hello\n"}


def test_odd_names_are_names(work: Path) -> None:
    odd = [b"a b", b"new\nline", b"\xff\xfe", "é".encode(), b"-rf", b"x" * 255]
    for name in odd:
        Path(os.fsdecode(os.path.join(os.fsencode(work), name))).write_text("1")
    got = unpack(pack(work))
    assert {os.fsencode(name) for name in got} >= set(odd)


def test_an_empty_directory_makes_a_good_tarball(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert unpack(pack(tmp_path / "empty")) == {}


def test_a_full_disk_has_its_own_code_and_nothing_is_left(small_disk: Path) -> None:
    work = small_disk / "work"
    work.mkdir()
    (work / "noise").write_bytes(os.urandom(700_000))
    (work / "more").write_bytes(os.urandom(348_000))
    with pytest.raises(PilotException, match="no space for the log tarball") as raised:
        pack(work, limit=10**9)
    assert raised.value.code == ErrorCodes.NOLOCALSPACE
    assert sorted(path.name for path in work.iterdir()) == ["more", "noise"]


def test_on_a_disk_that_is_nearly_full_the_pilots_own_log_goes_alone(small_disk: Path) -> None:
    work = small_disk / "work"
    work.mkdir()
    (work / "noise").write_bytes(os.urandom(700_000))
    log = os.urandom(500_000)
    got = unpack(pack(work, limit=10**9, extra=[("pilotlog.txt", log)]))
    assert got == {"pilotlog.txt": log[-65536:], LEFT_OUT: b"everything but the pilot's log: the disk is full\n"}


def test_a_tarball_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with pytest.raises(LogFileCreationFailure, match=r"cannot be made: .*No such file or directory"):
        tar_directory(Content(tmp_path / "work"), tmp_path / "none" / "log.tgz", "r", Bounds(1, 100, 100, 100))


def test_a_name_that_the_payload_has_taken_for_something_else_is_taken_back(work: Path) -> None:
    (work / "log.tgz" / "below").mkdir(parents=True)
    (work / ".log.tgz.part").symlink_to("/nonexistent/elsewhere")
    assert sorted(unpack(pack(work, skip=["log.tgz"]))) == ["payload.stdout", "sub/deep/f"]


def test_the_whole_tarball_is_bounded_and_the_logs_come_first(work: Path) -> None:
    for name in ("a", "b"):
        (work / name).write_bytes(os.urandom(9_000))
    (work / "z").write_text("small")
    got = unpack(pack(work, total=20_000, first=["payload.stdout"]))
    assert sorted(got) == ["a", "payload.stdout", LEFT_OUT, "z"][:1] + sorted(
        ["payload.stdout", LEFT_OUT, "sub/deep/f", "z"]
    )
    assert got[LEFT_OUT] == b"b: the tarball would be too large: 9000 bytes\n"


def test_more_files_than_a_tarball_takes_are_counted(work: Path) -> None:
    for number in range(3000):
        (work / "sub" / f"f{number:04d}").write_text("")
    got = unpack(pack(work, files=500))
    lines = got.pop(LEFT_OUT).decode().splitlines()
    assert len(got) == 500 and len(lines) <= 1001
    assert lines[0] == "sub: it has more than 500 entries, and not all were looked at"
    assert all(line.endswith(": there are too many files") for line in lines[1:])


def test_a_tree_deeper_than_any_path_is_no_hindrance(work: Path) -> None:
    with deep_tree(work / "deep", "d" * 200, 1500):
        got = unpack(pack(work))
        assert sorted(got) == ["payload.stdout", LEFT_OUT, "sub/deep/f"]
        assert remove_tree(work) is None and not work.exists()


def test_private_keys_and_core_dumps_are_left_out_wherever_they_lie(work: Path) -> None:
    core = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\x00" + bytes(100)
    (work / "sub" / "proxy").write_text("-----BEGIN RSA PRIVATE KEY-----\nc4na7y\n")
    (work / "sub" / "core").write_bytes(core)
    (work / "core.7").write_bytes(core)
    (work / "core.text").write_text("an apple has one")
    (work / "program").write_bytes(core.replace(b"\x04\x00", b"\x02\x00"))
    got = unpack(pack(work, whole=["core.7"]))
    assert sorted(got) == ["core.7", "core.text", "payload.stdout", LEFT_OUT, "program", "sub/deep/f"]
    assert got[LEFT_OUT] == b"sub/core: a core dump\nsub/proxy: it holds a private key\n"


@pytest.mark.parametrize("shift", [-100, -33, -20, -1, 0, 1])
def test_a_secret_is_masked_in_every_file_also_across_the_borders_of_pieces(work: Path, shift: int) -> None:
    secret = b"c4na7y" * 8
    secrets = Secrets([secret.decode()])
    piece = 1024 * 1024
    filler = bytearray(os.urandom(3 * piece))
    for border in (0, piece, 2 * piece):
        place = max(0, border + shift)
        filler[place : place + len(secret)] = secret
    (work / "noise").write_bytes(filler)
    encoded = base64.b64encode(b"Basic:" + secret)
    (work / "payload.stdout").write_bytes(b"x" * 65_530 + encoded + b"\nthe end\n")
    got = unpack(pack(work, limit=10**7, secrets=secrets))
    assert len(got["noise"]) == len(filler) and b"c4na7y" not in got["noise"]
    assert got["noise"].count(b"*" * len(secret)) == 3
    assert got["payload.stdout"].endswith(b"\nthe end\n") and encoded[12:40] not in got["payload.stdout"]


def test_a_secret_at_the_edge_of_what_is_cut_is_masked_too(work: Path) -> None:
    secret = b"c4na7y" * 8
    data = bytearray(b"." * 100_000)
    for place in (5_000 - 20, 95_000 - 20):
        data[place : place + len(secret)] = secret
    (work / "big").write_bytes(data)
    got = unpack(pack(work, secrets=Secrets([secret.decode()])))["big"]
    assert b"c4na" not in got and got.count(b"*") == len(secret)


def test_a_secret_in_the_name_of_a_file_is_masked_too(work: Path) -> None:
    (work / "c4na7y-c4na7y-1").write_text("plain")
    (work / "c4na7y-c4na7y-2").symlink_to("/nowhere")
    got = unpack(pack(work, secrets=Secrets(["c4na7y-c4na7y"])))
    assert got["*************-1"] == b"plain" and got[LEFT_OUT] == b"***-2: a link\n"
