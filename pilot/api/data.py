"""Stage-in and stage-out: the places of each file, the attempts, and the table of what came of them.

Which place comes first is decided by pilot.api.choice; this module gathers what that needs to know, and carries it out.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from pilot.api import choice
from pilot.api.attempts import Attempt, host_and_protocol, table
from pilot.api.choice import Place, Way
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, SizeTooLarge
from pilot.copytool.common import CopyTool, Transfer
from pilot.copytool.errors import MAY_PASS, Kind, kind_of
from pilot.info.filespec import FileSpec
from pilot.info.infoservice import InfoService
from pilot.info.storagedata import deterministic_path
from pilot.util.config import FileSettings
from pilot.util.credentials import ca_directory, tool_environment
from pilot.util.guarded import Launcher
from pilot.util.https import RetryPolicy, wait_before_retry
from pilot.util.parallel import in_parallel
from pilot.util.watch import Limits
from pilot.util.workernode import local_space

# Copytools of this release, with the module below pilot.copytool that has each.
COPYTOOL_MODULES = {"mv": "mv", "https": "https", "lsm": "lsm", "xrdcp": "xrdcp"}
# Activities by which queues and storages tell apart what files are moved for (wire.md, section 1).
STAGEIN_ACTIVITIES = ("read_lan", "pr")
# The same for storages that are not the queue's own; what says nothing of them is taken at its word for near ones.
FAR_ACTIVITIES = ("read_wan", *STAGEIN_ACTIVITIES)
OUTPUT_ACTIVITIES = ("write_lan", "w", "pw")
LOG_ACTIVITIES = ("pl", "write_lan", "pw")
# More transfers at once than this only compete with each other on one node, whatever a queue asks for.
_MOST_AT_ONCE = 32


@dataclass(frozen=True)
class Tools:
    """What transfers are made with: the pilot's only way to start processes, its environment, its CA directory."""

    launcher: Launcher
    environ: Mapping[str, str]
    capath: str = ""


