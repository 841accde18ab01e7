"""Copytool for whatever gfal2 speaks: its Python module in a helper, else its commands.

gfal2 takes its credentials from the environment (X509_USER_PROXY, X509_CERT_DIR, BEARER_TOKEN), and what it can speak
depends on its plugins. After an upload the storage is asked for its checksum; where it tells none the file is read
back, or, with the commands, compared by its size.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from pilot.copytool.common import (
    Transfer,
    find_command,
    has_scheme,
    path_beside,
    remove,
    user_callable,
    with_setup,
)
from pilot.copytool.errors import Kind, TransferError
from pilot.copytool.helper import SYSTEM_PYTHON, HelperWay, Program, first_with_library
from pilot.copytool.helpers.with_gfal import TRANSFER_LIMIT, local_url, remote_url
from pilot.copytool.runner import bytes_read, growth_of, run_tool
from pilot.copytool.ways import XROOTD_PATIENCE, Way, bring_all, check_arrived, check_whole, send_all
from pilot.info.filespec import FileSpec
from pilot.info.storagedata import XROOTD_SCHEMES
from pilot.util.credentials import storage_token
from pilot.util.filehandling import ADLER32, Copied, calculate_checksum
from pilot.util.guarded import GuardedProcess

ALLOWED_SCHEMES = (*XROOTD_SCHEMES, "https", "http", "davs", "dav", "file", "gsiftp", "srm")

_ADVICE = (
    "install gfal2 (packages python3-gfal2 and gfal2-util-scripts of Debian, python3-gfal2-util of EPEL, and "
    "gfal2-plugin-* or gfal2-all), or name the directory or setup file of another one as the setup of copytool gfal"
)
_SIZE = re.compile(r"^\s*Size:\s+(\d+)", re.MULTILINE)


def is_valid_for_copy_in(files: list[FileSpec]) -> bool:
    """Whether all files have a source of which gfal2 may know the protocol."""
    return has_scheme(files, ALLOWED_SCHEMES)


def is_valid_for_copy_out(files: list[FileSpec]) -> bool:
    """Whether all files have a destination of which gfal2 may know the protocol."""
    return has_scheme(files, ALLOWED_SCHEMES)


def check_for_gfal() -> bool:
    """Whether gfal2's commands are on the PATH, or this Python has its module (a documented name)."""
    return shutil.which("gfal-copy") is not None or find_spec("gfal2") is not None


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


def pythons(environ: Mapping[str, str]) -> list[str]:
    """The Pythons that may have the module, best first: this one, the one the site names, and the system's own."""
    own = sys.executable if find_spec("gfal2") else ""
    named = environ.get("GFAL_PYTHONBIN", "")
    found = (shutil.which(name, path=environ.get("PATH")) for name in (own, named, SYSTEM_PYTHON) if name)
    return list(dict.fromkeys(filter(None, found)))


def _patient(transfer: Transfer) -> Transfer:
    return replace(transfer, environ={**XROOTD_PATIENCE, **transfer.environ})


def _way(transfer: Transfer) -> Way:
    """The module where a Python has it and the queue has no setup of its own, else the commands."""
    if transfer.options.get("setup"):
        return _Commands()
    library = first_with_library([Program("with_gfal", one) for one in pythons(transfer.environ)], transfer)
    return _Commands() if library is None else HelperWay(library)


