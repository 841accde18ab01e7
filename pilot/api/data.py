"""Stage-in and stage-out: what the pilot and scripts of its users move files with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pilot.api import choice, direct
from pilot.api.attempts import Moving
from pilot.api.choice import Place
from pilot.api.documented import Activities
from pilot.api.remote import REMOTE_IO_TOOL, open_error, open_files
from pilot.api.staging import StagingClient
from pilot.api.tools import LOG_ACTIVITIES, OUTPUT_ACTIVITIES, STAGEIN_ACTIVITIES, Tools
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, SizeTooLarge
from pilot.info.filespec import NO_TRANSFER, REMOTE_IO, FileSpec
from pilot.info.storagedata import Protocol, StorageData, deterministic_path
from pilot.util.workernode import local_space

__all__ = [
    "LOG_ACTIVITIES",
    "OUTPUT_ACTIVITIES",
    "STAGEIN_ACTIVITIES",
    "StageInClient",
    "StageOutClient",
    "StagingClient",
    "Tools",
]


class StageInClient(StagingClient):
    """Brings input files into the job's directory, or finds the address at which the payload reads them."""

    mode = "stage-in"
    activities = STAGEIN_ACTIVITIES

    def transfer(
        self, files: list[FileSpec], activity: Activities = None, *, input_dir: str = "", use_vp: bool = False
    ) -> list[FileSpec]:
        """Bring all files in, verified; input_dir: take them from this directory instead of from storage.

        What queue, job and file allow to be read where it lies is not brought in: its status is remote_io then, and
        its turl what the payload opens. Files with the status no_transfer are left alone. use_vp: whether for a job of
        virtual placement.
        Returns the files. Raises PilotException for the first file that no place gives.
        """
        activities, begun = self._activities(activity), len(self.attempts)
        wanted = [spec for spec in files if spec.status != NO_TRANSFER]
        try:
            failed: dict[str, PilotException] = {}
            if not input_dir:
                self._look_up(wanted, activities, use_vp=use_vp)
                self.set_status_for_direct_access(wanted, str(self.workdir))
                failed = self._open_remote([spec for spec in wanted if spec.status == REMOTE_IO])
            copied = [spec for spec in wanted if spec.status != REMOTE_IO]
            found = [self._moving(spec, activities, input_dir, failed.get(spec.lfn)) for spec in copied]
            self._check_space(copied, failed)
            self._move_all(found, self.settings.stagein_attempts, begun)
        finally:
            self._pool.close()
        return files

    def _check_space(self, copied: list[FileSpec], failed: Mapping[str, PilotException]) -> None:
        """Where files are copied only because they do not open remotely, that is what is wrong, not their size."""
        try:
            self.check_availablespace(copied)
        except PilotException as exc:
            for error in failed.values():
                raise PilotException(f"{error.diag}; nor can it be copied: {exc.diag}", code=error.code) from exc
            raise

    def _moving(
        self, spec: FileSpec, activities: tuple[str, ...], input_dir: str, error: PilotException | None
    ) -> Moving:
        """A file that is copied. error: why it is not read where it lies, as it was to be."""
        if input_dir:
            return Moving(spec, [Place(spec.ddmendpoint, str(Path(input_dir, spec.lfn)), "mv", "--input-dir")])
        try:
            return Moving(spec, self.places(spec, activities), [] if error is None else [error])
        except PilotException as exc:
            if error is None:
                raise
            raise error from exc

    def get_direct_access_variables(self, job: object = None) -> tuple[bool, str]:
        """Whether the queue allows direct access at all, and to which storages: LAN or WAN (and LAN); empty: to none.

        job: not needed, since a client is made with the descriptions that hold for its job.
        """
        refused = direct.refusals(self.infosys.queuedata)
        domain = next((domain for domain in (choice.WAN, choice.LAN) if not refused[domain]), "")
        return bool(domain), domain.upper()

    def resolve_replica(
        self,
        fspec: FileSpec,
        primary_schemas: Sequence[str] | None = None,
        allowed_schemas: Sequence[str] | None = None,
        domain: str | None = None,
    ) -> dict[str, str] | None:
        """The best replica in a domain (None: in any) with one of the primary schemes, else with one that is allowed.

        Primary schemes come before the order of replicas; allowed_schemas: None for any. Returns surl, ddmendpoint, pfn
        and domain, or None when no replica suits. Raises PilotException when places cannot be computed.
        """
        ways = self.ways(fspec, self.activities)
        found = direct.pick(ways, primary_schemas, domain) if primary_schemas else None
        found = found or direct.pick(ways, allowed_schemas, domain)
        if found is None:
            return None
        return {"surl": found.surl, "ddmendpoint": found.endpoint, "pfn": found.surl, "domain": found.domain}

    def set_status_for_direct_access(self, files: list[FileSpec], workdir: str) -> None:
        """Decide for each file whether the payload reads it where it lies: then its status becomes remote_io.

        workdir: not needed, since a client knows it. Raises PilotException when places cannot be computed.
        """
        queue = self.infosys.queuedata
        for spec in files:
            # Where neither queue nor job thinks of it there is nothing to tell.
            if not self.get_direct_access_variables()[0] and not spec.is_directaccess(ensure_replica=False):
                continue
            ways = [] if spec.why_copied() else self.ways(spec, self.activities)
            access = direct.decide(
                spec, ways, queue, self.direct_localinput_allowed_schemas, self.direct_remoteinput_allowed_schemas
            )
            if access.way is None:
                self.logger.info("%s is copied: %s", spec.lfn, access.why)
                continue
            spec.status, spec.ddmendpoint = REMOTE_IO, access.way.endpoint
            spec.surl = spec.turl = access.way.surl
            self.logger.info("%s is read at %s: %s", spec.lfn, spec.turl, access.why)

    def _open_remote(self, specs: list[FileSpec]) -> dict[str, PilotException]:
        """See whether files open where they lie; return by LFN why those do not that are copied instead.

        Raises PilotException(REMOTEFILECOULDNOTBEOPENED, REMOTEFILEOPENTIMEDOUT) when copying is no way out.
        """
        if not specs:
            return {}
        text = self.infosys.queuedata.catchall_value("nopenfiles")
        at_once = int(text) if text.isdigit() and int(text) else self.settings.remote_opens_at_once
        openings = open_files(specs, self.transfer_arguments, self.settings.remote_open_limit, at_once, self.logger)
        for one in openings:
            place = Place(one.spec.ddmendpoint, one.spec.turl, REMOTE_IO_TOOL)
            self._note(one.spec, place, 1, one.seconds, one.error)
        error = open_error(openings)
        if error is not None and not self.settings.direct_access_fallback:
            raise error
        failed: dict[str, PilotException] = {}
        for one in openings:
            reason = open_error([one])
            if reason is not None:
                self.logger.warning("%s is copied, since it does not open where it lies", one.spec.lfn)
                failed[one.spec.lfn] = reason
                one.spec.status = one.spec.turl = ""
        return failed

    def check_availablespace(self, files: list[FileSpec]) -> None:
        """Raises SizeTooLarge over the queue's limit, PilotException(NOLOCALSPACE) when they do not fit.

        Files that the payload reads where they lie take no space and do not count.
        """
        total = sum(spec.filesize for spec in files if spec.status not in (REMOTE_IO, NO_TRANSFER))
        limit = (self.infosys.queuedata.maxinputsize or self.settings.input_limit) * 2**20
        if total > limit:
            raise SizeTooLarge(f"the input files have {total} bytes, the queue allows {limit}")
        free = local_space(self.workdir)
        if total > free:
            text = f"the input files have {total} bytes, but only {free} are free at {self.workdir}"
            raise PilotException(text, code=ErrorCodes.NOLOCALSPACE)


