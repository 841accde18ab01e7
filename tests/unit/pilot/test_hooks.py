"""The table of hooks in docs/plugins.md is the truth: what the pilot asks for, and the arguments of generic's."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pilot.resource import generic

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
_ROW = re.compile(r"^\| `(\w+)\.(\w+)\((.*?)\)` \|(.*)\|$", re.MULTILINE)
TABLE = {f"{row[0]}.{row[1]}": row for row in _ROW.findall(DOCUMENT)}
# Hooks of machines stand without a module: each machine is one.
_MACHINES = re.compile(r"^\| `(\w+)\((.*?)\)` \|", re.MULTILINE)


def questions() -> Iterator[tuple[Path, ast.Call]]:
    """Every call of a `hook` in the pilot, but for the definition itself."""
    for path in sorted((ROOT / "pilot").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "hook":
                yield path, node


def asked() -> set[str]:
    found = set()
    for path, call in questions():
        words = [word.value for word in call.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        # What is put together at run time could not be found by this test, nor by a reader.
        assert len(words) == 2, f"{path}:{call.lineno}: name the hook in two plain texts"
        found.add(".".join(words))
    return found


def arguments_of(function: Callable[..., object]) -> str:
    parameters = inspect.signature(function).parameters.values()
    return ", ".join(str(one.replace(annotation=inspect.Parameter.empty)) for one in parameters)


def test_the_hooks_of_machines_are_those_of_the_generic_one() -> None:
    defined = {name: one for name, one in vars(generic).items() if inspect.isfunction(one)}
    assert dict(_MACHINES.findall(DOCUMENT)) == {name: arguments_of(one) for name, one in defined.items()}


def test_the_table_has_the_hooks_that_the_pilot_asks_for_and_no_others() -> None:
    assert set(TABLE) == asked()


@pytest.mark.parametrize("name", sorted(TABLE))
def test_generic_has_each_hook_with_the_arguments_of_the_table(name: str) -> None:
    module, function, arguments, rest = TABLE[name]
    found = getattr(importlib.import_module(f"pilot.user.generic.{module}"), function)
    assert arguments_of(found) == arguments
    assert len(rest.split(" | ")) == 3 and inspect.getdoc(found)
