"""Stage-in and stage-out: which storage, which protocol, which copytool, and the transfer itself.

The choices are pure functions over the queue's and the storages' descriptions; each is told in the log with its reason.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, SizeTooLarge
from pilot.copytool.common import CopyTool, Transfer
from pilot.info.filespec import FileSpec
from pilot.info.infoservice import InfoService
from pilot.info.storagedata import Protocol, deterministic_path
from pilot.util.config import FileSettings
from pilot.util.workernode import local_space

# Copytools of this release, with the module below pilot.copytool that has each.
COPYTOOL_MODULES = {"mv": "mv"}
# Activities by which queues and storages tell apart what files are moved for (wire.md, section 1).
STAGEIN_ACTIVITIES = ("read_lan", "pr")
OUTPUT_ACTIVITIES = ("write_lan", "w", "pw")
LOG_ACTIVITIES = ("pl", "write_lan", "pw")


@dataclass(frozen=True)
class Place:
    """One place to read a file from or write it to, and the copytool that can."""

    endpoint: str
    surl: str
    copytool: str


class StagingClient:
    """Base of both clients.

    infosys: descriptions of the queue and its storages. settings: limits. workdir: the job's directory. cancelled:
    asked during transfers; true stops them. may_replace: whether files at the destination may be those of an earlier
    attempt.
    """

    activities: tuple[str, ...] = ()

    def __init__(
        self,
        infosys: InfoService,
        settings: FileSettings,
        workdir: Path,
        logger: logging.Logger,
        cancelled: Callable[[], bool] = lambda: False,
        may_replace: bool = False,
    ) -> None:
        self.infosys = infosys
        self.settings = settings
        self.workdir = workdir
        self.logger = logger
        self.cancelled = cancelled
        self.may_replace = may_replace

    def copytools(self, activities: tuple[str, ...]) -> list[str]:
        """The queue's copytools for an activity that this release has, in the queue's order.

        Raises PilotException(UNKNOWNCOPYTOOL) when there is none of them.
        """
        queue = self.infosys.queuedata
        wanted = queue.activity_list("acopytools", activities) or list(queue.copytools)
        usable = [name for name in wanted if name in COPYTOOL_MODULES]
        if not usable:
            text = (
                f"queue {queue.name} wants copytools {', '.join(wanted) or '(none)'} for {activities[0]}; "
                f"this pilot has {', '.join(COPYTOOL_MODULES)}"
            )
            raise PilotException(text, code=ErrorCodes.UNKNOWNCOPYTOOL)
        return usable

    def endpoints(self, spec: FileSpec, activities: tuple[str, ...]) -> list[str]:
        """Storages for a file: the one the job names, else the queue's for the activity."""
        if spec.ddmendpoint:
            return [spec.ddmendpoint]
        return self.infosys.queuedata.activity_list("astorages", activities)

    def places(self, spec: FileSpec, activities: tuple[str, ...]) -> list[Place]:
        """All places for a file, best first: by storage, then copytool, then the storage's order of protocols.

        Raises PilotException when there is no place: NOSTORAGE, NOSTORAGEPROTOCOL, UNKNOWNCOPYTOOL,
        NONDETERMINISTICDDM.
        """
        endpoints = self.endpoints(spec, activities)
        if not endpoints:
            queue = self.infosys.queuedata.name
            text = f"neither the job nor queue {queue} names a storage for {spec.lfn} ({activities[0]})"
            raise PilotException(text, code=ErrorCodes.NOSTORAGE)
        tools = self.copytools(activities)
        found = []
        for endpoint in endpoints:
            storage = self.infosys.storage(endpoint)
            for tool in tools:
                for protocol in storage.protocols(activities):
                    if _speaks(tool, protocol):
                        found.append(Place(endpoint, storage.surl(protocol, spec.scope, spec.lfn), tool))
        if not found:
            text = (
                f"no protocol of storage {', '.join(endpoints)} for {activities[0]} suits copytool {', '.join(tools)}"
            )
            raise PilotException(text, code=ErrorCodes.NOSTORAGEPROTOCOL)
        return found

    def _transfer(self, tool: str) -> tuple[CopyTool, Transfer]:
        module = cast(CopyTool, importlib.import_module(f"pilot.copytool.{COPYTOOL_MODULES[tool]}"))
        options = self.infosys.queuedata.copytools.get(tool)
        texts = {str(k): str(v) for k, v in options.items()} if isinstance(options, dict) else {}
        return module, Transfer(
            self.workdir, self.settings.checksum_type, self.cancelled, self.logger, texts, self.may_replace
        )

    def _try_places(self, spec: FileSpec, places: Sequence[Place], *, read: bool, attempts: int = 1) -> None:
        """Move a file through the first place that works. Raises the first failure when none does."""
        first: PilotException | None = None
        for attempt in range(attempts):
            for place in places:
                spec.ddmendpoint, spec.surl = place.endpoint, place.surl
                module, transfer = self._transfer(place.copytool)
                try:
                    (module.copy_in if read else module.copy_out)([spec], transfer)
                    return
                except PilotException as exc:
                    self.logger.warning("%s (%s, attempt %d): %s", spec.lfn, place.copytool, attempt + 1, exc)
                    first = first or exc
                    if self.cancelled():
                        break
        spec.status = "failed"
        if first is not None:
            raise first


