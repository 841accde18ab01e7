"""docs/queues.md has every key of a queue description that is read, with its default."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from pilot.info.queuedata import _OUTSIDE_NAMES, QueueData
from server.logic.descriptions import NAME_KEYS, QUEUE_DEFAULTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "queues.md").read_text(encoding="utf-8")
_NO_KEYS = {"container_type_text"}  # our pilot's own name for a key
# Keys that the server reads of what may also be a storage's or an entry's description.
_OTHERS = {"arprotocols"}


def rows(columns: int) -> list[list[str]]:
    """The rows of the page's tables with so many columns, without their heads."""
    lines = [line.strip()[1:-1].split("|") for line in PAGE.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines if len(line) == columns]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def read_by_server() -> set[str]:
    """Keys that the server's logic takes from something called a description."""
    found: set[str] = set()
    for module in (ROOT / "server" / "logic").glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            function = ast.unparse(node.func)
            if function.endswith("description.get") or (function == "queue.get" and module.name == "timeouts.py"):
                keys = node.args[0]
            elif function == "number_of" and len(node.args) == 2:
                keys = node.args[1]
            else:
                continue
            constants = [one.value for one in ast.walk(keys) if isinstance(one, ast.Constant)]
            found |= {value for value in constants if isinstance(value, str)}
    return found - _OTHERS


def read_by_pilot() -> set[str]:
    return {_OUTSIDE_NAMES.get(key, key) for keys in QueueData._keys.values() for key in keys} - _NO_KEYS


def test_every_key_is_there_once() -> None:
    told = [name for row in rows(4) for name in names(row[0])]
    assert len(told) == len(set(told))
    server = read_by_server()
    assert {"corepower", "lost_heartbeat", "transtimelo", "maxrss"} <= server, "the search has lost its way"
    assert set(told) == {*QUEUE_DEFAULTS, *NAME_KEYS, *read_by_pilot(), *server}


def test_defaults_are_the_codes() -> None:
    told: dict[str, object] = {}
    for row in rows(4):
        values = [json.loads(value) for value in names(row[1])]
        told |= dict(zip(names(row[0]), values, strict=False)) if values else {}
    of_the_name = {"site", "atlas_site", "gstat"}  # empty, and filled with the queue's name
    assert told == {key: value for key, value in QUEUE_DEFAULTS.items() if key not in of_the_name}


def test_every_word_of_catchall_is_there() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "pilot").rglob("*.py"))
    words = set(re.findall(r'catchall_value\("(\w+)"\)', source)) | set(
        re.findall(r'^CATCHALL = "(\w+)"', source, re.M)
    )
    assert {name for row in rows(2) for name in names(row[0])} == words
