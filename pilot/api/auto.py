"""Stage-in and stage-out of plain lists of files, outside of any pilot and queue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Union

from pilot.api.data import StageInClient, StageOutClient
from pilot.common.exception import ConversionFailure, PilotException
from pilot.copytool import tools as copytools
from pilot.info.filespec import LFN_LIMIT, FileSpec, check_lfn, check_scope, parse_checksum
from pilot.info.replica import Replica
from pilot.util.https import Json

# A site's own script is only used where a queue asks for it.
TOOLS_OF_ANY_NODE = tuple(name for name in copytools.MODULES if name != "lsm")

File = dict[str, Json]
Client = Union[StageInClient, StageOutClient]


def stage_in_auto(files: list[File]) -> list[File]:
    """Bring files in. Each is a dictionary with `name`, `source` (URL or path) and `destination` (a directory).

    `scope`, `bytes` and `adler32` or `md5` are compared when they are there. Returns the files, each with `status`
    (transferred or failed), `errno` (a pilot error code, 0 if good), `errmsg`, `bytes` and its checksum.
    Raises ConversionFailure for a file that is not described.
    """
    return _stage(files, "destination", "source", StageInClient)


def stage_out_auto(files: list[File]) -> list[File]:
    """Take files out. Each is a dictionary with `name`, `source` (a directory) and `destination` (URL or path).

    Returns the files as stage_in_auto does. Raises ConversionFailure for a file that is not described.
    """
    return _stage(files, "source", "destination", StageOutClient)


def _stage(files: list[File], folder: str, place: str, kind: type[Client]) -> list[File]:
    folders: dict[str, list[tuple[File, FileSpec]]] = {}
    for item in files:
        folders.setdefault(_text(item, folder), []).append((item, _spec(item, _text(item, place))))
    for name, group in folders.items():
        client = kind(acopytools=list(TOOLS_OF_ANY_NODE), workdir=Path(name))
        errors = _move([spec for _, spec in group], client)
        for item, spec in group:
            error = errors.get(spec.lfn)
            item.update({"status": "failed" if error else "transferred", "bytes": spec.filesize, **spec.checksum})
            item.update({"errno": error.code if error else 0, "errmsg": error.diag if error else ""})
    return files


def _move(specs: Sequence[FileSpec], client: Client) -> dict[str, PilotException]:
    """Move all files, whatever becomes of the others; return what failed."""
    errors: dict[str, PilotException] = {}
    left = list(specs)
    while left:
        try:
            client.transfer(left)
        except PilotException as exc:
            # One that failed is marked; what was not begun for its sake gets its turn. Without a mark none was begun.
            failed = [spec for spec in left if spec.status == "failed"] or left
            errors.update(dict.fromkeys((spec.lfn for spec in failed), exc))
        left = [spec for spec in left if not spec.status and spec.lfn not in errors]
    # What failed first is what is told, as everywhere.
    for one in reversed(client.attempts):
        if one.lfn in errors and one.text:
            errors[one.lfn] = PilotException(one.text, code=one.code)
    return errors


def _spec(item: File, place: str) -> FileSpec:
    size = item.get("bytes")
    checksum = next((f"{kind}:{item[kind]}" for kind in ("adler32", "md5") if item.get(kind)), "")
    return FileSpec(
        check_lfn(_text(item, "name"), "name", LFN_LIMIT, output=False),
        scope=check_scope(str(item.get("scope") or ""), "scope"),
        filesize=size if isinstance(size, int) else 0,
        checksum=parse_checksum(checksum, "checksum"),
        replicas=[Replica("", place)],
    )


def _text(item: File, name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value:
        raise ConversionFailure(f"file {item.get('name')}: {name} is missing, or no text")
    return value
