"""Files on their way to and from the libraries of object stores: every byte once in the sums, and nothing half-done."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from pilot.copytool.helpers.streams import Sink, Source, checksum_of
from pilot.util.filehandling import Checksum

CONTENTS = os.urandom(100_000)
ADLER = f"{zlib.adler32(CONTENTS):08x}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "f").write_bytes(CONTENTS)
    return tmp_path / "f"


def nothing(count: int) -> None:
    """Progress that nobody looks at."""


def test_a_sink_writes_counts_and_sums(tmp_path: Path) -> None:
    checksum, moved = Checksum(), []
    with Sink(str(tmp_path / "new"), [checksum], moved.append) as sink:
        assert [sink.write(CONTENTS[:70_000]), sink.write(CONTENTS[70_000:])] == [70_000, 30_000]
    assert (tmp_path / "new").read_bytes() == CONTENTS
    assert (sink.size, checksum.value, moved) == (100_000, ADLER, [70_000, 100_000])


def test_a_sink_never_writes_over_a_file(file: Path) -> None:
    with pytest.raises(FileExistsError):
        Sink(str(file), [], nothing)


def test_a_source_that_is_read_twice_is_summed_once(file: Path) -> None:
    checksum = Checksum()
    with Source(str(file), 0, 100_000, [checksum], nothing) as source:
        assert source.read(60_000) == CONTENTS[:60_000] and source.tell() == 60_000
        assert source.seek(0) == 0 and source.read() == CONTENTS and source.read() == b""
        assert source.seek(0, os.SEEK_END) == len(source) == 100_000
        source.seek(-10, os.SEEK_CUR)
        assert source.read() == CONTENTS[-10:]
    assert checksum.value == ADLER


def test_pieces_of_a_file_make_the_whole_with_one_sum(file: Path) -> None:
    checksum, moved, pieces = Checksum(), [], []
    for start in (0, 40_000, 80_000):
        with Source(str(file), start, min(40_000, 100_000 - start), [checksum], moved.append) as piece:
            pieces.append(piece.read())
    assert b"".join(pieces) == CONTENTS and checksum.value == ADLER and moved == [40_000, 80_000, 100_000]


def test_a_file_is_summed_with_its_progress(file: Path) -> None:
    moved: list[int] = []
    assert checksum_of(str(file), "adler32", moved.append) == (100_000, ADLER) and moved[-1] == 100_000
