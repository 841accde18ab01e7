"""What the scripts are given and what they answer: JSON, described in docs/copytools.md.

In: {"files": [...], "queue": {...}, "storages": {...}, "keys": [...]}.
Out: {"files": [...], "attempts": [...], "error": ...}.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pilot.api.attempts import Attempt
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import ConversionFailure, PilotException
from pilot.info import infoservice
from pilot.info.filespec import (
    LFN_LIMIT,
    NO_TRANSFER,
    FileSpec,
    check_endpoint,
    check_lfn,
    check_scope,
    parse_checksum,
)
from pilot.info.infoservice import InfoService
from pilot.info.replica import Replica
from pilot.util.filehandling import write_atomically
from pilot.util.https import Json, parse_json

# No list of files is so long (bytes).
_LIMIT = 256 * 2**20
# What a file may have; anything else is a mistake in the spelling, which would change what is done in silence.
_FILE_KEYS = frozenset(
    {
        "lfn", "filetype", "scope", "guid", "dataset", "ddmendpoint", "filesize", "checksum", "surl", "replicas",
        "accessmode", "storage_token", "status",
    }
)  # fmt: skip
_REQUEST_KEYS = frozenset({"files", "queue", "storages", "keys"})

_PAIR_KEYS = frozenset({"public_name", "private_name", "public", "private"})
# (name of the public key, name of the private key) -> both keys.
Keys = Mapping[tuple[str, str], tuple[str, str]]


@dataclass
class Request:
    """infosys: descriptions that came with the request, or the built-in one; described: whether a queue came.

    keys: of object stores, by their names.
    """

    files: list[FileSpec]
    infosys: InfoService
    described: bool = False
    keys: Keys = field(default_factory=dict)

    def key_pair(self, public_name: str, private_name: str) -> tuple[str, str]:
        """The keys of these names. Raises PilotException(MISSINGCREDENTIALS)."""
        found = self.keys.get((public_name, private_name))
        if found is None:
            raise PilotException("they did not come with the request", code=ErrorCodes.MISSINGCREDENTIALS)
        return found


@dataclass
class Result:
    """What came of a request. error: the first failure."""

    files: Sequence[FileSpec]
    attempts: Sequence[Attempt] = field(default_factory=list)
    error: PilotException | None = None

    def as_json(self) -> dict[str, Json]:
        """For the result file."""
        said = {one.lfn: one for one in self.attempts if one.kind != "ok"}
        files: list[Json] = [_outcome(spec, said.get(spec.lfn)) for spec in self.files]
        attempts: list[Json] = [one.as_json() for one in self.attempts]
        error: Json = {"code": self.error.code, "text": self.error.diag} if self.error else None
        return {"files": files, "attempts": attempts, "error": error}


def _outcome(spec: FileSpec, failed: Attempt | None) -> dict[str, Json]:
    error: Json = None
    if failed is not None and spec.status in ("", "failed"):
        error = {"code": failed.code, "text": failed.text}
    return {
        "lfn": spec.lfn, "status": spec.status, "filesize": spec.filesize, "checksum": dict(spec.checksum),
        "ddmendpoint": spec.ddmendpoint, "surl": spec.surl, "turl": spec.turl, "guid": spec.guid, "error": error,
    }  # fmt: skip


def read_request(address: str, queuedata: str, storagedata: str, filetype: str) -> Request:
    """Read a request. address: of its file, "-" for stdin; queuedata, storagedata: files over its own descriptions.

    filetype: of files that name none. Raises PilotException, with the field's name in its text.
    """
    data = _object(address)
    _refuse_unknown(data, _REQUEST_KEYS, "the request")
    listed = data.get("files")
    if not isinstance(listed, list):
        raise ConversionFailure("field files: a list of files is needed")
    queue = _object(queuedata) if queuedata else _part(data, "queue")
    storages = _object(storagedata) if storagedata else _part(data, "storages")
    base = {} if queue else infoservice.LOCAL_QUEUE
    service = InfoService.build({**base, **queue}, storages)
    files = [file_of(item, f"files[{number}]", filetype) for number, item in enumerate(listed)]
    names = [spec.lfn for spec in files]
    if len(set(names)) != len(names):
        raise ConversionFailure("field files: a name is there twice")
    return Request(files, service, described=bool(queue), keys=_keys(data.get("keys") or []))


def file_of(item: Json, where: str, filetype: str) -> FileSpec:
    """One file of a request. where: for messages. Raises PilotException."""
    if not isinstance(item, dict):
        raise ConversionFailure(f"field {where}: an object is needed")
    _refuse_unknown(item, _FILE_KEYS, where)
    checksum, size = item.get("checksum") or "", item.get("filesize") or 0
    if isinstance(checksum, dict):
        checksum = next((f"{kind}:{value}" for kind, value in checksum.items()), "")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ConversionFailure(f"field {where}.filesize: a number of bytes is needed")
    endpoint = check_endpoint(_text(item, "ddmendpoint", where), f"{where}.ddmendpoint")
    surl = _text(item, "surl", where)
    return FileSpec(
        check_lfn(_text(item, "lfn", where), f"{where}.lfn", LFN_LIMIT, output=False),
        filetype=_text(item, "filetype", where) or filetype,
        scope=check_scope(_text(item, "scope", where), f"{where}.scope"),
        guid=_text(item, "guid", where),
        dataset=_text(item, "dataset", where),
        ddmendpoint=endpoint,
        filesize=size,
        checksum=parse_checksum(str(checksum), f"{where}.checksum"),
        replicas=[Replica(endpoint, surl)] if surl else _replicas(item.get("replicas"), f"{where}.replicas"),
        accessmode=_text(item, "accessmode", where),
        storage_token=_text(item, "storage_token", where),
        status=NO_TRANSFER if item.get("status") == NO_TRANSFER else "",
    )


def request_json(
    files: Sequence[FileSpec], queue: Mapping[str, Json], storages: Mapping[str, Json], keys: Keys
) -> dict[str, Json]:
    """The request that read_request understands, for files as a pilot has them."""
    listed: list[Json] = [
        {
            "lfn": spec.lfn, "filetype": spec.filetype, "scope": spec.scope, "guid": spec.guid,
            "dataset": spec.dataset, "ddmendpoint": spec.ddmendpoint, "filesize": spec.filesize,
            "checksum": dict(spec.checksum), "replicas": [dict(replica) for replica in spec.replicas],
            "accessmode": spec.accessmode, "storage_token": spec.storage_token, "status": spec.status,
        }
        for spec in files
    ]  # fmt: skip
    pairs: list[Json] = [
        {"public_name": names[0], "private_name": names[1], "public": pair[0], "private": pair[1]}
        for names, pair in keys.items()
    ]
    return {"files": listed, "queue": dict(queue), "storages": dict(storages), "keys": pairs}


def write_text(address: str, text: str) -> None:
    """Write a result; "-" means stdout. Raises OSError."""
    if address == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_atomically(Path(address), text.encode("utf-8"))


def _keys(listed: Json) -> Keys:
    found = {}
    for number, item in enumerate(listed if isinstance(listed, list) else [None]):
        if not isinstance(item, dict):
            raise ConversionFailure(f"field keys[{number}]: an object is needed")
        _refuse_unknown(item, _PAIR_KEYS, f"keys[{number}]")
        one = {name: _text(item, name, f"keys[{number}]") for name in _PAIR_KEYS}
        found[one["public_name"], one["private_name"]] = one["public"], one["private"]
    return found


def _replicas(listed: Json, where: str) -> list[Replica]:
    if not listed:
        return []
    found = []
    for item in listed if isinstance(listed, list) else [None]:
        if not isinstance(item, dict) or not isinstance(item.get("pfn"), str):
            raise ConversionFailure(f"field {where}: a list of objects with pfn and ddmendpoint is needed")
        priority = item.get("priority")
        found.append(
            Replica(
                check_endpoint(_text(item, "ddmendpoint", where), f"{where}.ddmendpoint"), str(item["pfn"]),
                _text(item, "domain", where), priority if isinstance(priority, int) else 0,
            )
        )  # fmt: skip
    return found


def _object(address: str) -> dict[str, Json]:
    try:
        if address == "-":
            text = sys.stdin.buffer.read(_LIMIT)
        else:
            with Path(address).open("rb") as stream:
                text = stream.read(_LIMIT)
        data = parse_json(text)
    except (OSError, ValueError) as exc:
        raise ConversionFailure(f"{address}: no JSON could be read from it: {exc}") from exc
    if not isinstance(data, dict):
        raise ConversionFailure(f"{address}: a JSON object is needed")
    return data


def _part(data: Mapping[str, Json], name: str) -> dict[str, Json]:
    part = data.get(name) or {}
    if not isinstance(part, dict):
        raise ConversionFailure(f"field {name}: an object is needed")
    return part


def _text(item: Mapping[str, Json], name: str, where: str) -> str:
    value = item.get(name)
    if value is not None and not isinstance(value, str):
        raise ConversionFailure(f"field {where}.{name}: a text is needed")
    return value or ""


def _refuse_unknown(item: Mapping[str, Json], known: frozenset[str], where: str) -> None:
    unknown = sorted(set(item) - known)
    if unknown:
        text = f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}"
        raise ConversionFailure(text)
