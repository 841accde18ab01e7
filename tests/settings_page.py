"""docs/settings.md, rendered from server/settings.py: `python -m tests.settings_page`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from server.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "settings.md"

_HEAD = """# Settings of the server

Where it listens, what it keeps where, how much it takes on. Each is a variable of the environment, or a line of the
file that `pilotkit serve --settings FILE` (`PILOTKIT_SETTINGS_FILE`) names; options of the command win over the
environment, and that over the file. `systemctl reload` (SIGHUP) reads the file again. Times are in seconds and sizes
in bytes unless a line says otherwise. `pilotkit serve --check` says what is wrong with them.

What an operator decides about jobs (time-outs, rules of retries) is in the database: `pilotkit config list`.

This page is made from `server/settings.py`: `python -m tests.settings_page` writes it.

| variable | unless given | what it is |
|---|---|---|
"""


def render() -> str:
    """The page."""
    defaults = {field.name: field.default for field in fields(Settings)}
    lines = [
        f"| `PILOTKIT_{name.upper()}` | {_shown(defaults[name])} | {text.replace('|', chr(92) + '|')} |\n"
        for name, text in _texts()
    ]
    return _HEAD + "".join(lines)


def _texts() -> Iterator[tuple[str, str]]:
    """(name, what stands below it) of each field."""
    module = ast.parse((ROOT / "server" / "settings.py").read_text(encoding="utf-8"))
    body = next(node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    for field, text in zip(body, body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            yield field.target.id, " ".join(str(ast.literal_eval(text.value)).split())


def _shown(value: object) -> str:
    return f"`{value}`" if value != "" else ""


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
