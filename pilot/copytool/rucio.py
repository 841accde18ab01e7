"""Copytool by Rucio's own clients (pip `rucio-clients`), which run in a helper process.

Downloads come from the place that the pilot has chosen, or, where no place is known, from wherever Rucio finds the
file. The pilot compares what came with the catalogue, once, while Rucio compares what it has uploaded with what the
storage says, and the pilot does so again under the file's final name.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Callable

from pilot.common.exception import PilotException
from pilot.copytool.common import (
    Transfer,
    find_command,
    has_scheme,
    is_on,
    note_sent,
    output_path,
    scheme_of,
    take_in,
    user_callable,
    verify_stored,
)
from pilot.copytool.errors import Kind, TransferError, tool_error
from pilot.copytool.helper import SYSTEM_PYTHON, Helper, LibraryMissing, Program, helper
from pilot.copytool.reasons import credentials_looked_at
from pilot.copytool.runner import bytes_read
from pilot.copytool.ways import XROOTD_PATIENCE, clean_up
from pilot.info.filespec import FileSpec
from pilot.info.storagedata import XROOTD_SCHEMES
from pilot.util.filehandling import Copied, calculate_checksum, write_atomically
from pilot.util.guarded import GuardedProcess
from pilot.util.https import Json

# The scheme of a file that is asked for by its name alone: rucio:///SCOPE:NAME.
BY_NAME = "rucio"
ALLOWED_SCHEMES = (*XROOTD_SCHEMES, "davs", "dav", "https", "http", "srm", "gsiftp", "dcap", "storm", "file", BY_NAME)

_HELPER = "with_rucio"
_ADVICE = (
    "install rucio-clients (pip) for the Python that runs the pilot, or name another Python that has it in"
    " RUCIO_PYTHON, or take another copytool for the queue"
)
# A client, even where a server of Rucio is installed beside it.
_AS_CLIENT = {"RUCIO_CLIENT_MODE": "1"}
# After these failures the helper had no chance to remove what was half-written.
_HALF_WRITTEN = frozenset({Kind.STALLED, Kind.CANCELLED})
# A figure that changes while bytes move, from the guarded helper.
Progress = Callable[[GuardedProcess], int]
# Several uploads add to one summary.
_summary = threading.Lock()


def is_valid_for_copy_in(files: list[FileSpec]) -> bool:
    """Whether Rucio can name all files: it knows them by scope and name."""
    return has_scheme(files, ALLOWED_SCHEMES) and all(spec.scope for spec in files)


def is_valid_for_copy_out(files: list[FileSpec]) -> bool:
    """Whether Rucio can name all files and storages."""
    return is_valid_for_copy_in(files) and all(spec.ddmendpoint for spec in files)


def by_name(spec: FileSpec) -> str:
    """The surl of a file whose place only Rucio knows."""
    return f"{BY_NAME}:///{spec.scope}:{spec.lfn}"


@user_callable
def copy_in(files: list[FileSpec], transfer: Transfer) -> None:
    """Download files. Raises PilotException, with the kinds of pilot.copytool.errors."""
    for spec in files:
        _check_scope(spec, read=True)

        def fetch(target: Path, algorithm: str, spec: FileSpec = spec) -> Copied:
            with _folder(transfer) as folder:
                error = _download([spec], folder, transfer).get(spec.lfn)
                if error is not None:
                    raise error
                return _found(folder / spec.lfn, target, algorithm)

        take_in(spec, transfer, fetch)


def copy_in_bulk(files: list[FileSpec], transfer: Transfer) -> Mapping[str, PilotException]:
    """Download files together, in the threads of one helper; the failures by LFN.

    What had come before the helper had to be stopped is kept.
    """
    failed: dict[str, PilotException] = {}
    with _folder(transfer) as folder:
        errors = _download(files, folder, transfer)
        for spec in files:
            path = folder / spec.lfn
            if not path.is_file():
                text = f"{spec.lfn}, {spec.surl}: Rucio says that all is well, but has brought no file"
                failed[spec.lfn] = errors.get(spec.lfn) or TransferError(text, Kind.OTHER, read=True)
                continue
            try:
                take_in(spec, transfer, lambda target, algorithm, path=path: _found(path, target, algorithm))  # type: ignore[misc]
            except PilotException as exc:
                failed[spec.lfn] = exc
    return failed


@user_callable
def copy_out(files: list[FileSpec], transfer: Transfer) -> None:
    """Upload files and verify them. Raises PilotException, with the kinds of pilot.copytool.errors.

    Rucio says where in the storage a file belongs; surl is set to it. What an upload that failed has left is removed.
    """
    for spec in files:
        _check_scope(spec, read=False)
        source = output_path(spec, transfer)
        spec.filesize = source.stat().st_size
        request = _upload_request(spec, source, transfer)
        try:
            with credentials_looked_at(spec.surl, transfer.environ, read=False):
                done = _call(request, spec, transfer, bytes_read, read=False)
        except TransferError as exc:
            if exc.kind in _HALF_WRITTEN:
                clean_up(exc, spec, transfer, partial(_remove, spec, request))
                # What has the file's own name was not looked at before, and may be somebody else's. What an upload has
                # left beside it is no hindrance: Rucio's client removes that when it comes again.
                exc.leftover = False
            raise
        spec.surl = str(done["pfn"])
        size, adler32 = int(str(done["size"])), str(done["adler32"])
        if done["stored_size"] == -1:
            transfer.log.warning("%s: the storage tells neither size nor checksum of it", spec.surl)
        else:
            stored = Copied(int(str(done["stored_size"])), str(done["stored"]))
            verify_stored(spec, Copied(size, adler32), stored, "adler32", spec.surl)
        _write_summary(spec, done, transfer)
        note_sent(spec, transfer, Copied(size, str(done[transfer.checksum_type])))


def list_replicas(request: Mapping[str, Json], what: str, transfer: Transfer) -> dict[str, Json]:
    """Ask Rucio where files are (see with_rucio). what: the files, for errors. Raises TransferError."""
    return _call({**request, "call": "replicas"}, FileSpec(what), transfer, lambda _: 0, read=True)


def _check_scope(spec: FileSpec, *, read: bool) -> None:
    if not spec.scope:
        text = f"{spec.lfn} has no scope, by which Rucio knows files: use another copytool for it"
        raise TransferError(text, Kind.MISSING, read=read)


def _download(files: Sequence[FileSpec], folder: Path, transfer: Transfer) -> dict[str, PilotException]:
    """Have files put into a folder, under their names; the failures by LFN."""
    whole = files[0] if len(files) == 1 else FileSpec(f"{len(files)} files", surl=files[0].surl)
    whole = replace(whole, filesize=sum(spec.filesize for spec in files))
    request: dict[str, Json] = {
        "call": "get",
        "files": [_item(spec) for spec in files],
        "folder": str(folder),
        "at_once": transfer.at_once,
        "timeout": int(transfer.limits.total(whole.filesize)),
        "pcache": is_on(transfer.options, "use_pcache"),
    }
    try:
        done = _call(request, whole, transfer, lambda _: _bytes_in(folder), read=True)
    except PilotException as exc:
        return dict.fromkeys((spec.lfn for spec in files), exc)
    failed = done["failed"]
    assert isinstance(failed, dict)  # our own program's
    return {
        spec.lfn: tool_error(f"{spec.lfn}, {spec.surl}", str(failed[spec.lfn]), "Rucio", read=True)
        for spec in files
        if spec.lfn in failed
    }


def _item(spec: FileSpec) -> dict[str, Json]:
    """A file as Rucio's download client takes it. Without a checksum: the pilot compares it, and once is enough."""
    did = f"{spec.scope}:{spec.lfn}"
    if scheme_of(spec.surl) == BY_NAME or not spec.ddmendpoint:
        return {"did": did}
    # Rucio knows no bare paths.
    pfn = spec.surl if "://" in spec.surl else f"file://localhost{spec.surl}"
    unknown = not (spec.filesize or spec.checksum)
    return {"did": did, "pfn": pfn, "rse": spec.ddmendpoint, "unknown": unknown}


