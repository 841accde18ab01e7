"""docs/errors.md, rendered from the error tables and the table of injected faults: `python -m tests.errors_page`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pilot.common.errorcodes import ERRORS, ErrorInfo
from server.logic.explain import DISPATCHER_ERRORS
from tests.injected.fault import Fault
from tests.injected.table import FAULTS, SECTIONS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"

_HEAD = """# Errors

Every end of a job has a code, somebody who decided it, somebody to blame, and a sentence about what to do next. They
stand

* in the job at the dispatcher: `pilotkit job ID` shows code, evidence, who decided it, and how long each phase took;
* in the pilot's log, and so in the log tarball: the line with the code ends with `[blame] what to do`;
* in the autopsy: `pilot.py --autopsy DIR` tells it from a pilot's directory, and the final update has it as JSON
  (`metaData`, key `pilotkit`).

To blame is who can mend it: payload (the program), user (the definition, an order), site (node and queue), storage,
server (the dispatcher), batch (the batch system), pilot (this software).

This page is made from the tables in the code and in the tests: `python -m tests.errors_page` writes it.
"""
_CODES = """
## The pilot's codes

The exit code is that of `pilot.py` when the error ends the pilot, or when it is its job's and neither the payload's nor
the user's fault; 1 where none is named. Codes with a number of faults are brought about by so many rows of the table of
injected faults below.
"""
_DISPATCHER = """
## The dispatcher's codes

What the dispatcher decides by itself stands in columns of its own (`jobDispatcherErrorCode`, `taskBufferErrorCode`,
`ddmErrorCode`).
"""
_FAULTS = """
## Injected faults

Each row is played by a real pilot against the real dispatcher (`tests/integration/payload/test_injected.py`). Checked
are code, blame and words, transExitCode and the pilot's exit code, the job's state, the log tarball, the command of a
container in the log; and that the server, `pilotkit job`, the log and both autopsies tell the same. An attempt that
does not count is marked.
"""


def render() -> str:
    """The page."""
    parts = [
        _HEAD,
        _CODES,
        _table(("code", "name", "to blame", "text and what to do", "exit code", "faults"), _codes()),
    ]
    parts += [_DISPATCHER, _table(("source", "code", "name", "to blame", "text and what to do"), _dispatcher_codes())]
    parts.append(_FAULTS)
    for title, faults in SECTIONS.items():
        columns = ("what goes wrong", "how", "code", "to blame", "decided by", "said", "exit codes")
        parts += [f"\n### {title}\n", _table(columns, map(_fault, faults))]
    return "\n".join(parts)


def _codes() -> Iterable[Sequence[object]]:
    played = [fault.code for fault in FAULTS]
    for info in ERRORS.values():
        shown = info.shell_code if info.shell_code != 1 else ""
        yield info.code, info.name, info.blame, _said(info), shown, played.count(info.code) or ""


def _said(info: ErrorInfo) -> str:
    return f"{info.message}\n{info.advice}"


def _dispatcher_codes() -> Iterable[Sequence[object]]:
    for (source, code), known in DISPATCHER_ERRORS.items():
        yield source, code, known.name, known.blame, f"{known.message}\n{known.advice}"


def _fault(fault: Fault) -> Sequence[object]:
    code = f"{fault.code} {ERRORS[fault.code].name}"
    ends = [f"payload {fault.trans}"] if fault.trans else []
    ends += [f"its report {fault.exe}"] if fault.exe else []
    ends += [f"pilot {fault.shell}"] if fault.shell else []
    counted = "" if fault.charged or fault.job is None else "; not counted"
    words = ", ".join(f"“{words}”" for words in fault.said)
    decided_by = fault.decided_by or "the pilot, which leaves"
    return fault.name, fault.how, code, f"{fault.blame}{counted}", decided_by, words, ", ".join(ends)


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(value: object) -> str:
    """A bar ends a cell, in code too; what looks like a tag would vanish."""
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", "<br>")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