class StageInClient(StagingClient):
    """Brings input files into the job's directory."""

    activities = STAGEIN_ACTIVITIES

    def transfer(self, files: list[FileSpec], input_dir: str = "") -> None:
        """Bring all files in, verified; input_dir: take them from this directory instead of from storage.

        Raises PilotException for the first file that no place gives.
        """
        self.check_availablespace(files)
        for spec in files:
            if input_dir:
                places = [Place(spec.ddmendpoint, str(Path(input_dir, spec.lfn)), "mv")]
            else:
                places = self.places(spec, self.activities)
            self._try_places(spec, places, read=True)

    def check_availablespace(self, files: list[FileSpec]) -> None:
        """Raises SizeTooLarge over the queue's limit, PilotException(NOLOCALSPACE) when they do not fit."""
        total = sum(spec.filesize for spec in files)
        limit = (self.infosys.queuedata.maxinputsize or self.settings.input_limit) * 2**20
        if total > limit:
            raise SizeTooLarge(f"the input files have {total} bytes, the queue allows {limit}")
        free = local_space(self.workdir)
        if total > free:
            text = f"the input files have {total} bytes, but only {free} are free at {self.workdir}"
            raise PilotException(text, code=ErrorCodes.NOLOCALSPACE)


class StageOutClient(StagingClient):
    """Takes output and log files to storage."""

    activities = OUTPUT_ACTIVITIES

    def transfer(
        self,
        files: list[FileSpec],
        activities: tuple[str, ...] = OUTPUT_ACTIVITIES,
        output_dir: str = "",
        attempts: int = 1,
    ) -> None:
        """Take all files out, verified; output_dir: put them into this directory instead of into storage.

        Raises PilotException for the first file that no place takes.
        """
        for spec in files:
            if output_dir:
                places = [Place(spec.ddmendpoint, os.path.abspath(os.path.join(output_dir, spec.lfn)), "mv")]
            else:
                places = self.places(spec, activities)
            self._try_places(spec, places, read=False, attempts=attempts)

    @classmethod
    def get_path(cls, scope: str, lfn: str, prefix: str = "rucio") -> str:
        """Path of a file below a storage's prefix: prefix/scope/xx/yy/LFN."""
        return f"{prefix}/{deterministic_path(scope, lfn)}"


def _speaks(tool: str, protocol: Protocol) -> bool:
    module = importlib.import_module(f"pilot.copytool.{COPYTOOL_MODULES[tool]}")
    return protocol.scheme in module.ALLOWED_SCHEMES
