"""Inputs in a directory that several jobs use (--input-destination-dir), with links to them in the job's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pilot.common.exception import FileHandlingFailure
from pilot.copytool.common import cancelled_error, expected_algorithm, note_transferred
from pilot.copytool.errors import Kind, TransferError
from pilot.info.filespec import FileSpec
from pilot.util.filehandling import Cancelled, checksum_of


def make_folder(folder: Path) -> None:
    """Make the directory if it is not there. Raises FileHandlingFailure."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise FileHandlingFailure(f"--input-destination-dir {folder} cannot be made: {exc.strerror}") from exc


def still_to_fetch(files: Sequence[FileSpec], folder: Path, cancelled: Callable[[], bool]) -> list[FileSpec]:
    """The files that are not in the folder yet; what an earlier job has left there is verified and used.

    Raises TransferError for a name that is there with other contents: another job may be reading that file.
    """
    return [spec for spec in files if not _is_there(spec, folder / spec.lfn, cancelled)]


def _is_there(spec: FileSpec, path: Path, cancelled: Callable[[], bool]) -> bool:
    algorithm = expected_algorithm(spec)
    try:
        if not path.exists():
            return False
        if not path.is_file():
            # Opening a pipe or a device could wait for ever.
            raise TransferError(f"{path} is there already, and is no plain file", Kind.EXISTS, read=True)
        found = checksum_of(path, algorithm, cancelled)
    except Cancelled:
        raise cancelled_error(spec, read=True) from None
    except OSError as exc:
        raise TransferError(f"{path} cannot be read: {exc.strerror}", Kind.OTHER, read=True) from exc
    if (spec.filesize or found.size, spec.checksum.get(algorithm)) != (found.size, found.checksum):
        known = f"{spec.filesize or 'no known'} bytes, {algorithm} {spec.checksum.get(algorithm, 'not known')}"
        text = f"{path} is there already, with {found.size} bytes, {algorithm} {found.checksum}; the input has {known}"
        raise TransferError(text, Kind.EXISTS, read=True)
    spec.surl = str(path)
    note_transferred(spec, found, algorithm)
    return True


def link(files: Sequence[FileSpec], folder: Path, workdir: Path) -> None:
    """Put links to the files into the job's directory, where payloads look for them. Raises FileHandlingFailure."""
    for spec in files:
        try:
            (workdir / spec.lfn).symlink_to(folder / spec.lfn)
        except OSError as exc:
            text = f"no link to input {spec.lfn} in {folder} can be made in the job's directory: {exc.strerror}"
            raise FileHandlingFailure(text) from exc