class StageOutClient(StagingClient):
    """Takes output and log files to storage."""

    mode = "stage-out"
    activities = OUTPUT_ACTIVITIES

    def transfer(
        self, files: list[FileSpec], activity: Activities = None, *, output_dir: str = "", attempts: int = 1
    ) -> list[FileSpec]:
        """Take all files out, verified; output_dir: put them into this directory instead of into storage.

        Returns the files. Raises PilotException for the first file that no place takes.
        """
        activities = self._activities(activity)
        found = [Moving(spec, self._places(spec, activities, output_dir)) for spec in files]
        self._move_all(found, attempts)
        return files

    def _places(self, spec: FileSpec, activities: tuple[str, ...], output_dir: str) -> list[Place]:
        if output_dir:
            return [Place(spec.ddmendpoint, os.path.abspath(os.path.join(output_dir, spec.lfn)), "mv", "--output-dir")]
        return self.places(spec, activities)

    @classmethod
    def get_path(cls, scope: str, lfn: str, prefix: str = "rucio") -> str:
        """Path of a file below a storage's prefix: prefix/scope/xx/yy/LFN."""
        return f"{prefix}/{deterministic_path(scope, lfn)}"

    def prepare_destinations(self, files: list[FileSpec], activities: Activities) -> list[FileSpec]:
        """Write the storage for an activity into each file for which the job names none; returns the files.

        Raises PilotException(NOSTORAGE).
        """
        wanted = self._activities(activities)
        for spec in files:
            storages = self.endpoints(spec, wanted)
            if not storages:
                raise PilotException(f"no storage for {spec.lfn} ({wanted[0]})", code=ErrorCodes.NOSTORAGE)
            spec.ddmendpoint = storages[0]
        return files

    def resolve_surl(
        self, fspec: FileSpec, protocol: Mapping[str, str], ddmconf: Mapping[str, StorageData], **kwargs: object
    ) -> dict[str, str]:
        """The place of a file by one protocol of its storage: pfn and ddmendpoint.

        protocol: endpoint, path and flavour; ddmconf: descriptions of storages by name, for those that the client's own
        has not. Raises PilotException(NONDETERMINISTICDDM, NOSTORAGE).
        """
        storage = ddmconf.get(fspec.ddmendpoint) or self.infosys.storage(fspec.ddmendpoint)
        way = Protocol(str(protocol["endpoint"]), str(protocol["path"]), str(protocol.get("flavour") or ""))
        return {"pfn": storage.surl(way, fspec.scope, fspec.lfn), "ddmendpoint": fspec.ddmendpoint}
