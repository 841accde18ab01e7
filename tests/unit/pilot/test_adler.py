"""adler32 in pieces, by two threads."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from pilot.util import adler
from pilot.util.adler import Stopped, adler32_of, combine


@pytest.mark.parametrize("size", [0, 1, 65521, 4 * 2**20, 16 * 2**20 - 1, 16 * 2**20, 21 * 2**20 + 7])
def test_the_sum_is_that_of_zlib_whatever_the_size(tmp_path: Path, size: int) -> None:
    contents = os.urandom(size)
    (tmp_path / "file").write_bytes(contents)
    assert adler32_of(tmp_path / "file", lambda: False) == (size, zlib.adler32(contents))


def test_a_file_of_several_stretches_is_summed_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adler, "_STRETCH", 2 * 4 * 2**20)
    contents = os.urandom(21 * 2**20 + 7)
    (tmp_path / "file").write_bytes(contents)
    assert adler32_of(tmp_path / "file", lambda: False) == (len(contents), zlib.adler32(contents))


@pytest.mark.parametrize(
    ("first", "second"), [(b"", b""), (b"a", b""), (b"", b"b"), (b"\xff" * 70000, b"\xff" * 65521)]
)
def test_sums_of_neighbours_are_put_together(first: bytes, second: bytes) -> None:
    assert combine(zlib.adler32(first), zlib.adler32(second), len(second)) == zlib.adler32(first + second)


@pytest.mark.parametrize("now", [17 * 2**20 + 5, 30 * 2**20])
def test_a_file_that_changes_its_length_meanwhile_is_summed_to_the_end_that_is_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: int
) -> None:
    path, contents = tmp_path / "file", os.urandom(20 * 2**20)
    path.write_bytes(contents)
    whole = contents.ljust(now, b"\0")[:now]
    begin = adler.in_parallel

    def changed(*arguments: object) -> None:
        os.truncate(path, now)
        begin(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(adler, "in_parallel", changed)
    assert adler32_of(path, lambda: False) == (now, zlib.adler32(whole))


def test_it_stops_when_it_is_not_wanted_any_more(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(40 * 2**20))
    asked: list[int] = []

    def enough() -> bool:
        asked.append(1)
        return len(asked) > 10

    with pytest.raises(Stopped):
        adler32_of(path, enough)
    assert len(asked) < 20
