"""What stage-in and stage-out share: the places of each file, the attempts, and the table of what came of them.

Which place comes first is decided by pilot.api.choice; this module gathers what that needs to know, and carries it out.
"""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pilot.api import choice, direct
from pilot.api.attempts import Attempt, Moving, host_and_protocol, table
from pilot.api.choice import Place, Way
from pilot.api.documented import Activities, DocumentedStaging
from pilot.api.replicas import Catalogue, site_of
from pilot.api.tools import FAR_ACTIVITIES, CopyTools, Tools, by_activity
from pilot.api.traces import TraceReport, Traces, trace_base
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool import rucio
from pilot.copytool import tools as copytools
from pilot.copytool.common import Transfer, is_on
from pilot.copytool.errors import MAY_PASS, Kind, TransferError, kind_of
from pilot.copytool.pool import Pool
from pilot.info.filespec import REMOTE_IO, FileSpec
from pilot.info.infoservice import InfoService, local
from pilot.util import config
from pilot.util.config import FileSettings, RucioSettings
from pilot.util.credentials import bucket_variables, ca_directory, tool_environment
from pilot.util.https import RetryPolicy, wait_before_retry
from pilot.util.parallel import in_parallel
from pilot.util.ruciocfg import find_hosts
from pilot.util.watch import Limits

# More transfers at once than this only compete with each other on one node, whatever a queue asks for.
_MOST_AT_ONCE = 32