def _found(path: Path, target: Path, algorithm: str) -> Copied:
    """A file that Rucio has brought, moved to where it is expected."""
    path.rename(target)
    return Copied(target.stat().st_size, calculate_checksum(str(target), algorithm))


def _upload_request(spec: FileSpec, source: Path, transfer: Transfer) -> dict[str, Json]:
    return {
        "call": "put",
        "source": str(source),
        "scope": spec.scope,
        "name": spec.lfn,
        "rse": spec.ddmendpoint,
        "scheme": scheme_of(spec.surl),
        "guid": spec.guid,
        "timeout": int(transfer.limits.total(spec.filesize)),
        "register": not is_on(transfer.options, "no_register", default=True),
        "replace": transfer.may_replace,
    }


def _call(
    request: Mapping[str, Json], spec: FileSpec, transfer: Transfer, progress: Progress, *, read: bool
) -> dict[str, Json]:
    """Have the helper do something; every call tells it which Rucio is meant."""
    patient = replace(transfer, environ={**XROOTD_PATIENCE, **transfer.environ, **_AS_CLIENT})
    with _helper(patient) as rucio:
        told = {**request, "host": transfer.options.get("host", ""), "ca": transfer.ca}
        return rucio.call(told, spec, patient, read=read, progress=progress)


