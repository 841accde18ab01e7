"""The job report of a payload (jobReport.json): what it says of output files.

files.output[].subFiles[] has name, file_guid and nentries of each. The payload writes it, so that what is malformed is
passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pilot.util.https import Json

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