class _Commands:
    """The way with the commands of gfal2-util."""

    def get(self, spec: FileSpec, transfer: Transfer, target: Path, algorithm: str) -> Copied:
        command = [*_copy(), remote_url(spec.surl), local_url(str(target), spec.surl)]
        _run(command, spec, transfer, growth_of(target), read=True)
        if target.stat().st_size != spec.filesize:
            check_whole(spec, target, self._size(spec, transfer, read=True))
        checksum = calculate_checksum(str(target), algorithm)
        told = "" if spec.checksum else self._checksum(spec, transfer, algorithm, read=True)
        check_arrived(spec, algorithm, checksum, told)
        return Copied(target.stat().st_size, checksum)

    def put(self, spec: FileSpec, transfer: Transfer, source: Path) -> tuple[Copied, Copied]:
        # Only where there is something to replace: else gfal-copy hides the reason of a failure behind another.
        force = ["--force"] if transfer.may_replace and self.exists(spec, transfer) else []
        with _plainly_named(source, spec) as path:
            command = [*_copy(), "--parent", *force, local_url(str(path), spec.surl), remote_url(spec.surl)]
            _run(command, spec, transfer, bytes_read, read=False)
        algorithm = transfer.checksum_type
        told = self._checksum(spec, transfer, algorithm, read=False)
        stored = Copied(self._size(spec, transfer, read=False), told)
        if not told:
            transfer.log.warning("%s: the storage tells no checksum, only the size is compared", spec.surl)
        return Copied(spec.filesize, calculate_checksum(str(source), algorithm)), stored

    def exists(self, spec: FileSpec, transfer: Transfer) -> bool:
        try:
            self._size(spec, transfer, read=False)
        except TransferError as exc:
            if exc.kind is not Kind.MISSING:
                raise
            return False
        return True

    def remove(self, spec: FileSpec, transfer: Transfer) -> None:
        _run(["gfal-rm", remote_url(spec.surl)], spec, transfer, lambda _: 0, read=False)

    def _size(self, spec: FileSpec, transfer: Transfer, *, read: bool) -> int:
        said = _run(["gfal-stat", remote_url(spec.surl)], spec, transfer, lambda _: 0, read=read)
        found = _SIZE.search(said)
        if found is None:
            raise TransferError(f"{spec.lfn}, {spec.surl}: gfal-stat told no size ({said})", Kind.OTHER, read=read)
        return int(found[1])

    def _checksum(self, spec: FileSpec, transfer: Transfer, algorithm: str, *, read: bool) -> str:
        """The checksum that the storage tells, or an empty text."""
        url = remote_url(spec.surl)
        try:
            said = _run(["gfal-sum", url, algorithm], spec, transfer, lambda _: 0, read=read)
        except TransferError as exc:
            if exc.kind in (Kind.CANCELLED, Kind.STALLED):
                raise
            return ""
        value = said.split()[-1].lower()
        return value.zfill(8) if algorithm == ADLER32 else value


@contextmanager
def _plainly_named(source: Path, spec: FileSpec) -> Iterator[Path]:
    """A path to a file for gfal-copy, which wants it quoted to send it with XRootD and unquoted to look at it."""
    if not spec.surl.startswith(XROOTD_SCHEMES) or not set(source.name) & set("%#"):
        yield source
        return
    link = path_beside(source.with_name("output"))
    link.symlink_to(source.name)
    try:
        yield link
    finally:
        remove(link)


def _copy() -> list[str]:
    limit = str(TRANSFER_LIMIT)
    # No delegation: nobody else is handed a proxy of the pilot's.
    return ["gfal-copy", "--no-delegation", "--timeout", limit, "--transfer-timeout", limit]


def _run(
    command: list[str], spec: FileSpec, transfer: Transfer, progress: Callable[[GuardedProcess], int], *, read: bool
) -> str:
    """Run one of gfal2's commands."""
    found = find_command(command[0], transfer, _ADVICE)
    own = {}
    beside = Path(found).with_name("python3")
    if os.path.isabs(found) and beside.exists():
        # It is a script that would be run by the first python on the PATH, which may be that of the pilot; the one
        # that lies beside it is the one it was installed for.
        own["GFAL_PYTHONBIN"] = transfer.environ.get("GFAL_PYTHONBIN", str(beside))
    token = storage_token(transfer.environ)
    if token:
        # gfal2 does not look for it in the file that BEARER_TOKEN_FILE names.
        own["BEARER_TOKEN"] = token
    told = replace(transfer, environ={**transfer.environ, **own})
    return run_tool(with_setup([found, *command[1:]], told), spec, told, progress, read=read)