class StagingClient(DocumentedStaging):
    """Base of both clients.

    infosys_instance: descriptions of the queue and its storages (default: nothing but local files).
    acopytools: copytools by activity, or for all of them (default: as the queue says); default_copytools: when neither
    says. logger: the log (default: Python's, for this module). trace_report: what goes into every trace for Rucio.
    settings, catalogue: limits, and how Rucio is used (default: default.cfg). workdir: the
    job's directory (default: the current one). tools: what transfers are made with. cancel: once it is set, transfers
    and waits end. may_replace: whether files at the destination may be those of an earlier attempt.
    The attribute `attempts` is the table of what was tried, filled while files are moved.
    """

    mode: ClassVar[str] = ""
    activities: ClassVar[tuple[str, ...]] = ()
    copytool_modules: ClassVar[dict[str, dict[str, str]]] = {
        name: {"module_name": module} for name, module in copytools.MODULES.items()
    }
    # Schemes by which payloads read files where they lie, in near and in far storage, and by which files are copied.
    direct_localinput_allowed_schemas: ClassVar[list[str]] = list(direct.LOCAL_SCHEMES)
    direct_remoteinput_allowed_schemas: ClassVar[list[str]] = list(direct.REMOTE_SCHEMES)
    remoteinput_allowed_schemas: ClassVar[list[str]] = ["root", "gsiftp", "dcap", "davs", "srm", "storm", "https"]

    def __init__(
        self,
        infosys_instance: InfoService | None = None,
        acopytools: CopyTools | None = None,
        logger: logging.Logger | None = None,
        default_copytools: CopyTools = (),
        trace_report: TraceReport | None = None,
        *,
        settings: FileSettings | None = None,
        catalogue: RucioSettings | None = None,
        workdir: Path | None = None,
        tools: Tools | None = None,
        cancel: threading.Event | None = None,
        may_replace: bool = False,
    ) -> None:
        self.infosys = infosys_instance or local()
        self.acopytools = by_activity(acopytools or {})
        self.default_copytools = by_activity(default_copytools).get("default", [])
        self.settings = settings or config.read().file
        self.workdir = (workdir or Path.cwd()).absolute()
        self.logger = logger or logging.getLogger(__name__)
        self.cancel = cancel or threading.Event()
        self.attempts: list[Attempt] = []
        self.may_replace = may_replace
        self.tools = tools or Tools()
        self.catalogue = use = catalogue or config.read().rucio
        hosts = find_hosts(self.tools.environ, use.host)
        self._catalogue = Catalogue(use, hosts.rucio, lambda: self.transfer_arguments("rucio"))
        ca = ca_directory(self.tools.environ, self.tools.capath)
        report = trace_report or trace_base("", site_of(self.tools.environ))
        self._traces = Traces(report, use, hosts.traces, ca, self.logger, self.tools.secrets)
        self._policy = RetryPolicy(1, self.settings.transfer_retry_delay, self.settings.transfer_retry_delay_max)
        self._pool = Pool()

    @property
    def reads(self) -> bool:
        """Whether files are brought in."""
        return self.mode == "stage-in"

    def copytools(self, activities: Sequence[str]) -> list[str]:
        """The copytools for an activity that this release has, in the order of the client's or the queue's settings.

        Raises PilotException(UNKNOWNCOPYTOOL) when there is none of them.
        """
        queue = self.infosys.queuedata
        own = next((self.acopytools[one] for one in (*activities, "default") if self.acopytools.get(one)), [])
        wanted = own or queue.activity_list("acopytools", tuple(activities)) or list(queue.copytools)
        wanted = wanted or self.default_copytools
        usable = [name for name in wanted if name in copytools.MODULES]
        if not usable:
            text = (
                f"queue {queue.name} wants copytools {', '.join(wanted) or '(none)'} for {activities[0]}; "
                f"this pilot has {', '.join(copytools.MODULES)}"
            )
            raise PilotException(text, code=ErrorCodes.UNKNOWNCOPYTOOL)
        return usable

    def endpoints(self, spec: FileSpec, activities: Sequence[str]) -> list[str]:
        """Storages for a file: the one the job names, else the queue's for the activity."""
        if spec.ddmendpoint:
            return [spec.ddmendpoint]
        return self.infosys.queuedata.activity_list("astorages", tuple(activities))

    def ways(self, spec: FileSpec, activities: Sequence[str]) -> list[list[Way]]:
        """The URLs of a file, a list for each storage: its replicas when they are known, else as storages compute them.

        Replicas of an output say where it is to go.

        Raises PilotException: NOSTORAGE, NONDETERMINISTICDDM.
        """
        near = self.infosys.queuedata.activity_list("astorages", tuple(activities))
        if spec.replicas:
            return choice.ways_of_replicas(spec.replicas, near)
        endpoints = self.endpoints(spec, activities)
        if not endpoints:
            queue = self.infosys.queuedata.name
            text = f"neither the job nor queue {queue} names a storage for {spec.lfn} ({activities[0]})"
            raise PilotException(text, code=ErrorCodes.NOSTORAGE)
        found = []
        for endpoint in endpoints:
            storage, domain = self.infosys.storage(endpoint), choice.domain_of(endpoint, near)
            wanted = FAR_ACTIVITIES if self.reads and domain == choice.WAN else tuple(activities)
            surls = storage.surls(wanted, spec.scope, spec.lfn, read=self.reads)
            found.append([Way(endpoint, surl, domain) for surl in surls])
        return found

    def places(self, spec: FileSpec, activities: Sequence[str]) -> list[Place]:
        """All places for a file, in the order in which they are tried (pilot.api.choice).

        Raises PilotException when there is no place: NOSTORAGE, NOSTORAGEPROTOCOL, UNKNOWNCOPYTOOL,
        NONDETERMINISTICDDM, REPLICANOTFOUND.
        """
        tools = self.copytools(activities)
        # Rucio knows more places than the pilot: where this one knows none, it is asked for the file itself.
        by_name = [Place("", rucio.by_name(spec), "rucio", "by its name, from where Rucio finds it")]
        if not (self.reads and "rucio" in tools and spec.scope):
            by_name = []
        try:
            ways = self.ways(spec, activities)
        except PilotException as exc:
            if by_name:
                return by_name
            raise self._catalogue.why_no_place(spec) or exc from exc
        schemes = {tool: self.schemes(tool, activities) for tool in tools}
        arrange = choice.places_to_read if self.reads else choice.places_to_write
        found = arrange(ways, tools, schemes) or by_name
        if not found:
            endpoints = [replica.ddmendpoint for replica in spec.replicas] or self.endpoints(spec, activities)
            text = (
                f"no protocol of storage {', '.join(endpoints)} for {activities[0]} suits copytool {', '.join(tools)}"
            )
            raise PilotException(text, code=ErrorCodes.NOSTORAGEPROTOCOL)
        return found

    def resolve_replicas(self, files: list[FileSpec], use_vp: bool = False) -> list[FileSpec]:
        """Ask Rucio for the replicas of files that have none yet. use_vp: whether for a job of virtual placement.

        Returns the files. Raises PilotException: RUCIOSERVICEUNAVAILABLE, RUCIOLISTREPLICASFAILED, and STAGEINFAILED,
        GETADMISMATCH or GETMD5MISMATCH when the files are not those of Rucio. Where no Rucio is known, the places are
        those that the storages compute.
        """
        if not self._catalogue.host:
            return self.compute_replicas(files)
        try:
            self._catalogue.ask(files, self._readable_schemes(self.activities), use_vp=use_vp)
        finally:
            self._pool.close()
        return files

    def _look_up(self, files: list[FileSpec], activities: Sequence[str], *, use_vp: bool) -> None:
        """Ask Rucio if the copytools want it; without an answer the places are computed.

        Raises PilotException when the files are not those of Rucio.
        """
        if not files or not self._catalogue.is_wanted(self.copytools(activities)):
            return
        try:
            self._catalogue.ask(files, self._readable_schemes(activities), use_vp=use_vp)
        except PilotException as exc:
            if exc is not self._catalogue.unanswered:
                raise
            self.logger.warning("%s; the places of the inputs are computed from the storages", exc.diag)

    def _readable_schemes(self, activities: Sequence[str]) -> list[str]:
        """What a copytool can read by, or a payload where the file lies."""
        spoken = {scheme for tool in self.copytools(activities) for scheme in self.schemes(tool, activities)}
        return sorted(spoken.union(self.remoteinput_allowed_schemas) - {rucio.BY_NAME})

    def schemes(self, tool: str, activities: Sequence[str]) -> list[str]:
        """What a copytool speaks, as far as the queue allows it for an activity (`acopytools_schemas`)."""
        spoken = copytools.load(tool).ALLOWED_SCHEMES
        allowed = self.infosys.queuedata.resolve_allowed_schemas(list(activities), tool)
        return [scheme for scheme in spoken if not allowed or scheme in allowed]

    def _activities(self, activity: Activities) -> tuple[str, ...]:
        if activity is None or activity == "default":
            return self.activities
        return (activity,) if isinstance(activity, str) else tuple(activity)

    def _at_once(self) -> int:
        """How many files are moved at the same time: what the queue says, else the settings."""
        text = self.infosys.queuedata.catchall_value("ntransfers")
        wanted = int(text) if text.isdigit() else self.settings.transfers_at_once
        return max(1, min(wanted, _MOST_AT_ONCE))

    def transfer_arguments(self, tool: str) -> Transfer:
        queue = self.infosys.queuedata
        options = queue.copytools.get(tool)
        given = {"host": self._catalogue.settings.host, "use_pcache": str(queue.use_pcache)} if tool == "rucio" else {}
        settings, tools = self.settings, self.tools
        return Transfer(
            self.workdir,
            settings.checksum_type,
            self.cancel.is_set,
            self.logger,
            {**given, **({str(k): str(v) for k, v in options.items()} if isinstance(options, dict) else {})},
            Limits(settings.transfer_stall, settings.transfer_limit, settings.transfer_speed_min),
            tools.launcher,
            {**tool_environment(tools.environ), **bucket_variables(tools.environ, tool)},
            ca_directory(tools.environ, tools.capath),
            self.may_replace,
            self._pool,
            self._at_once(),
            self.infosys.known_storage,
            tools.key_pair,
        )

    def _move_all(self, files: Sequence[Moving], attempts: int, begun: int | None = None) -> None:
        """Move files, several at once. Raises the failure of the first file that no place gives or takes.

        begun: from which row on the table of attempts is logged afterwards (default: from the next one).
        """
        begun = len(self.attempts) if begun is None else begun
        try:
            for one in files:
                self.logger.info("%s", choice.trace(one.spec.lfn, one.places))
            left = self._move_together(files)
            in_parallel(left, lambda one: self._try_places(one, attempts), self._at_once(), "transfer")
        finally:
            self._pool.close()
            if self.attempts[begun:]:
                done = sorted(self.attempts[begun:], key=lambda one: (one.lfn, one.number))
                self.logger.info("transfers:\n%s", table(done))
            self._traces.send()

    def _move_together(self, files: Sequence[Moving]) -> list[Moving]:
        """Bring in together what a copytool can bring in together, and return the files that are left.

        Those that fail here go on by themselves, with the next place.
        """
        groups: dict[str, list[Moving]] = {}
        for one in files:
            groups.setdefault(one.places[0].copytool if self.reads and one.places else "", []).append(one)
        done: set[str] = set()
        for name, group in groups.items():
            together = copytools.load_bulk(name) if name else None
            if together is None or len(group) < 2:
                continue
            started = time.monotonic()
            for one in group:
                one.spec.ddmendpoint, one.spec.surl = one.places[0].endpoint, one.places[0].surl
            errors: Mapping[str, PilotException] = {}
            broken: PilotException | None = None
            try:
                errors = together([one.spec for one in group], self.transfer_arguments(name))
            except OSError as exc:
                broken = self._local_error(f"{len(group)} files", exc)
            for one in group:
                error = broken or errors.get(one.spec.lfn)
                self._note(one.spec, one.places[0], 1, time.monotonic() - started, error)
                if error is None:
                    done.add(one.spec.lfn)
                else:
                    one.errors.append(error)
                    one.places = one.places if kind_of(error) in MAY_PASS else one.places[1:]
        return [one for one in files if one.spec.lfn not in done]

    def _try_places(self, one: Moving, attempts: int) -> None:
        """Move a file through the first place that works. Raises the first failure when none does.

        A place that failed for a reason that does not pass is not tried again, nor is a copytool that is not installed.
        """
        spec, errors = one.spec, one.errors
        missing_tools: set[str] = set()
        left, troubles = list(one.places), 0
        for _ in range(attempts):
            again: list[Place] = []
            for place in left:
                if place.copytool in missing_tools:
                    continue
                if troubles:
                    self.cancel.wait(wait_before_retry(troubles, self._policy, None, random.random()))
                if errors and self.cancel.is_set():
                    break
                error = self._try(one, place)
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
        if errors and not self._forgives(one):
            raise errors[0]

    def _forgives(self, one: Moving) -> bool:
        """Whether the job begins without an input that its copytools could not bring: the queue's ignore_errors."""
        options = [self.transfer_arguments(tool).options for tool in {place.copytool for place in one.places}]
        forgives = self.reads and any(is_on(known, "ignore_errors") for known in options)
        if forgives:
            self.logger.warning("%s is not there, and the job begins without it (ignore_errors)", one.spec.lfn)
        return forgives

    def _try(self, one: Moving, place: Place) -> PilotException | None:
        """One attempt, noted in the table; returns what went wrong."""
        spec, number = one.spec, len(one.errors) + 1
        spec.ddmendpoint, spec.surl = place.endpoint, place.surl
        module, error, started = copytools.load(place.copytool), None, time.monotonic()
        arguments = self.transfer_arguments(place.copytool)
        arguments = replace(arguments, may_replace=self.may_replace or place.surl in one.leftovers)
        try:
            (module.copy_in if self.reads else module.copy_out)([spec], arguments)
        except PilotException as exc:
            error = exc
            if isinstance(exc, TransferError) and exc.leftover:
                one.leftovers.add(place.surl)
        except OSError as exc:
            error = self._local_error(spec.lfn, exc)
        self._note(spec, place, number, time.monotonic() - started, error)
        return error

    def adopt(self, files: Sequence[FileSpec], attempts: Sequence[Attempt]) -> None:
        """Take over what was tried for this client in another process: the table, and a trace of each attempt."""
        known = {spec.lfn: spec for spec in files}
        self.attempts += attempts
        for one in attempts:
            if one.lfn in known:
                self._traces.note(known[one.lfn], one)
        self._traces.send()

    def _local_error(self, what: str, exc: OSError) -> TransferError:
        """What a directory refused (full, no inodes, made read-only by the payload) is no fault of the pilot."""
        text = f"{what}: {exc.strerror or exc} ({exc.filename or self.workdir})"
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            return TransferError(text, Kind.FULL, read=self.reads, code=ErrorCodes.NOLOCALSPACE)
        return TransferError(text, Kind.OTHER, read=self.reads)

    def _note(self, spec: FileSpec, place: Place, number: int, seconds: float, error: PilotException | None) -> None:
        """Write an attempt into the table, and what went wrong into the log."""
        host, protocol = host_and_protocol(place.surl)
        done = Attempt(
            spec.lfn, "in" if self.reads else "out", number, place.copytool, place.endpoint, host, protocol,
            0 if error or spec.status == REMOTE_IO else spec.filesize, seconds,
        )  # fmt: skip
        if error is not None:
            self.logger.warning("%s, attempt %d with %s failed: %s", spec.lfn, number, place.copytool, error)
            done = replace(done, kind=kind_of(error).value, code=error.code, text=error.diag)
        self.attempts.append(done)
        self._traces.note(spec, done)
