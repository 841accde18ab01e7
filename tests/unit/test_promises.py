"""docs/promises.md names the tests that prove each promise; here it is compared with the tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The promises of the project, by the letters of those to whom they are made.
PROMISES = [*(f"{letter}{n}" for letter in "UND" for n in range(1, 9)), *(f"S{n}" for n in range(1, 8))]
NOT_YET = "not yet"
_ROW = re.compile(r"^\| ([A-Z]\d) \| (.+?) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")

ROWS = {found[1]: found[3] for found in _ROW.finditer((ROOT / "docs" / "promises.md").read_text(encoding="utf-8"))}


def test_every_promise_is_there_once() -> None:
    assert list(ROWS) == PROMISES


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_has_tests_that_there_are_or_says_that_it_has_none_yet(promise: str) -> None:
    named = _TEST.findall(ROWS[promise])
    assert named or ROWS[promise] == NOT_YET
    for file, name in named:
        text = (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).is_file() else ""
        assert re.search(rf"^def {name}\(", text, re.MULTILINE), f"there is no {file}::{name}"
