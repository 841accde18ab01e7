"""Objects in buckets: what the copytools for S3 and Google have in common. The library works in a helper.

Nobody sees an object before all of it is there, so nothing half-written can be taken for a file. An upload writes its
mark into the object: what has failed later is removed only where the mark is our own.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pilot.common.exception import QueuedataNotOK
from pilot.copytool.common import Transfer, note_sent, output_path, take_in, verify_stored
from pilot.copytool.errors import HALF_WRITTEN, Kind, TransferError
from pilot.copytool.helper import LibraryMissing, Program, helper
from pilot.copytool.ways import clean_up
from pilot.info.filespec import FileSpec
from pilot.info.objectstore import Location, locate
from pilot.info.storagedata import StorageData
from pilot.util.filehandling import Copied
from pilot.util.https import Json

# The watch decides on stalls; the library's own patience (s more) is for the case that it cannot.
_MORE_PATIENCE = 20.0

Access = dict[str, str]


@dataclass(frozen=True)
class Service:
    """One kind of object store. advice: what to install. default: the service's URL where nothing else says one.

    access: what the helper needs beside the object; raises PilotException. environ: of the helper, unless the site has
    set it. part: files larger than this (bytes) are sent in parts; 0 when the library sees to that.
    """

    program: Program
    advice: str
    default: Callable[[Transfer], str]
    access: Callable[[FileSpec, Transfer, StorageData | None, bool], Access]
    environ: Mapping[str, str]
    part: int = 0


def copy_in(service: Service, files: list[FileSpec], transfer: Transfer) -> None:
    """Download files. Raises PilotException, with the kinds of pilot.copytool.errors."""
    for spec in files:

        def fetch(target: Path, algorithm: str, spec: FileSpec = spec) -> Copied:
            asked = {"call": "get", "target": str(target), "algorithm": algorithm}
            done = _call(service, {**_object(service, spec, transfer, read=True), **asked}, spec, transfer, read=True)
            told = str(done["told"])
            if told and not spec.checksum and told != done["checksum"]:
                text = f"{spec.lfn} arrived with {algorithm} {done['checksum']}, {spec.surl} was written with {told}"
                raise TransferError(text, Kind.DAMAGED, read=True)
            return Copied(int(str(done["size"])), str(done["checksum"]))

        take_in(spec, transfer, fetch)


def copy_out(service: Service, files: list[FileSpec], transfer: Transfer) -> None:
    """Upload files and verify them. Raises PilotException, with the kinds of pilot.copytool.errors."""
    for spec in files:
        source = output_path(spec, transfer)
        spec.filesize = source.stat().st_size
        asked: dict[str, Json] = {
            **_object(service, spec, transfer, read=False),
            "source": str(source), "algorithm": transfer.checksum_type, "mark": uuid.uuid4().hex,
            "replace": transfer.may_replace, "upload": "", "noted": "",
        }  # fmt: skip
        # Looked at before, as in ways.send_out: a failure of this has left nothing that another try might replace.
        if not transfer.may_replace:
            _call(service, {**asked, "call": "look"}, spec, transfer, read=False)
        try:
            if service.part and spec.filesize > service.part:
                asked.update(_call(service, {**asked, "call": "begin"}, spec, transfer, read=False))
            done = _call(service, {**asked, "call": "put"}, spec, transfer, read=False)
            copied = Copied(int(str(done["size"])), str(done["checksum"]))
            stored = Copied(int(str(done["stored"])), str(done["there"]))
            verify_stored(spec, copied, stored, transfer.checksum_type, spec.surl)
        except TransferError as exc:
            if exc.kind in HALF_WRITTEN or asked["upload"]:
                remove: dict[str, Json] = {**asked, "call": "remove"}
                clean_up(exc, spec, transfer, partial(_remove, service, remove, spec))
            raise
        note_sent(spec, transfer, copied)


def _object(service: Service, spec: FileSpec, transfer: Transfer, *, read: bool) -> dict[str, Json]:
    """Which object, and how to get at it."""
    storage = transfer.storage_of(spec.ddmendpoint)
    try:
        where: Location = locate(spec.surl, storage, service.default(transfer))
    except QueuedataNotOK as exc:
        raise TransferError(f"{spec.lfn}: {exc.diag}", Kind.DENIED, read=read) from exc
    access: dict[str, Json] = {**service.access(spec, transfer, storage, read)}
    access.update(endpoint=where.endpoint, ca=transfer.ca, patience=str(transfer.limits.stall + _MORE_PATIENCE))
    return {"bucket": where.bucket, "name": where.name, "access": access}


def _call(
    service: Service, request: dict[str, Json], spec: FileSpec, transfer: Transfer, *, read: bool
) -> dict[str, Json]:
    own = replace(transfer, environ={**service.environ, **transfer.environ})
    try:
        with helper(service.program, own) as library:
            return library.call(request, spec, transfer, read=read)
    except LibraryMissing as exc:
        raise TransferError(f"{service.advice} ({exc})", Kind.MIDDLEWARE, read=read) from exc


def _remove(service: Service, request: dict[str, Json], spec: FileSpec, transfer: Transfer) -> None:
    """Remove what an upload has left, if it was ours. Raises PilotException."""
    _call(service, request, spec, transfer, read=False)
