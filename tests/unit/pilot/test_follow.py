"""A file is followed piece by piece: nothing twice, nothing cut in two, nothing outside of the folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies

from pilot.util.follow import Follower

BIG = 10**9


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    made = Follower(tmp_path, "out")
    yield made
    made.close()


def write(tmp_path: Path, data: bytes, name: str = "out") -> None:
    with (tmp_path / name).open("ab") as stream:
        stream.write(data)


def read(follower: Follower, limit: int = 100, backlog: int = BIG, *, final: bool = False) -> bytes | None:
    piece = follower.read(limit, backlog, final=final)
    return None if piece is None else piece.data


def test_whole_lines_come_as_they_are_written(tmp_path: Path, follower: Follower) -> None:
    assert read(follower) is None, "there is no file yet"
    write(tmp_path, b"one\ntw")
    assert read(follower) == b"one\n"
    assert read(follower) is None, "the line may go on"
    write(tmp_path, b"o\n")
    assert read(follower) == b"two\n"
    assert read(follower) is None


def test_a_line_that_stands_still_is_shown_up_to_its_last_word(tmp_path: Path, follower: Follower) -> None:
    write(tmp_path, b"really? [y/n] password=ab")
    assert read(follower) is None
    assert read(follower) == b"really? [y/n] "
    write(tmp_path, b"c")
    assert read(follower, final=True) == b"password=abc"
    assert read(follower, final=True) is None


def test_a_long_line_is_cut_between_words(tmp_path: Path, follower: Follower) -> None:
    write(tmp_path, b"12345678 " * 30)
    assert read(follower) == b"12345678 " * 11


def test_a_word_longer_than_a_piece_is_left_out_and_counted(tmp_path: Path, follower: Follower) -> None:
    write(tmp_path, b"x" * 250 + b" same line\nbehind it\n")
    assert read(follower) is None
    assert read(follower) is None
    piece = follower.read(100, BIG)
    assert piece is not None and (piece.data, piece.dropped, piece.offset) == (b"behind it\n", 261, 261)


def test_what_is_left_out_at_the_very_end_is_told_too(tmp_path: Path, follower: Follower) -> None:
    write(tmp_path, b"x" * 250)
    pieces = [follower.read(100, BIG, final=True) for _ in range(4)]
    told = [piece for piece in pieces if piece is not None]
    assert [(piece.data, piece.dropped) for piece in told] == [(b"", 250)]


def test_of_too_much_the_newest_is_kept_from_the_next_word_on(tmp_path: Path, follower: Follower) -> None:
    write(tmp_path, b"".join(b"line %04d\n" % number for number in range(1000)))
    piece = follower.read(1000, 95)
    assert piece is not None
    assert piece.data == b"".join(b"line %04d\n" % number for number in range(991, 1000))
    assert piece.dropped == piece.offset == 10000 - len(piece.data)
    assert follower.unread() == 0


def test_a_file_that_is_begun_anew_is_read_from_its_beginning(tmp_path: Path, follower: Follower) -> None:
    write(tmp_path, b"a long first line\n")
    assert read(follower)
    os.truncate(tmp_path / "out", 0)
    write(tmp_path, b"new\n")
    assert read(follower) == b"new\n"


def test_a_file_that_was_opened_is_read_to_its_end_after_it_was_removed(tmp_path: Path, follower: Follower) -> None:
    write(tmp_path, b"the end\n")
    follower.open()
    (tmp_path / "out").unlink()
    assert read(follower, final=True) == b"the end\n"


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a\0b"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="below a folder"):
        Follower(tmp_path, name)


def test_no_link_is_followed_and_nothing_but_a_plain_file_is_opened(tmp_path: Path) -> None:
    root = tmp_path / "job"
    (root / "real").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "beside").mkdir()
    write(tmp_path, b"secret\n", "beside/log")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path / "beside")
    os.mkfifo(root / "fifo")
    write(root, b"fine\n", "real/log")
    for name, expected in (
        ("link", None),
        ("folder/log", None),
        ("fifo", None),
        ("real", None),
        ("real/log", b"fine\n"),
    ):
        follower = Follower(root, name)
        assert read(follower, final=True) == expected, name
        follower.close()


@given(
    strategies.lists(strategies.binary(max_size=40).map(lambda data: data.replace(b"x", b"\n")), max_size=8),
    strategies.integers(1, 50),
)
def test_all_bytes_are_read_once_or_counted_as_left_out(
    tmp_path_factory: pytest.TempPathFactory, written: list[bytes], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("f")
    follower = Follower(folder, "out")
    end = 0

    def take(*, final: bool) -> bool:
        nonlocal end
        before = follower.unread()
        piece = follower.read(limit, BIG, final=final)
        if piece is not None:
            assert piece.offset == end + piece.dropped
            assert whole[piece.offset : piece.offset + len(piece.data)] == piece.data
            end = piece.offset + len(piece.data)
        return piece is not None or follower.unread() != before or (final and follower.unread() > 0)

    whole = b""
    for data in written:
        write(folder, data)
        whole += data
        take(final=False)
    while take(final=True):
        pass
    assert end == len(whole)
    follower.close()
