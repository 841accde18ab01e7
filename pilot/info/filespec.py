"""One file of a job: input, output or log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import ConversionFailure, PilotException
from pilot.info.replica import Replica
from pilot.info.storagedata import Protocol

# Characters of names that become part of paths, URLs and command lines. What is not here has a meaning somewhere.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=@:~#%-]*\Z")
# An output may be a pattern: * for any characters, ? for one.
_PATTERN = re.compile(r"[A-Za-z0-9_*?][A-Za-z0-9._+=@:~#%*?-]*\Z")
# File systems have this limit for a name (bytes); default.cfg may say less for a pilot's jobs.
LFN_LIMIT = 255
_SCOPE = re.compile(r"[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*\Z")
_ENDPOINT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
# Files that a program can read where they lie: of ROOT's format, which is read piece by piece, and no archive of them.
_ROOT_FILE, _ARCHIVE = re.compile(r"\.root(\W|_|\Z)"), re.compile(r"\.(tar|tgz|tar\.\w+|zip|gz|bz2|xz|zst)(\.\d+)?\Z")
# What a job says of an input that has to be in its directory (prodDBlockToken).
LOCAL_TOKEN = "local"
# How a job wants its inputs (accessmode): read where they lie, or copied into its directory.
DIRECT, COPY = "direct", "copy"
# The status of a file that is read where it lies.
REMOTE_IO = "remote_io"
# The status of a file that is there without the pilot, and is not moved.
NO_TRANSFER = "no_transfer"
_CHECKSUMS = {"adler32": re.compile(r"[0-9a-f]{1,8}\Z"), "md5": re.compile(r"[0-9a-f]{32}\Z")}


@dataclass
class FileSpec:
    """filetype: input, output or log. filesize: bytes. checksum: {"adler32": hex} or {"md5": hex}. Empty: not known.

    replicas: where copies lie, when somebody has said so; else places are computed from the storages.
    protocols, surl and turl are filled in by the data controller: ways to the file, its place in storage, and the
    place it was really read from or written to. status: transferred, failed, remote_io (an input that the payload reads
    where it lies, at turl), no_transfer (not to be brought in), or empty.
    accessmode: how the job wants an input: direct, copy, or empty for as it is done where nothing is said, copied.
    storage_token: what the job says of the file (prodDBlockToken). inputddms: the queue's storages for reading it.
    ddm_activity: for which activity its protocols are looked up.
    """

    lfn: str
    filetype: str = "input"
    scope: str = ""
    guid: str = ""
    dataset: str = ""
    ddmendpoint: str = ""
    filesize: int = 0
    checksum: dict[str, str] = field(default_factory=dict)
    replicas: list[Replica] = field(default_factory=list)
    protocols: list[Protocol] = field(default_factory=list)
    surl: str = ""
    turl: str = ""
    status: str = ""
    accessmode: str = ""
    storage_token: str = ""
    inputddms: list[str] = field(default_factory=list)
    ddm_activity: list[str] = field(default_factory=list)

    def why_copied(self) -> str:
        """What keeps this input from being read where it lies, as far as job and file say; empty when nothing does."""
        name = self.lfn.lower()
        if self.storage_token == LOCAL_TOKEN:
            return "the job wants it local (prodDBlockToken)"
        if self.accessmode == COPY:
            return "the job wants copies (accessmode)"
        if self.accessmode != DIRECT:
            return "the job does not ask for direct access"
        if _ARCHIVE.search(name) or not _ROOT_FILE.search(name):
            return "it is no ROOT file"
        return ""

    def is_directaccess(
        self, ensure_replica: bool = True, allowed_replica_schemas: Sequence[str] | None = None
    ) -> bool:
        """Whether job and file allow that this input is read where it lies.

        ensure_replica: also look whether its turl, or one of its replicas, has one of the schemes
        (default: any that is not a bare name).
        """
        if self.why_copied():
            return False
        if not ensure_replica:
            return True
        urls = [self.turl] if self.turl else [replica.pfn for replica in self.replicas]
        schemes = [url.partition("://")[0].lower() for url in urls if "://" in url]
        return any(allowed_replica_schemas is None or scheme in allowed_replica_schemas for scheme in schemes)


def is_pattern(lfn: str) -> bool:
    """Whether an output's name stands for all files that match it (* and ?)."""
    return "*" in lfn or "?" in lfn


def check_lfn(lfn: str, fieldname: str, limit: int, *, output: bool, pattern: bool = False) -> str:
    """Return the LFN if it may become a file name; with `pattern`, also if it may stand for several.

    limit: in bytes. Raises PilotException: LFNTOOLONG, BADOUTPUTFILENAME or CONVERSIONFAILURE.
    """
    size = len(lfn.encode("utf-8", "surrogatepass"))
    if size > limit:
        text = f"field {fieldname}: LFN {lfn[:40]!r}... has {size} bytes, {limit} are allowed"
        raise PilotException(text, code=ErrorCodes.LFNTOOLONG)
    if not (_PATTERN if pattern else _NAME).match(lfn):
        text = f"field {fieldname}: {lfn[:60]!r} is no valid file name (letters, digits and . _ + = @ : ~ # % - are)"
        raise PilotException(text, code=ErrorCodes.BADOUTPUTFILENAME if output else ErrorCodes.CONVERSIONFAILURE)
    return lfn


def check_scope(scope: str, fieldname: str) -> str:
    """Return the scope if it may become a directory. Raises ConversionFailure."""
    if scope and (len(scope) > 100 or not _SCOPE.match(scope)):
        raise ConversionFailure(f"field {fieldname}: {scope[:60]!r} is no valid scope")
    return scope


def check_endpoint(name: str, fieldname: str) -> str:
    """Return the name of a storage endpoint if it is one. Raises ConversionFailure."""
    if name and not _ENDPOINT.match(name):
        raise ConversionFailure(f"field {fieldname}: {name[:60]!r} is no valid storage name")
    return name


def parse_checksum(text: str, fieldname: str) -> dict[str, str]:
    """ "ad:0a1b2c3d", "md5:…" or 32 hexadecimal digits -> {algorithm: value}; empty for an unknown one.

    Raises ConversionFailure for anything else.
    """
    if not text:
        return {}
    prefix, colon, value = text.lower().rpartition(":")
    algorithm = {"ad": "adler32", "adler32": "adler32", "md": "md5", "md5": "md5"}.get(prefix) if colon else "md5"
    if algorithm is None or not _CHECKSUMS[algorithm].match(value):
        raise ConversionFailure(f"field {fieldname}: {text[:60]!r} is no checksum (ad:<8 hexadecimal digits> or md5)")
    return {algorithm: value.zfill(8) if algorithm == "adler32" else value}
