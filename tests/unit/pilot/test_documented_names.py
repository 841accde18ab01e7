"""The names that users import: docs/compatibility.md lists them, and each is there with the arguments it lists."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[3] / "docs" / "compatibility.md"
_BLOCK = re.compile(r"```names\n(.*?)```", re.DOTALL)
_CALL = re.compile(r"([\w.]+)(?:\((.*)\))?\Z")


def listed() -> list[str]:
    """The lines of all lists in the document."""
    found = [line for block in _BLOCK.findall(DOCUMENT.read_text(encoding="utf-8")) for line in block.splitlines()]
    return [line for line in found if line]


NAMES = listed()


def resolved(dotted: str) -> object:
    """The object behind a dotted name: the longest part that can be imported, and attributes of it."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            found = getattr(found, name)
        return found
    raise AssertionError(f"{dotted} cannot be imported")


def arguments(text: str) -> list[tuple[str, bool]]:
    """Names of arguments, and whether each may be left out."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    return [(item.partition("=")[0], "=" in item or item.startswith("**")) for item in items]


def test_there_are_lists_in_the_document() -> None:
    assert len(NAMES) > 80
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("line", NAMES)
def test_a_documented_name_is_there_with_its_arguments(line: str) -> None:
    match = _CALL.match(line)
    assert match is not None, line
    found = resolved(match.group(1))
    if match.group(2) is None:
        return
    assert callable(found)
    has = {name: one for name, one in inspect.signature(found).parameters.items() if name not in ("self", "cls")}
    places = list(has)
    last = -1
    for name, optional in arguments(match.group(2)):
        if name.startswith("**"):
            assert any(one.kind is inspect.Parameter.VAR_KEYWORD for one in has.values()), f"{line}: no {name}"
            continue
        assert name in has, f"{line}: the arguments are {places}"
        assert places.index(name) > last, f"{line}: {name} comes too early among {places}"
        last = places.index(name)
        if optional:
            assert has[name].default is not inspect.Parameter.empty, f"{line}: {name} cannot be left out"
    # What the document does not have must not be needed.
    known = {name for name, _ in arguments(match.group(2))}
    needed = [
        name for name, one in has.items()
        if name not in known and one.default is inspect.Parameter.empty
        and one.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ]  # fmt: skip
    assert not needed, f"{line}: {needed} are needed too"
