"""The job report of a payload (jobReport.json): what it says of its end, of output files, and in figures.

files.output[].subFiles[] has name, file_guid and nentries of each; resource.executor.<step> the figures of each step.
The payload writes it, so that what is malformed is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pilot.util.https import Json

# Databases of the field keep an exit code in 32 bits.
_EXIT_CODE_LIMIT = 2**31 - 1
_GUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z")


@dataclass(frozen=True)
class ReportedFile:
    """An output file that a report names. guid: empty when the report has none that is one."""

    name: str
    guid: str = ""


def reported_outputs(report: Mapping[str, Json]) -> dict[str, ReportedFile]:
    """The output files of a report by name, in its order."""
    return {found.name: found for found in _outputs(report)}


def _outputs(report: Mapping[str, Json]) -> Iterator[ReportedFile]:
    files = report.get("files")
    outputs = files.get("output") if isinstance(files, dict) else None
    for output in outputs if isinstance(outputs, list) else []:
        subfiles = output.get("subFiles") if isinstance(output, dict) else None
        for sub in subfiles if isinstance(subfiles, list) else []:
            name, guid = (sub.get("name"), sub.get("file_guid")) if isinstance(sub, dict) else (None, None)
            if isinstance(name, str) and name:
                yield ReportedFile(name, guid if isinstance(guid, str) and _GUID.match(guid) else "")


@dataclass(frozen=True)
class _Figure:
    """Where a figure stands below `resource`: totals first, by their paths; else by its name in each step, with how the
    steps make one.
    """

    totals: Sequence[str]
    step: str
    combine: Callable[[list[int]], int]


# By name in jobMetrics. Events pass through all steps; what databases were asked for adds up.
_FIGURES: Mapping[str, _Figure] = {
    "nEvents": _Figure(("transform.processedEvents",), "nevents", max),
    "dbTime": _Figure(("dbTimeTotal",), "dbTime", sum),
    "dbData": _Figure(("dbDataTotal",), "dbData", sum),
}
# The memory of a step, as prmon's summaries and those before it have it: memory.Max.maxPSS or memory.Max.pss (kB).
_MEMORY = {"vmem": "VMEM", "pss": "PSS", "rss": "RSS", "swap": "Swap"}


def outcome_of(report: Mapping[str, Json]) -> tuple[int, str]:
    """Exit code and message of the transformation itself: exitCode, exitMsg and exitMsgExtra; (0, "") for none."""
    code = report.get("exitCode")
    if not isinstance(code, int) or isinstance(code, bool) or code == 0 or abs(code) > _EXIT_CODE_LIMIT:
        return 0, ""
    texts = [text.strip() for name in ("exitMsg", "exitMsgExtra") if isinstance(text := report.get(name), str)]
    return code, "; ".join(dict.fromkeys(text for text in texts if text))


def figures_of(report: Mapping[str, Json]) -> dict[str, str]:
    """The figures for jobMetrics, by name. Events written (nEventsW) are those of the output with the most of them."""
    resource = report.get("resource")
    steps = _steps(resource)
    found = {}
    for name, figure in _FIGURES.items():
        totals = (_count(_at(resource, path)) for path in figure.totals)
        counts = [_count(step.get(figure.step)) for step in steps]
        found[name] = next((total for total in totals if total), 0) or (figure.combine(counts) if counts else 0)
    found["nEventsW"] = max(_entries(report), default=0)
    return {name: str(value) for name, value in found.items() if value > 0}


def memory_of(report: Mapping[str, Json]) -> tuple[dict[str, int], dict[str, int]]:
    """Largest and mean memory (kB) as vmem, pss, rss and swap: those of the step that had most."""
    parts = []
    for part, prefix in (("Max", "max"), ("Avg", "avg")):
        found: dict[str, int] = {}
        for step in _steps(report.get("resource")):
            for column, older in _MEMORY.items():
                values = (_count(_at(step, f"memory.{part}.{name}")) for name in (prefix + older, column))
                found[column] = max(found.get(column, 0), *values)
        parts.append({column: value for column, value in found.items() if value})
    return parts[0], parts[1]


def _steps(resource: Json) -> list[dict[str, Json]]:
    executors = _at(resource, "executor")
    return [step for step in executors.values() if isinstance(step, dict)] if isinstance(executors, dict) else []


def _entries(report: Mapping[str, Json]) -> Iterator[int]:
    """Events of each kind of output, which may be in several files."""
    outputs = _at(report.get("files"), "output")
    for output in outputs if isinstance(outputs, list) else []:
        subfiles = _at(output, "subFiles")
        yield sum(_count(_at(sub, "nentries")) for sub in subfiles) if isinstance(subfiles, list) else 0


def _at(value: Json, path: str) -> Json:
    """What stands at a path of names separated by dots; None for nothing."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _count(value: Json) -> int:
    """A number that a payload has written; 0 for anything else."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**63
    return int(value) if good else 0  # type: ignore[arg-type]  # it is a number then
