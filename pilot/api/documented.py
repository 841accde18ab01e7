"""The documented methods of the staging clients that pilots themselves do not need: thin names over what they use.

Scripts of users and plugins of experiments call these. What is left out, and why, is a table in docs/compatibility.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import ClassVar, TypeVar, Union, cast

from pilot.api import choice
from pilot.api.choice import Place, Way
from pilot.api.replicas import fill, read_answer, site_of
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool import tools as copytools
from pilot.copytool.common import Transfer
from pilot.info.filespec import FileSpec
from pilot.info.infoservice import InfoService
from pilot.info.replica import Replica
from pilot.util.https import Json

# One activity or several, the first that is known counts; None or "default": those of the direction.
Activities = Union[str, Sequence[str], None]
# A replica as this pilot has it, or as the documented interface does: (pfn, {"ddmendpoint": ..., ...}), or that alone.
AnyReplica = TypeVar("AnyReplica", Replica, "tuple[str, Mapping[str, str]]", "Mapping[str, str]")


class DocumentedStaging:
    """Names of the documented StagingClient. The attributes are those of pilot.api.staging.StagingClient."""

    mode: ClassVar[str]
    infosys: InfoService
    acopytools: dict[str, list[str]]
    workdir: Path
    logger: logging.Logger

    @property
    def reads(self) -> bool:
        """Whether files are brought in."""
        raise NotImplementedError

    def ways(self, spec: FileSpec, activities: Sequence[str]) -> list[list[Way]]:
        """The URLs of a file, a list for each storage."""
        raise NotImplementedError

    def _activities(self, activity: Activities) -> tuple[str, ...]:
        raise NotImplementedError

    def transfer_arguments(self, tool: str) -> Transfer:
        """What a copytool is given beside the files."""
        raise NotImplementedError

    def set_acopytools(self) -> None:
        """Take the copytools by activity from the queue, where the client was given none."""
        queue = self.infosys.queuedata
        self.acopytools = self.acopytools or {
            activity: queue.activity_list("acopytools", (activity,)) for activity in queue.acopytools
        }

    @staticmethod
    def get_default_copytools(default_copytools: str | Sequence[str] | None) -> list[str]:
        """One name or several, as a list."""
        if isinstance(default_copytools, str):
            return [default_copytools] if default_copytools else []
        return list(default_copytools or [])

    @classmethod
    def get_preferred_replica(
        cls, replicas: Sequence[AnyReplica], allowed_schemas: Sequence[str] | None
    ) -> AnyReplica | None:
        """The first replica with one of the schemes (None: any), or None."""
        for replica in replicas:
            pfn = _of(replica, "pfn")
            if pfn and (allowed_schemas is None or Way("", pfn).scheme in allowed_schemas):
                return replica
        return None

    @classmethod
    def sort_replicas(cls, replicas: Sequence[AnyReplica], inputddms: Sequence[str]) -> list[AnyReplica]:
        """Replicas in the storages of `inputddms` first, in that order; then near before far, then by priority.

        Those that are none of ours are only sorted by storage.
        """
        if all(isinstance(replica, Replica) for replica in replicas):
            return cast("list[AnyReplica]", choice.sort_replicas(cast("Sequence[Replica]", replicas), inputddms))
        rank = {endpoint: number for number, endpoint in reversed(list(enumerate(inputddms)))}
        return sorted(replicas, key=lambda replica: rank.get(_of(replica, "ddmendpoint"), len(rank)))

    @classmethod
    def add_replicas(cls, fdat: FileSpec, replica: Mapping[str, Json]) -> FileSpec:
        """Put what Rucio lists of a file (an entry of its answer) into the file. Raises as resolve_replicas does."""
        for known in read_answer({"replicas": [dict(replica)], "guids": {}}).values():
            fill(fdat, known)
        return fdat

    def compute_replicas(self, files: list[FileSpec]) -> list[FileSpec]:
        """Fill in the replicas of files that have none, as their storages compute them; returns the files.

        Raises PilotException.
        """
        for spec in files:
            found = self.ways(spec, self._activities(spec.ddm_activity or None))
            spec.replicas = spec.replicas or [
                Replica(way.endpoint, way.surl, way.domain) for ways in found for way in ways
            ]
        return files

    @classmethod
    def detect_client_location(cls) -> dict[str, str]:
        """{"site": NAME} from the first of SITE_NAME, ATLAS_SITE_NAME, OSG_SITE_NAME that is set, else ROAMING.

        Nothing is sent to find out: the addresses that the documented function gives too are left out.
        """
        return {"site": site_of(os.environ)}

    def prepare_sources(self, files: list[FileSpec], activities: Activities = None) -> None:
        """A place for clients of one's own to change what the files come from; nothing is done here."""

    def prepare_inputddms(self, files: list[FileSpec], activities: Activities = None) -> None:
        """Write the queue's storages for an activity into each file that has none."""
        near = self.infosys.queuedata.activity_list("astorages", self._activities(activities))
        for spec in files:
            spec.inputddms = spec.inputddms or list(near)

    def resolve_protocols(self, files: list[FileSpec]) -> list[FileSpec]:
        """Write the protocols of each file's storage, for its ddm_activity, into the file; returns the files.

        Raises PilotException: NOSTORAGE, or a malformed description.
        """
        for spec in files:
            storage = self.infosys.storage(spec.ddmendpoint)
            spec.protocols = storage.protocols(self._activities(spec.ddm_activity or None))
        return files

    @classmethod
    def resolve_protocol(cls, fspec: FileSpec, allowed_schemas: Sequence[str] | None = None) -> list[dict[str, str]]:
        """A file's protocols with one of the schemes (None: any), as dictionaries of endpoint, path and flavour."""
        return [
            {"endpoint": one.endpoint, "path": one.path, "flavour": one.flavour}
            for one in fspec.protocols
            if allowed_schemas is None or one.scheme in allowed_schemas
        ]

    def require_protocols(
        self, files: list[FileSpec], copytool: ModuleType, activity: Activities, local_dir: str = ""
    ) -> None:
        """Fill in protocols, surl and turl of each file for a copytool; local_dir: the place is in this directory.

        Raises PilotException(NOSTORAGEPROTOCOL) for a file that the copytool has no way to.
        """
        for spec in files:
            spec.ddm_activity = list(self._activities(activity))
            if local_dir:
                spec.surl = spec.turl = str(Path(local_dir, spec.lfn))
                continue
            place = self._place_for(spec, copytool, activity)
            self.resolve_protocols([spec])
            spec.surl = spec.turl = place.surl

    def transfer_files(
        self, copytool: ModuleType, files: list[FileSpec], activity: Activities = None, **kwargs: object
    ) -> list[FileSpec]:
        """Move files with a copytool's module, ours or anybody's, each from or to the best place that it speaks to.

        kwargs: handed to the copytool; `workdir` is added. Nothing is tried a second time, or elsewhere: that is what
        `transfer` is for. Returns what the copytool returns, or the files. Raises PilotException.
        """
        for spec in files:
            if not spec.surl:
                spec.surl = spec.turl = self._place_for(spec, copytool, activity).surl
        valid = copytool.is_valid_for_copy_in if self.reads else copytool.is_valid_for_copy_out
        if not valid(files):
            names = ", ".join(spec.surl for spec in files)
            text = f"copytool {copytool.__name__} does not take these files: {names}"
            raise PilotException(text, code=ErrorCodes.NOSTORAGEPROTOCOL)
        tool = next((name for name in copytools.MODULES if copytools.load(name) is copytool), None)
        move = copytool.copy_in if self.reads else copytool.copy_out
        given = {"workdir": str(self.workdir), "activity": activity, **kwargs}
        moved = move(files, **given) if tool is None else move(files, self.transfer_arguments(tool))
        return moved if isinstance(moved, list) else files

    def _place_for(self, spec: FileSpec, copytool: ModuleType, activity: Activities) -> Place:
        name = copytool.__name__.rpartition(".")[2]
        schemes = getattr(copytool, "ALLOWED_SCHEMES", None) or getattr(copytool, "allowed_schemas", None)
        ways = self.ways(spec, self._activities(activity))
        spoken = schemes or [way.scheme for storage in ways for way in storage]
        arrange = choice.places_to_read if self.reads else choice.places_to_write
        found = arrange(ways, [name], {name: list(spoken)})
        if not found:
            text = f"no storage of {spec.lfn} has a protocol that copytool {name} speaks ({', '.join(spoken)})"
            raise PilotException(text, code=ErrorCodes.NOSTORAGEPROTOCOL)
        spec.ddmendpoint = found[0].endpoint
        return found[0]


def _of(replica: object, name: str) -> str:
    """One entry of a replica in any of its forms."""
    if isinstance(replica, tuple):
        pfn, about = replica
        return str(pfn) if name == "pfn" else _of(about, name)
    return str(replica.get(name) or "") if isinstance(replica, (Replica, Mapping)) else ""
