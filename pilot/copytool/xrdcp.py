"""Copytool for XRootD storage: XRootD's Python library when it is there, else the command `xrdcp`.

Both compute checksums while the bytes stream, and ask the server for its own after an upload; both are compared here,
so that an error names both values. The library serves file after file in one helper process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from pilot.common.exception import PilotException
from pilot.copytool.common import (
    Transfer,
    find_command,
    has_scheme,
    note_sent,
    output_path,
    take_in,
    user_callable,
    verify_stored,
    with_setup,
)
from pilot.copytool.errors import Kind, TransferError
from pilot.copytool.helper import Program, helper
from pilot.copytool.runner import bytes_read, growth_of, run_tool
from pilot.info.filespec import FileSpec
from pilot.info.storagedata import XROOTD_SCHEMES
from pilot.util.filehandling import CHECKSUM_TYPES, Copied, calculate_checksum
from pilot.util.https import Json
from pilot.util.watch import Limits

ALLOWED_SCHEMES = XROOTD_SCHEMES

_LIBRARY = Program("with_xrootd")
_ADVICE = "install the XRootD client (package xrootd-client of Debian and EPEL), or take another copytool for the queue"
# The client's own patience, unless the site has set it: one try of 20 s to connect (XRootD's own values, 5 of 120 s,
# make it ten minutes). The pilot has other places to try, and comes back to this one with a pause of its own.
_PATIENCE = {"XRD_CONNECTIONRETRY": "1", "XRD_CONNECTIONWINDOW": "20"}
# Removing what an upload left must not hold up the pilot's end (s).
_REMOVE_LIMITS = Limits(stall=3.0, fixed=3.0, speed=1.0)
# After these failures something half-written may lie in storage.
_HALF_WRITTEN = frozenset({Kind.CUT, Kind.STALLED, Kind.CANCELLED, Kind.DAMAGED})
# So many bytes are read to see whether a file can be read at all.
_LAST_BYTES = 64
# What `--cksum TYPE:print` writes: "adler32: 94f4cac0 root://host:1094/path 3000000". Names may have blanks in them.
_PRINTED = re.compile(rf"^({'|'.join(CHECKSUM_TYPES)}): ([0-9a-fA-F]+) (.+) (\d+)$", re.MULTILINE)


def is_valid_for_copy_in(files: list[FileSpec]) -> bool:
    """Whether all files have a source in XRootD."""
    return has_scheme(files, ALLOWED_SCHEMES)


def is_valid_for_copy_out(files: list[FileSpec]) -> bool:
    """Whether all files have a destination in XRootD."""
    return has_scheme(files, ALLOWED_SCHEMES)


@user_callable
def copy_in(files: list[FileSpec], transfer: Transfer) -> None:
    """Download files. Raises PilotException, with the kinds of pilot.copytool.errors."""
    patient = replace(transfer, environ=_patience(transfer.environ))
    get = _get_with_library if _has_library(transfer) else _get_with_command
    for spec in files:
        take_in(spec, patient, lambda target, algorithm, spec=spec: get(spec, patient, target, algorithm))  # type: ignore[misc]


@user_callable
def copy_out(files: list[FileSpec], transfer: Transfer) -> None:
    """Upload files and verify them. Raises PilotException, with the kinds of pilot.copytool.errors.

    What an upload that failed may have left is removed again.
    """
    patient = replace(transfer, environ=_patience(transfer.environ))
    put = _put_with_library if _has_library(transfer) else _put_with_command
    for spec in files:
        source = output_path(spec, transfer)
        spec.filesize = source.stat().st_size
        try:
            copied, stored = put(spec, patient, source, transfer.checksum_type)
            verify_stored(spec, copied, stored, transfer.checksum_type, spec.surl)
        except TransferError as exc:
            if exc.kind in _HALF_WRITTEN:
                _remove(spec, patient)
            raise
        note_sent(spec, transfer, copied)


def opens(spec: FileSpec, transfer: Transfer) -> None:
    """Open a file (its surl) where it lies and read its first bytes. Raises PilotException when that does not work."""
    patient = replace(transfer, environ=_patience(transfer.environ))
    if _has_library(transfer):
        with helper(_LIBRARY, patient) as xrootd:
            xrootd.call({"call": "opens", "url": spec.surl}, spec, patient, read=True)
        return
    # Of the command line tools this is the one that opens a file without reading all of it.
    xrdfs = find_command("xrdfs", transfer, _ADVICE)
    server, path = _server_and_path(spec.surl)
    command = [xrdfs, server, "tail", "-c", str(_LAST_BYTES), path]
    run_tool(with_setup(command, transfer), spec, patient, lambda _: 0, read=True)


def _has_library(transfer: Transfer) -> bool:
    """Whether XRootD's Python library is there; a queue with a setup of its own wants the command that it sets up."""
    return not transfer.options.get("setup") and find_spec("XRootD") is not None


