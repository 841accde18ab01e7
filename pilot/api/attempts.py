"""The table of attempts: what was tried for each file, with which tool, from where, how long, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

from pilot.api.choice import Place
from pilot.common.exception import PilotException
from pilot.info.filespec import FileSpec
from pilot.util.https import Json


@dataclass
class Moving:
    """One file under way: its places, best first, and what went wrong so far.

    leftovers: the URLs in storage where an upload of this client has left something.
    """

    spec: FileSpec
    places: list[Place]
    errors: list[PilotException] = field(default_factory=list)
    leftovers: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Attempt:
    """One try to move one file.

    direction: in or out; number: of the try for this file, from 1; host: empty for local files; bytes: moved, 0 after
    a failure; seconds: how long it took; kind: ok, or the class of the error; code, text: of the error.
    """

    lfn: str
    direction: str
    number: int
    tool: str
    endpoint: str
    host: str
    protocol: str
    bytes: int
    seconds: float
    kind: str = "ok"
    code: int = 0
    text: str = ""

    def as_json(self) -> dict[str, Json]:
        """For the job's report."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}


def host_and_protocol(surl: str) -> tuple[str, str]:
    """("host:1094", "root") of a URL; ("", "file") of a path."""
    if "://" not in surl:
        return "", "file"
    try:
        parts = urlsplit(surl)
    except ValueError:
        return "", surl.partition("://")[0]
    # What stands before an @ may be a secret.
    return ("" if parts.scheme == "file" else parts.netloc.rpartition("@")[2]), parts.scheme


def table(attempts: Sequence[Attempt]) -> str:
    """The attempts as lines for the log."""
    rows = [("file", "way", "try", "tool", "host", "protocol", "bytes", "seconds", "result")]
    for one in attempts:
        result = one.kind if one.kind == "ok" else f"{one.kind} ({one.code})"
        rows.append(
            (one.lfn, one.direction, str(one.number), one.tool, one.host or "-", one.protocol, str(one.bytes),
             f"{one.seconds:.2f}", result)
        )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join(lines)
