"""ZIP_MAP: archives that the pilot packs from a job's files, as its parameters name them.

`<ZIP_MAP>out.zip:file1,file2,hist_*.root</ZIP_MAP>`; several archives stand in several marks, or in one with blanks
between them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from pilot.common.exception import ConversionFailure
from pilot.info.filespec import check_lfn, is_pattern

_BEGIN, _END = "<ZIP_MAP>", "</ZIP_MAP>"
# Names that promise compression, which the archives do not have: a reader would trust the name.
_COMPRESSED = re.compile(r"\.(tgz|tar\.[a-z]\w*|gz|bz2|xz)(\.[0-9]+)?\Z")
_TAR = re.compile(r"\.tar(\.[0-9]+)?\Z")


@dataclass(frozen=True)
class Archive:
    """An output that is packed from files of the job. members: their names, or patterns of them (* and ?)."""

    lfn: str
    members: tuple[str, ...]

    @property
    def is_tar(self) -> bool:
        """Whether it is a tar archive: .tar, or .tar.3 of a third attempt. Any other name is a zip archive's."""
        return _TAR.search(self.lfn) is not None


def take_zipmap(text: str) -> tuple[str, str]:
    """Take all ZIP_MAP marks out of a command line; return it, and what stood between them, separated by blanks."""
    first, *others = text.split(_BEGIN)
    found: list[str] = []
    kept = [first]
    for piece in others:
        inner, closed, after = piece.partition(_END)
        if not closed:
            kept.append(_BEGIN + piece)
            continue
        found.append(inner)
        before = kept.pop()
        # The marks are often quoted, since a shell would take them for redirections.
        if before[-1:] in ("'", '"') and after[:1] == before[-1:]:
            before, after = before[:-1], after[1:]
        kept += [before.rstrip() + " ", after.lstrip()]
    return "".join(kept), " ".join(found)


def read_zipmap(text: str, outputs: Collection[str], limit: int) -> list[Archive]:
    """What take_zipmap has found, as archives. outputs: names of the job's outputs; limit: longest LFN (bytes).

    Raises PilotException: CONVERSIONFAILURE, LFNTOOLONG or BADOUTPUTFILENAME.
    """
    archives: dict[str, Archive] = {}
    for item in text.split():
        lfn, _, rest = item.partition(":")
        members = tuple(check_lfn(one, "jobPars", limit, output=True, pattern=True) for one in rest.split(",") if one)
        if not (lfn and members):
            raise _wrong(f"{item[:60]!r} is not of the form archive:file,file,...")
        if lfn not in outputs or is_pattern(lfn):
            raise _wrong(f"archive {lfn[:60]!r} is none of the job's outputs")
        if _COMPRESSED.search(lfn):
            raise _wrong(f"{lfn[:60]!r}: archives are .zip or .tar, without compression")
        if lfn in archives:
            raise _wrong(f"archive {lfn[:60]!r} is there twice")
        archives[lfn] = Archive(lfn, members)
    for archive in archives.values():
        for member in archive.members:
            if member in archives:
                raise _wrong(f"{member[:60]!r} is an archive, and a member of one")
    return list(archives.values())


def _wrong(why: str) -> ConversionFailure:
    return ConversionFailure(f"field jobPars: ZIP_MAP: {why}")
