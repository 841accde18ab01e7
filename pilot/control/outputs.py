"""From what a payload has left in its directory to the job's outputs: patterns, the job report, archives, checks.

All of it happens before anything is moved: a job whose outputs are not as they should be leaves nothing in storage.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import FileHandlingFailure, PilotException
from pilot.control.jobrun import JobRun
from pilot.info.filespec import FileSpec, check_lfn, is_pattern
from pilot.info.jobreport import reported_outputs
from pilot.info.zipmap import Archive
from pilot.util.archives import pack, size_of
from pilot.util.config import FileSettings
from pilot.util.filehandling import Cancelled
from pilot.util.workernode import local_space

# More outputs of one job than this are a mistake in a pattern; servers take no more files of a job either.
_MOST_OUTPUTS = 10_000
# So many names of what is there instead are shown when an output is missing.
_SHOWN = 10


def settle_outputs(run: JobRun, settings: FileSettings, own: Collection[str], *, from_report: bool) -> None:
    """Make `run.data.outdata` the list of the files that are to be stored, and make sure that they are there.

    Patterns become the files that match them, in alphabetical order. from_report: files that the job report names
    become outputs, too. GUIDs come from the job report where it has them. Archives (ZIP_MAP) are packed. own: names
    in the job's directory that are no outputs unless they are named. A missing file that the job allows to be missing
    (allowNoOutput) is taken off the list.

    Raises PilotException: MISSINGOUTPUTFILE, EMPTYOUTPUTFILE, OUTPUTFILETOOLARGE, BADOUTPUTFILENAME, LFNTOOLONG,
    NOLOCALSPACE, FILEHANDLINGFAILURE; STAGEOUTFAILED when the outputs are given up meanwhile.
    """
    if not run.data.outdata and not (from_report and reported_outputs(run.report)):
        return
    try:
        _Settling(run, settings, own).settle(from_report=from_report)
    except OSError as exc:
        # A payload may have removed its directory, or locked it.
        text = f"the job's directory cannot be looked into: {exc.filename}: {exc.strerror}"
        raise PilotException(text, code=ErrorCodes.MISSINGOUTPUTFILE) from exc


def output_names(run: JobRun, own: Collection[str]) -> set[str]:
    """Names in the job's directory that are outputs or go into one, checked or not: they have no place in the log."""
    wanted = [spec.lfn for spec in run.data.outdata]
    wanted += [member for archive in run.data.archives for member in archive.members]
    try:
        there = os.listdir(run.workdir)
    except OSError:
        there = []
    return {*wanted, *(name for pattern in wanted if is_pattern(pattern) for name in _matches(pattern, there, own))}