@contextmanager
def _helper(transfer: Transfer) -> Iterator[Helper]:
    """A helper with Rucio's clients. Raises TransferError(MIDDLEWARE) where there are none."""
    python = _python(transfer)
    try:
        with helper(Program(_HELPER, python), transfer) as found:
            yield found
    except LibraryMissing as exc:
        raise TransferError(f"{python} has no clients of Rucio ({exc}): {_ADVICE}", Kind.MIDDLEWARE, read=True) from exc


def _python(transfer: Transfer) -> str:
    """The Python with Rucio's clients: that of the queue's setup, the one named, the pilot's own, or the system's."""
    if transfer.options.get("setup"):
        return find_command("python3", transfer, _ADVICE)
    named = transfer.environ.get("RUCIO_PYTHON", "")
    python = named or (sys.executable if find_spec("rucio") else SYSTEM_PYTHON)
    if not os.access(python, os.X_OK):
        raise TransferError(
            f"no Python with Rucio's clients: {python} is not there; {_ADVICE}", Kind.MIDDLEWARE, read=True
        )
    return python


def _remove(spec: FileSpec, request: Mapping[str, Json], transfer: Transfer) -> None:
    """Raises PilotException."""
    _call({**request, "call": "remove"}, spec, transfer, lambda _: 0, read=False)


def _write_summary(spec: FileSpec, done: Mapping[str, Json], transfer: Transfer) -> None:
    """Add a file to the summary that the queue wants (summary_file_path), in the form of Rucio's own."""
    wanted = transfer.options.get("summary_file_path")
    if not wanted:
        return
    # The payload may have put a link there: it is replaced, and what it leads to is neither read nor written.
    path = transfer.workdir / Path(wanted).name
    entry = {
        "scope": spec.scope, "name": spec.lfn, "bytes": done["size"], "adler32": done["adler32"], "md5": done["md5"],
        "rse": spec.ddmendpoint, "pfn": done["pfn"], "guid": spec.guid,
    }  # fmt: skip
    with _summary:
        try:
            is_ours = path.is_file() and not path.is_symlink()
            known = json.loads(path.read_text(encoding="utf-8")) if is_ours else {}
            write_atomically(path, json.dumps({**known, f"{spec.scope}:{spec.lfn}": entry}, indent=1).encode())
        except (OSError, ValueError, TypeError) as exc:
            transfer.log.warning("the summary of uploads %s is not complete: %s", path, exc)


@contextmanager
def _folder(transfer: Transfer) -> Iterator[Path]:
    """A folder beside the job's files, in which nobody takes a file for complete; gone at the end."""
    path = transfer.workdir / f".rucio.{uuid.uuid4().hex[:8]}.part"
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _bytes_in(folder: Path) -> int:
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # renamed meanwhile
                total += entry.stat(follow_symlinks=False).st_size
    return total