class StagingClient:
    """Base of both clients.

    infosys: descriptions of the queue and its storages. settings: limits. workdir: the job's directory. cancel: once
    it is set, transfers and waits end. attempts: the table, filled while files are moved. may_replace: whether
    files at the destination may be those of an earlier attempt.
    """

    activities: tuple[str, ...] = ()
    reads = True

    def __init__(
        self,
        infosys: InfoService,
        settings: FileSettings,
        workdir: Path,
        logger: logging.Logger,
        tools: Tools,
        cancel: threading.Event | None = None,
        may_replace: bool = False,
    ) -> None:
        self.infosys = infosys
        self.settings = settings
        self.workdir = workdir
        self.logger = logger
        self.cancel = cancel or threading.Event()
        self.attempts: list[Attempt] = []
        self._tools = tools
        self._policy = RetryPolicy(1, settings.transfer_retry_delay, settings.transfer_retry_delay_max)
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

    def ways(self, spec: FileSpec, activities: tuple[str, ...]) -> list[list[Way]]:
        """The URLs of a file, a list for each storage: its replicas when they are known, else as storages compute them.

        Raises PilotException: NOSTORAGE, NONDETERMINISTICDDM.
        """
        near = self.infosys.queuedata.activity_list("astorages", activities)
        if spec.replicas and self.reads:
            return choice.ways_of_replicas(spec.replicas, near)
        endpoints = self.endpoints(spec, activities)
        if not endpoints:
            queue = self.infosys.queuedata.name
            text = f"neither the job nor queue {queue} names a storage for {spec.lfn} ({activities[0]})"
            raise PilotException(text, code=ErrorCodes.NOSTORAGE)
        found = []
        for endpoint in endpoints:
            storage, domain = self.infosys.storage(endpoint), choice.domain_of(endpoint, near)
            wanted = FAR_ACTIVITIES if self.reads and domain == choice.WAN else activities
            protocols = storage.protocols(wanted)
            found.append([Way(endpoint, storage.surl(one, spec.scope, spec.lfn), domain) for one in protocols])
        return found

    def places(self, spec: FileSpec, activities: tuple[str, ...]) -> list[Place]:
        """All places for a file, in the order in which they are tried (pilot.api.choice).

        Raises PilotException when there is no place: NOSTORAGE, NOSTORAGEPROTOCOL, UNKNOWNCOPYTOOL,
        NONDETERMINISTICDDM.
        """
        ways = self.ways(spec, activities)
        tools = self.copytools(activities)
        schemes = {tool: _module(tool).ALLOWED_SCHEMES for tool in tools}
        arrange = choice.places_to_read if self.reads else choice.places_to_write
        found = arrange(ways, tools, schemes)
        if not found:
            endpoints = [replica.ddmendpoint for replica in spec.replicas] or self.endpoints(spec, activities)
            text = (
                f"no protocol of storage {', '.join(endpoints)} for {activities[0]} suits copytool {', '.join(tools)}"
            )
            raise PilotException(text, code=ErrorCodes.NOSTORAGEPROTOCOL)
        return found

    def _at_once(self) -> int:
        """How many files are moved at the same time: what the queue says, else the settings."""
        text = self.infosys.queuedata.catchall_value("ntransfers")
        wanted = int(text) if text.isdigit() else self.settings.transfers_at_once
        return max(1, min(wanted, _MOST_AT_ONCE))

    def _transfer(self, tool: str) -> Transfer:
        options = self.infosys.queuedata.copytools.get(tool)
        settings, tools = self.settings, self._tools
        return Transfer(
            self.workdir,
            settings.checksum_type,
            self.cancel.is_set,
            self.logger,
            {str(k): str(v) for k, v in options.items()} if isinstance(options, dict) else {},
            Limits(settings.transfer_stall, settings.transfer_limit, settings.transfer_speed_min),
            tools.launcher,
            tool_environment(tools.environ),
            ca_directory(tools.environ, tools.capath),
            self.may_replace,
        )

    def _move_all(self, files: Sequence[tuple[FileSpec, list[Place]]], attempts: int) -> None:
        """Move files, several at once. Raises the failure of the first file that no place gives or takes."""
        begun = len(self.attempts)
        try:
            in_parallel(files, lambda one: self._try_places(*one, attempts), self._at_once(), "transfer")
        finally:
            if self.attempts[begun:]:
                done = sorted(self.attempts[begun:], key=lambda one: (one.lfn, one.number))
                self.logger.info("transfers:\n%s", table(done))

    def _try_places(self, spec: FileSpec, places: Sequence[Place], attempts: int) -> None:
        """Move a file through the first place that works. Raises the first failure when none does.

        A place that failed for a reason that does not pass is not tried again, nor is a copytool that is not installed.
        """
        self.logger.info("%s", choice.trace(spec.lfn, places))
        errors: list[PilotException] = []
        missing_tools: set[str] = set()
        left, troubles = list(places), 0
        for _ in range(attempts):
            again: list[Place] = []
            for place in left:
                if place.copytool in missing_tools:
                    continue
                if troubles:
                    self.cancel.wait(wait_before_retry(troubles, self._policy, None, random.random()))
                if errors and self.cancel.is_set():
                    break
                error = self._try(spec, place, len(errors) + 1)
                if error is None:
                    return
                errors.append(error)
                kind = kind_of(error)
                # Only servers in trouble are given time; after one that has answered the next is asked at once.
                troubles = troubles + 1 if kind in MAY_PASS else 0
                if kind in MAY_PASS:
                    again.append(place)
                elif kind is Kind.MIDDLEWARE:
                    missing_tools.add(place.copytool)
            left = again
        spec.status = "failed"
        if errors:
            raise errors[0]

    def _try(self, spec: FileSpec, place: Place, number: int) -> PilotException | None:
        """One attempt, noted in the table; returns what went wrong."""
        spec.ddmendpoint, spec.surl = place.endpoint, place.surl
        module, error, started = _module(place.copytool), None, time.monotonic()
        try:
            (module.copy_in if self.reads else module.copy_out)([spec], self._transfer(place.copytool))
        except PilotException as exc:
            error = exc
            self.logger.warning("%s, attempt %d with %s failed: %s", spec.lfn, number, place.copytool, exc)
        host, protocol = host_and_protocol(place.surl)
        done = Attempt(
            spec.lfn, "in" if self.reads else "out", number, place.copytool, place.endpoint, host, protocol,
            0 if error else spec.filesize, time.monotonic() - started,
        )  # fmt: skip
        if error is not None:
            done = replace(done, kind=kind_of(error).value, code=error.code, text=error.diag)
        self.attempts.append(done)
        return error


class StageInClient(StagingClient):
    """Brings input files into the job's directory."""

    activities = STAGEIN_ACTIVITIES

    def transfer(self, files: list[FileSpec], input_dir: str = "") -> None:
        """Bring all files in, verified; input_dir: take them from this directory instead of from storage.

        Raises PilotException for the first file that no place gives.
        """
        self.check_availablespace(files)
        self._move_all([(spec, self._places(spec, input_dir)) for spec in files], self.settings.stagein_attempts)

    def _places(self, spec: FileSpec, input_dir: str) -> list[Place]:
        if input_dir:
            return [Place(spec.ddmendpoint, str(Path(input_dir, spec.lfn)), "mv", "--input-dir")]
        return self.places(spec, self.activities)

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
    reads = False

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
        self._move_all([(spec, self._places(spec, activities, output_dir)) for spec in files], attempts)

    def _places(self, spec: FileSpec, activities: tuple[str, ...], output_dir: str) -> list[Place]:
        if output_dir:
            return [Place(spec.ddmendpoint, os.path.abspath(os.path.join(output_dir, spec.lfn)), "mv", "--output-dir")]
        return self.places(spec, activities)

    @classmethod
    def get_path(cls, scope: str, lfn: str, prefix: str = "rucio") -> str:
        """Path of a file below a storage's prefix: prefix/scope/xx/yy/LFN."""
        return f"{prefix}/{deterministic_path(scope, lfn)}"


def _module(tool: str) -> CopyTool:
    return cast(CopyTool, importlib.import_module(f"pilot.copytool.{COPYTOOL_MODULES[tool]}"))
