"""The table of transfers that our pilots send with their job report: what was tried for each file, and what came of it.

It is `pilotkit.transfers` in metaData of the final update; pilots of others have none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

#: Under which kind of text it is kept.
KIND = "transfers"


def in_job_report(report: str) -> str:
    """The table in a job report, as JSON; empty if there is none."""
    if '"pilotkit"' not in report:
        return ""
    try:
        found = json.loads(report)
    except (ValueError, RecursionError):
        return ""
    own = found.get("pilotkit") if isinstance(found, dict) else None
    table = own.get("transfers") if isinstance(own, dict) else None
    return json.dumps([_row(row) for row in table if isinstance(row, dict)]) if isinstance(table, list) else ""


def _row(row: Mapping[str, object]) -> dict[str, object]:
    """What a row may hold: texts that are Unicode, and numbers."""
    kept: dict[str, object] = {}
    for name, value in row.items():
        if isinstance(value, str):
            kept[name] = value.encode("utf-8", "replace").decode()
        elif isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
            kept[name] = value
    return kept


def as_rows(texts: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """The tables among the texts of a job, a row for each attempt to move a file, with the job's attempt in it."""
    rows: list[dict[str, object]] = []
    for text in texts:
        if text["kind"] == KIND:
            rows += [{**row, "attemptNr": text["attemptNr"]} for row in json.loads(str(text["text"]))]
    return rows