class _Settling:
    """One job's outputs on their way from names and patterns to files."""

    def __init__(self, run: JobRun, settings: FileSettings, own: Collection[str]) -> None:
        self._run = run
        self._settings = settings
        self._own = own
        self._inside = os.path.realpath(run.workdir)
        self._there = os.listdir(run.workdir)
        self._reported = reported_outputs(run.report)
        self._allowed = {name.strip() for name in run.data.allownooutput.split(",") if name.strip()}

    def settle(self, *, from_report: bool) -> None:
        data = self._run.data
        members = [self._members(archive) for archive in data.archives]
        packed = {name for found in members for name in found}
        archives = {archive.lfn for archive in data.archives}
        outputs = self._expanded(data.outdata, packed)
        if from_report:
            outputs += self._from_report({*packed, *(spec.lfn for spec in outputs)})
        if len(outputs) > _MOST_OUTPUTS:
            text = f"the job has {len(outputs)} output files, {_MOST_OUTPUTS} is the most"
            raise PilotException(text, code=ErrorCodes.BADOUTPUTFILENAME)
        empty = {archive.lfn for archive, found in zip(data.archives, members) if not found}
        outputs = self._existing(outputs, archives - empty)
        self._check_sizes([spec for spec in outputs if spec.lfn not in archives])
        for archive, found in zip(data.archives, members):
            if found:
                self._pack(archive, found)
        self._check_sizes([spec for spec in outputs if spec.lfn in archives])
        for spec in outputs:
            if spec.lfn in self._reported:
                spec.guid = self._reported[spec.lfn].guid or spec.guid
        data.outdata = outputs

    def _is_allowed_missing(self, name: str) -> bool:
        return name in self._allowed or "True" in self._allowed

    def _is_file(self, name: str) -> bool:
        """Whether there is a plain file of this name, or a link to one in the job's directory.

        Raises PilotException for a link to anything else: the pilot may read more than the payload may.
        """
        path = self._run.workdir / name
        real = os.path.realpath(path)
        if path.is_symlink() and os.path.lexists(real) and not real.startswith(self._inside + os.sep):
            text = f"output {name} is a link that leads out of the job's directory, and is not followed"
            raise PilotException(text, code=ErrorCodes.MISSINGOUTPUTFILE)
        return os.path.isfile(real)

    def _matching(self, pattern: str, taken: Collection[str]) -> list[str]:
        """Files that match, in alphabetical order. Raises PilotException for one whose name can be no LFN."""
        found = [name for name in _matches(pattern, self._there, self._own) if name not in taken]
        files = [name for name in found if self._is_file(name)]
        return [check_lfn(name, f"outFiles ({pattern})", self._settings.lfn_limit, output=True) for name in files]

    def _expanded(self, outdata: Iterable[FileSpec], packed: Collection[str]) -> list[FileSpec]:
        """The outputs with files in the place of patterns; a file belongs to the first pattern that it matches."""
        taken = {*packed, *(spec.lfn for spec in outdata)}
        outputs: list[FileSpec] = []
        for spec in outdata:
            if not is_pattern(spec.lfn):
                outputs.append(spec)
                continue
            found = self._matching(spec.lfn, taken)
            if not found and not self._is_allowed_missing(spec.lfn):
                raise self._missing([spec.lfn])
            if self._is_allowed_missing(spec.lfn):
                self._allowed.update(found)
            outputs += [FileSpec(name, "output", spec.scope, "", spec.dataset, spec.ddmendpoint) for name in found]
            taken.update(found)
        return outputs

    def _from_report(self, known: Collection[str]) -> list[FileSpec]:
        """What the job report names beyond the definition; scope, dataset and storage are those of the log."""
        names = [name for name in self._reported if name not in known]
        like = self._run.data.logdata[0] if self._run.data.logdata else FileSpec("")
        for name in names:
            check_lfn(name, "files.output of the job report", self._settings.lfn_limit, output=True)
            if name in self._own:
                text = f"the job report names {name} as an output, which is one of the pilot's own files or an input"
                raise PilotException(text, code=ErrorCodes.BADOUTPUTFILENAME)
        return [FileSpec(name, "output", like.scope, "", like.dataset, like.ddmendpoint) for name in names]

    def _existing(self, outputs: Iterable[FileSpec], archives: Collection[str]) -> list[FileSpec]:
        """The outputs that are there or will be packed. Raises PilotException(MISSINGOUTPUTFILE)."""
        existing, lost = [], []
        for spec in outputs:
            if spec.lfn in archives or self._is_file(spec.lfn):
                existing.append(spec)
            elif not self._is_allowed_missing(spec.lfn):
                lost.append(spec.lfn)
        if lost:
            raise self._missing(lost)
        return existing

    def _missing(self, lost: list[str], where: str = "") -> PilotException:
        names = sorted(name for name in self._there if (self._run.workdir / name).is_file())
        # The payload chose these names; what cannot be shown could not be stored by the server either.
        there = ["".join(c if c.isprintable() else "?" for c in name) for name in names[:_SHOWN]]
        text = f"the payload has not made {', '.join(lost)}{where}; its directory holds: {', '.join(there)}"
        return PilotException(text, code=ErrorCodes.MISSINGOUTPUTFILE)

    def _check_sizes(self, outputs: Iterable[FileSpec]) -> None:
        limit = self._settings.output_limit
        for spec in outputs:
            size = (self._run.workdir / spec.lfn).stat().st_size
            if size == 0 and not self._is_allowed_missing(spec.lfn):
                raise PilotException(f"output file {spec.lfn} is empty", code=ErrorCodes.EMPTYOUTPUTFILE)
            if size > limit:
                text = f"output file {spec.lfn} has {size} bytes, {limit} are allowed"
                raise PilotException(text, code=ErrorCodes.OUTPUTFILETOOLARGE)

    def _members(self, archive: Archive) -> dict[str, Path]:
        """The files of an archive by name. Raises PilotException(MISSINGOUTPUTFILE), naming the archive."""
        names: dict[str, None] = {}
        for member in archive.members:
            if is_pattern(member):
                found = self._matching(member, [one.lfn for one in self._run.data.archives])
            else:
                found = [member] if self._is_file(member) else []
            if not found and not self._is_allowed_missing(member):
                raise self._missing([member], f", which belongs into {archive.lfn}")
            names.update(dict.fromkeys(found))
        return {name: self._run.workdir / name for name in names}

    def _pack(self, archive: Archive, members: dict[str, Path]) -> None:
        target = self._run.workdir / archive.lfn
        needed, free = size_of(members), local_space(self._run.workdir)
        no_space = f"no space to pack {archive.lfn}: {needed} bytes are needed, {free} are free at {self._run.workdir}"
        if needed > free:
            raise PilotException(no_space, code=ErrorCodes.NOLOCALSPACE)
        try:
            pack(target, members, tar=archive.is_tar, cancelled=self._run.give_up_outputs.is_set)
        except Cancelled:
            text = f"archive {archive.lfn} was given up while it was packed"
            raise PilotException(text, code=ErrorCodes.STAGEOUTFAILED) from None
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise PilotException(no_space, code=ErrorCodes.NOLOCALSPACE) from exc
            raise FileHandlingFailure(f"archive {archive.lfn} cannot be packed: {exc.strerror}") from exc


def _matches(pattern: str, there: Iterable[str], own: Collection[str]) -> list[str]:
    """As in a shell: hidden files match no pattern. Nor do files that are not the payload's."""
    return sorted(n for n in there if not n.startswith(".") and n not in own and fnmatchcase(n, pattern))
