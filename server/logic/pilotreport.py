"""What our pilots add to a job report: what was tried for each file, and how the job came to its end.

It is `pilotkit` in metaData of the final update, with the tables `transfers` and `autopsy`; pilots of others have none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

#: Under which kinds of text they are kept.
TRANSFERS = "transfers"
AUTOPSY = "autopsy"
KINDS = frozenset({TRANSFERS, AUTOPSY})

#: Names in an autopsy whose values are lists: of texts, and of rows.
_EVIDENCE = "evidence"
_TIMELINE = "timeline"


def in_job_report(report: str) -> dict[str, str]:
    """What of a job report is kept of every job, failed ones included: JSON by kind, without what is not there."""
    if '"pilotkit"' not in report:
        return {}
    try:
        found = json.loads(report)
    except (ValueError, RecursionError):
        return {}
    own = found.get("pilotkit") if isinstance(found, dict) else None
    if not isinstance(own, dict):
        return {}
    kept: dict[str, str] = {}
    table, autopsy = own.get(TRANSFERS), own.get(AUTOPSY)
    if isinstance(table, list):
        kept[TRANSFERS] = json.dumps(_rows(table))
    if isinstance(autopsy, dict):
        kept[AUTOPSY] = json.dumps(_autopsy(autopsy))
    return kept


def _autopsy(found: Mapping[str, object]) -> dict[str, object]:
    evidence, timeline = found.get(_EVIDENCE), found.get(_TIMELINE)
    texts = [_text(one) for one in evidence if isinstance(one, str)] if isinstance(evidence, list) else []
    return {**_row(found), _EVIDENCE: texts, _TIMELINE: _rows(timeline) if isinstance(timeline, list) else []}


def _rows(table: Iterable[object]) -> list[dict[str, object]]:
    return [_row(row) for row in table if isinstance(row, dict)]


def _row(row: Mapping[str, object]) -> dict[str, object]:
    """What a row may hold: texts that are Unicode, and numbers."""
    kept: dict[str, object] = {}
    for name, value in row.items():
        if isinstance(value, str):
            kept[name] = _text(value)
        elif isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
            kept[name] = value
    return kept


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


def transfers_in(texts: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """The tables among the texts of a job, a row for each attempt to move a file, with the job's attempt in it."""
    rows: list[dict[str, object]] = []
    for text in texts:
        if text["kind"] == TRANSFERS:
            rows += [{**row, "attemptNr": text["attemptNr"]} for row in json.loads(str(text["text"]))]
    return rows


def autopsies_in(texts: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """The autopsies among the texts of a job, one of each attempt whose pilot has sent one, with the attempt in it."""
    return [
        {**json.loads(str(text["text"])), "attemptNr": text["attemptNr"]} for text in texts if text["kind"] == AUTOPSY
    ]
