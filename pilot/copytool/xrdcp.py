"""Copytool for XRootD storage: XRootD's Python library when it is there, else the command `xrdcp`.

Both compute checksums while the bytes stream, and ask the server for its own after an upload; a server that tells none
has the file read back. Both values are compared here, so that an error names both. The library serves file after file
in one helper process; a queue that gives this copytool a `setup` wants the command that it sets up.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from pilot.copytool.common import (
    Transfer,
    find_command,
    has_scheme,
    user_callable,
    with_setup,
)
from pilot.copytool.errors import Kind, TransferError
from pilot.copytool.helper import HelperWay, Program, first_with_library, helper
from pilot.copytool.helpers.with_xrootd import NO_CHECKSUM
from pilot.copytool.runner import bytes_read, bytes_written, growth_of, run_tool
from pilot.copytool.ways import XROOTD_PATIENCE, Way, bring_all, check_whole, send_all
from pilot.info.filespec import FileSpec
from pilot.info.storagedata import XROOTD_SCHEMES
from pilot.util.filehandling import CHECKSUM_TYPES, Copied, calculate_checksum
from pilot.util.guarded import GuardedProcess

ALLOWED_SCHEMES = XROOTD_SCHEMES

_LIBRARY = Program("with_xrootd")
_ADVICE = "install the XRootD client (package xrootd-client of Debian and EPEL), or take another copytool for the queue"
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
    patient = _patient(transfer)
    bring_all(files, patient, _way(patient))


@user_callable
def copy_out(files: list[FileSpec], transfer: Transfer) -> None:
    """Upload files and verify them. Raises PilotException, with the kinds of pilot.copytool.errors.

    What an upload that failed may have left is removed again.
    """
    patient = _patient(transfer)
    send_all(files, patient, _way(patient))


def _patient(transfer: Transfer) -> Transfer:
    return replace(transfer, environ={**XROOTD_PATIENCE, **transfer.environ})


def _way(transfer: Transfer) -> Way:
    library = _library(transfer)
    return _Command() if library is None else HelperWay(library)


def _library(transfer: Transfer) -> Program | None:
    """The library where it is there and the queue has no setup of its own, which wants the command."""
    # Looked for here first: a process that only says that there is no library costs 50 ms.
    if transfer.options.get("setup") or find_spec("XRootD") is None:
        return None
    return first_with_library([_LIBRARY], transfer)


class _Command:
    """The way with the commands xrdcp and xrdfs."""

    def get(self, spec: FileSpec, transfer: Transfer, target: Path, algorithm: str) -> Copied:
        command = ["--nopbar", "--force", "--cksum", f"{algorithm}:print", spec.surl, str(target)]
        said = _run(["xrdcp", *command], spec, transfer, growth_of(target), read=True)
        moved, checksum, printed = get_file_info_from_output(said)
        if moved is not None:
            check_whole(spec, target, moved)
        if checksum is None or printed != algorithm:
            checksum = calculate_checksum(str(target), algorithm)
        return Copied(target.stat().st_size, checksum)

    def put(self, spec: FileSpec, transfer: Transfer, source: Path) -> tuple[Copied, Copied]:
        algorithm = transfer.checksum_type
        # --posc: the server keeps a file only when it was closed in order. Without --force it refuses to overwrite one.
        force = ["--force"] if transfer.may_replace else []
        command = ["xrdcp", "--nopbar", *force, "--path", "--posc", "--cksum", f"{algorithm}:print", str(source)]
        try:
            said = _run([*command, spec.surl], spec, transfer, bytes_read, read=False)
        except TransferError as exc:
            if NO_CHECKSUM not in exc.diag:
                raise
            said = ""
        printed = {
            name.startswith(tuple(f"{scheme}://" for scheme in ALLOWED_SCHEMES)): _normal(kind, checksum)
            for kind, checksum, name, _ in _PRINTED.findall(said)
            if kind == algorithm
        }
        sent = Copied(spec.filesize, printed.get(False) or calculate_checksum(str(source), algorithm))
        there = printed.get(True)
        return sent, self._read_back(spec, transfer) if there is None else Copied(spec.filesize, there)

    def exists(self, spec: FileSpec, transfer: Transfer) -> bool:
        try:
            self._xrdfs("stat", spec, transfer)
        except TransferError as exc:
            if exc.kind is not Kind.MISSING:
                raise
            return False
        return True

    def remove(self, spec: FileSpec, transfer: Transfer) -> None:
        self._xrdfs("rm", spec, transfer)

    def _read_back(self, spec: FileSpec, transfer: Transfer) -> Copied:
        """What lies on a server that tells no checksum: xrdcp prints what it has read."""
        command = ["--nopbar", "--force", "--cksum", f"{transfer.checksum_type}:print", spec.surl, "/dev/null"]
        said = _run(["xrdcp", *command], spec, transfer, bytes_written, read=False)
        size, checksum, printed = get_file_info_from_output(said)
        if size is None or checksum is None or printed != transfer.checksum_type:
            text = f"{spec.lfn}, {spec.surl}: neither the server nor xrdcp told a checksum of the stored file"
            raise TransferError(text, Kind.DAMAGED, read=False)
        return Copied(size, checksum)

    def _xrdfs(self, what: str, spec: FileSpec, transfer: Transfer) -> None:
        server, path = _server_and_path(spec.surl)
        _run(["xrdfs", server, what, path], spec, transfer, lambda _: 0, read=False)


def opens(spec: FileSpec, transfer: Transfer) -> None:
    """Open a file (its surl) where it lies and read its first bytes. Raises PilotException when that does not work."""
    patient = _patient(transfer)
    library = _library(patient)
    if library is not None:
        with helper(library, patient) as xrootd:
            xrootd.call({"call": "opens", "url": spec.surl}, spec, patient, read=True)
        return
    # Of the command line tools this is the one that opens a file without reading all of it.
    server, path = _server_and_path(spec.surl)
    _run(["xrdfs", server, "tail", "-c", str(_LAST_BYTES), path], spec, patient, lambda _: 0, read=True)


def _run(
    command: list[str], spec: FileSpec, transfer: Transfer, progress: Callable[[GuardedProcess], int], *, read: bool
) -> str:
    """Run one of XRootD's commands."""
    found = find_command(command[0], transfer, _ADVICE)
    return run_tool(with_setup([found, *command[1:]], transfer), spec, transfer, progress, read=read)


def get_file_info_from_output(output: str) -> tuple[int | None, str | None, str | None]:
    """(size, checksum, checksum type) of the last file that xrdcp has printed; three times None when it has not."""
    found = _PRINTED.findall(output)
    if not found:
        return None, None, None
    algorithm, checksum, _, size = found[-1]
    return int(size), _normal(algorithm, checksum), algorithm


def _normal(algorithm: str, checksum: str) -> str:
    return checksum.lower().zfill(8) if algorithm == "adler32" else checksum.lower()


def _server_and_path(surl: str) -> tuple[str, str]:
    """root://host:port//path -> what xrdfs takes for it."""
    scheme, _, rest = surl.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", f"/{path.lstrip('/')}"
