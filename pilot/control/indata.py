"""What is done with a job's inputs beside moving them: which are left out, and what the payload is told of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import FileHandlingFailure, PilotException
from pilot.info.filespec import NO_TRANSFER, REMOTE_IO, FileSpec
from pilot.info.jobdata import JobData
from pilot.util.credentials import SECRET_VARIABLES
from pilot.util.filehandling import get_guid, write_atomically
from pilot.util.plugins import Plugins
from pilot.util.poolfilecatalog import CatalogueEntry, write_catalogue

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def skip_special_files(job: JobData, plugins: Plugins | None = None) -> None:
    """Let the experiment take inputs out that are on the node already (hook common.update_stagein).

    plugins: whose hook is asked (default: the generic experiment's).
    """
    (plugins or Plugins("generic")).hook("common", "update_stagein")(job)


def update_indata(job: JobData) -> None:
    """Take those inputs off a job's list whose status says that they are not to be brought in (no_transfer)."""
    job.indata = [spec for spec in job.indata if spec.status != NO_TRANSFER]


def get_input_file_dictionary(indata: Sequence[FileSpec], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """{guid: address} of inputs: the turl of one that is read where it lies, else its plain name.

    Variables in turls are replaced, but for those that lead to credentials. environ: where they are looked up
    (default: this process's environment).
    """
    return {guid: pfn for guid, _, pfn in _addresses(indata, os.environ if environ is None else environ)}


def write_pool_file_catalogue(path: Path, indata: Sequence[FileSpec], environ: Mapping[str, str]) -> None:
    """Write the catalogue of a job's inputs, unless one of them has its name.

    Raises PilotException(FILEHANDLINGFAILURE).
    """
    if not indata or path.name in [spec.lfn for spec in indata]:
        return
    entries = [CatalogueEntry(guid, spec.lfn, pfn) for guid, spec, pfn in _addresses(indata, environ)]
    try:
        write_catalogue(path, entries)
    except OSError as exc:
        text = f"the list of inputs {path} cannot be written: {exc.strerror}"
        raise PilotException(text, code=ErrorCodes.FILEHANDLINGFAILURE) from exc


def _addresses(indata: Sequence[FileSpec], environ: Mapping[str, str]) -> list[tuple[str, FileSpec, str]]:
    """GUID, file and address. A file without a GUID gets one here: catalogues are read by it."""
    return [
        (spec.guid or get_guid(), spec, _expanded(spec.turl, environ) if spec.status == REMOTE_IO else spec.lfn)
        for spec in indata
    ]


def _expanded(turl: str, environ: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        name = found.group(1) or found.group(2)
        # An address comes from outside, and goes where the payload wants.
        return found.group(0) if name in SECRET_VARIABLES else environ.get(name, found.group(0))

    return _VARIABLE.sub(value, turl)


def get_rse(data: Sequence[FileSpec], lfn: str = "") -> str:
    """The storage of the file with this name, or of the first file when no name is given; empty when there is none."""
    return next((spec.ddmendpoint for spec in data if spec.lfn == lfn or not lfn), "")


def write_output(filename: str, output: str) -> None:
    """Write what a command said to a file. Raises FileHandlingFailure."""
    try:
        write_atomically(Path(filename), output.encode("utf-8", "replace"))
    except OSError as exc:
        raise FileHandlingFailure(f"{filename} cannot be written: {exc.strerror}") from exc


def write_utility_output(workdir: str, step: str, stdout: str, stderr: str) -> None:
    """Write what a utility said to <step>_stdout.txt and <step>_stderr.txt. Raises FileHandlingFailure."""
    write_output(os.path.join(workdir, f"{step}_stdout.txt"), stdout)
    write_output(os.path.join(workdir, f"{step}_stderr.txt"), stderr)
