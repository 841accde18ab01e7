"""Where Rucio's catalogue says that files are: the question, what its answer means, and what goes into the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Callable

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool import rucio
from pilot.copytool.common import Transfer
from pilot.copytool.errors import Kind, TransferError, kind_of
from pilot.info.filespec import FileSpec
from pilot.info.replica import Replica
from pilot.util.config import RucioSettings
from pilot.util.filehandling import ADLER32, CHECKSUM_TYPES
from pilot.util.https import Json
from pilot.util.watch import Limits

# Copytools whose storage Rucio does not know, or whose places the site alone knows: alone they need no catalogue.
WITHOUT_CATALOGUE = frozenset({"mv", "lsm", "s3", "objectstore", "gs"})
# What names the site that a client is at, in this order; without any it is nowhere in particular.
_SITE_VARIABLES = ("SITE_NAME", "ATLAS_SITE_NAME", "OSG_SITE_NAME")
_NO_SITE = "ROAMING"
# A type of storage whose files may take hours to come.
_TAPE = "TAPE"


@dataclass(frozen=True)
class Known:
    """What the catalogue knows of a file. size: bytes, 0 when it does not; guid: only when it was asked for."""

    size: int = 0
    checksums: dict[str, str] = field(default_factory=dict)
    guid: str = ""
    replicas: tuple[Replica, ...] = ()


@dataclass
class Catalogue:
    """Rucio's catalogue, for one client. host: empty when it is not known; transfer: makes what the question runs with.

    unanswered: why it was not answered, once it was not. unknown: LFNs for which the answer had no place.
    """

    settings: RucioSettings
    host: str
    transfer: Callable[[], Transfer]
    unanswered: PilotException | None = None
    unknown: set[str] = field(default_factory=set)

    def why_no_place(self, spec: FileSpec) -> PilotException | None:
        """What Rucio has to do with it that there is no place for a file; None when it was not asked."""
        if spec.lfn not in self.unknown:
            return self.unanswered
        text = f"Rucio has no replica of {spec.scope}:{spec.lfn} that can be read, and nothing else says where it is"
        return PilotException(text, code=ErrorCodes.REPLICANOTFOUND)

    def is_wanted(self, copytools: Sequence[str]) -> bool:
        """Whether to ask for files that these copytools bring in: for alone, some make no use of what it knows."""
        return bool(self.host and self.settings.replicas) and any(name not in WITHOUT_CATALOGUE for name in copytools)

    def ask(self, files: Sequence[FileSpec], schemes: Sequence[str], *, use_vp: bool) -> None:
        """Fill in replicas, and what else the job has not said, of files whose replicas the job does not give.

        Raises PilotException: RUCIOSERVICEUNAVAILABLE, RUCIOLISTREPLICASFAILED when there is no answer, STAGEINFAILED,
        GETADMISMATCH, GETMD5MISMATCH when job and catalogue do not mean the same file.
        """
        asked = [spec for spec in files if spec.scope and not spec.replicas]
        if not asked:
            return
        transfer = self.transfer()
        limit = self.settings.catalogue_limit
        brief = replace(transfer, limits=Limits(stall=limit, fixed=limit, speed=1.0))
        request = question(asked, schemes, site_of(transfer.environ), self.settings, use_vp=use_vp)
        try:
            known = read_answer(rucio.list_replicas(request, f"the replicas of {len(asked)} files", brief))
        except PilotException as exc:
            self.unanswered = _failure(exc)
            raise self.unanswered from exc
        for spec in asked:
            found = known.get(f"{spec.scope}:{spec.lfn}")
            if found is None or not found.replicas:
                self.unknown.add(spec.lfn)
                transfer.log.warning("Rucio has no replica of %s:%s that can be read", spec.scope, spec.lfn)
            if found is not None:
                fill(spec, found)
        transfer.log.info("replicas of %d files by Rucio (%s)", len(asked), self.host)


def site_of(environ: Mapping[str, str]) -> str:
    """Which site the node is at, for Rucio: what its environment says. Nobody outside is asked."""
    return next((environ[name] for name in _SITE_VARIABLES if environ.get(name)), _NO_SITE)


def question(
    files: Sequence[FileSpec], schemes: Sequence[str], site: str, settings: RucioSettings, *, use_vp: bool
) -> dict[str, Json]:
    """One question for all files; GUIDs are asked for where the job gives none."""
    return {
        "dids": [_did(spec) for spec in files],
        "schemes": list(schemes),
        "site": site,
        "sort": settings.replica_sort,
        "expression": settings.rse_expression_vp if use_vp else settings.rse_expression,
        "guids": [_did(spec) for spec in files if not spec.guid],
    }


def read_answer(answer: Mapping[str, Json]) -> dict[str, Known]:
    """What is known, by `scope:name`; files that Rucio does not know are not there.

    Tape comes last, and files that lie in archives have no place of their own.
    Raises PilotException(RUCIOLISTREPLICASFAILED) for an answer that makes no sense.
    """
    try:
        guids, entries = _object(answer["guids"]), answer["replicas"]
        assert isinstance(entries, list)  # our own helper's
        found = {}
        for entry in map(_object, entries):
            did = f"{entry['scope']}:{entry['name']}"
            found[did] = _known(entry, str(guids.get(did) or ""))
        return found
    except (KeyError, TypeError, ValueError) as exc:
        text = f"Rucio's list of replicas makes no sense: {type(exc).__name__} {exc}"
        raise PilotException(text, code=ErrorCodes.RUCIOLISTREPLICASFAILED) from exc


def fill(spec: FileSpec, known: Known) -> None:
    """Write what the catalogue knows into a file, as far as its job has not said so.

    Raises TransferError when job and catalogue do not mean the same file: both values are in the text.
    """
    where = f"{spec.scope}:{spec.lfn}"
    if spec.filesize and known.size and spec.filesize != known.size:
        text = f"{where} has {known.size} bytes by Rucio's catalogue, and {spec.filesize} by the job"
        raise TransferError(text, Kind.SIZE, read=True)
    for algorithm, value in spec.checksum.items():
        there = known.checksums.get(algorithm)
        if there and there != value:
            text = f"{where} has {algorithm} {there} by Rucio's catalogue, and {value} by the job"
            code = ErrorCodes.GETADMISMATCH if algorithm == ADLER32 else ErrorCodes.GETMD5MISMATCH
            raise TransferError(text, Kind.DAMAGED, read=True, code=code)
    spec.filesize = spec.filesize or known.size
    spec.guid = spec.guid or known.guid
    if not spec.checksum:
        # One is enough; the first is the cheapest.
        spec.checksum = dict(list(known.checksums.items())[:1])
    if not spec.replicas:
        spec.replicas = list(known.replicas)


def _did(spec: FileSpec) -> dict[str, Json]:
    return {"scope": spec.scope, "name": spec.lfn}


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise TypeError(f"no object, but {type(value).__name__}")
    return value


def _known(entry: Mapping[str, Json], guid: str) -> Known:
    found: list[tuple[bool, Replica]] = []
    for pfn, said in _object(entry["pfns"]).items():
        about = _object(said)
        if not about.get("client_extract"):
            replica = Replica(
                str(about["rse"]), pfn, str(about.get("domain") or ""), int(str(about.get("priority") or 0))
            )
            found.append((about.get("type") == _TAPE, replica))
    # The order of the answer is that of the server; a sort that is stable keeps it.
    found.sort(key=lambda one: one[0])
    checksums = {name: str(entry[name]).lower() for name in CHECKSUM_TYPES if entry.get(name)}
    if ADLER32 in checksums:
        checksums[ADLER32] = checksums[ADLER32].zfill(8)
    return Known(int(str(entry.get("bytes") or 0)), checksums, guid, tuple(replica for _, replica in found))


def _failure(error: PilotException) -> PilotException:
    gone = kind_of(error) in (Kind.UNREACHABLE, Kind.STALLED)
    code = ErrorCodes.RUCIOSERVICEUNAVAILABLE if gone else ErrorCodes.RUCIOLISTREPLICASFAILED
    return PilotException(f"Rucio does not say where the inputs are: {error.diag}", code=code)