def _get_with_library(spec: FileSpec, transfer: Transfer, target: Path, algorithm: str) -> Copied:
    with helper(_LIBRARY, transfer) as xrootd:
        request: dict[str, Json] = {"call": "get", "source": spec.surl, "target": str(target), "algorithm": algorithm}
        done = xrootd.call(request, spec, transfer, read=True)
    return Copied(int(str(done["size"])), str(done["checksum"]))


def _get_with_command(spec: FileSpec, transfer: Transfer, target: Path, algorithm: str) -> Copied:
    xrdcp = find_command("xrdcp", transfer, _ADVICE)
    command = [xrdcp, "--nopbar", "--force", "--cksum", f"{algorithm}:print", spec.surl, str(target)]
    said = run_tool(with_setup(command, transfer), spec, transfer, growth_of(target), read=True)
    _, checksum, printed = get_file_info_from_output(said)
    if checksum is None or printed != algorithm:
        checksum = calculate_checksum(str(target), algorithm)
    return Copied(target.stat().st_size, checksum)


def _put_with_library(spec: FileSpec, transfer: Transfer, source: Path, algorithm: str) -> tuple[Copied, Copied]:
    with helper(_LIBRARY, transfer) as xrootd:
        request: dict[str, Json] = {
            "call": "put", "source": str(source), "target": spec.surl, "algorithm": algorithm,
            "replace": transfer.may_replace,
        }  # fmt: skip
        done = xrootd.call(request, spec, transfer, read=False)
    size = int(str(done["size"]))
    return Copied(size, str(done["checksum"])), Copied(size, str(done["there"]))


def _put_with_command(spec: FileSpec, transfer: Transfer, source: Path, algorithm: str) -> tuple[Copied, Copied]:
    """What was sent, and what the server says it has."""
    xrdcp = find_command("xrdcp", transfer, _ADVICE)
    # --posc: the server keeps a file only when it was closed in order. Without --force it refuses to overwrite one.
    force = ["--force"] if transfer.may_replace else []
    command = [xrdcp, "--nopbar", *force, "--path", "--posc", "--cksum", f"{algorithm}:print", str(source), spec.surl]
    said = run_tool(with_setup(command, transfer), spec, transfer, bytes_read, read=False)
    printed = {
        name.startswith(tuple(f"{scheme}://" for scheme in ALLOWED_SCHEMES)): _normal(kind, checksum)
        for kind, checksum, name, _ in _PRINTED.findall(said)
        if kind == algorithm
    }
    there = printed.get(True)
    if there is None:
        text = f"{spec.lfn}, {spec.surl}: the server did not tell its {algorithm} checksum of the file"
        raise TransferError(text, Kind.OTHER, read=False)
    here = printed.get(False) or calculate_checksum(str(source), algorithm)
    return Copied(spec.filesize, here), Copied(spec.filesize, there)


def get_file_info_from_output(output: str) -> tuple[int | None, str | None, str | None]:
    """(size, checksum, checksum type) of the last file that xrdcp has printed; three times None when it has not."""
    found = _PRINTED.findall(output)
    if not found:
        return None, None, None
    algorithm, checksum, _, size = found[-1]
    return int(size), _normal(algorithm, checksum), algorithm


def _normal(algorithm: str, checksum: str) -> str:
    return checksum.lower().zfill(8) if algorithm == "adler32" else checksum.lower()


def _patience(environ: Mapping[str, str]) -> dict[str, str]:
    return {**_PATIENCE, **environ}


def _server_and_path(surl: str) -> tuple[str, str]:
    """root://host:port//path -> what xrdfs takes for it."""
    scheme, _, rest = surl.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", f"/{path.lstrip('/')}"


def _remove(spec: FileSpec, transfer: Transfer) -> None:
    """Remove what an upload may have left. The server removes it too, after a while (posc)."""
    brief = replace(transfer, limits=_REMOVE_LIMITS, cancelled=lambda: False)
    try:
        if _has_library(transfer):
            with helper(_LIBRARY, brief) as xrootd:
                xrootd.call({"call": "remove", "url": spec.surl}, spec, brief, read=False)
            return
        server, path = _server_and_path(spec.surl)
        xrdfs = find_command("xrdfs", transfer, _ADVICE)
        command = with_setup([xrdfs, server, "rm", path], transfer)
        run_tool(command, spec, brief, lambda _: 0, read=False)
    except PilotException as exc:
        if not (isinstance(exc, TransferError) and exc.kind is Kind.MISSING):
            transfer.log.warning("%s may be left half-written: %s", spec.surl, exc.diag)
