"""The data controller: stage-in, the log tarball, and stage-out, in two threads with a queue each."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from queue import SimpleQueue

from pilot.api.auto import stage_in_auto as stage_in_auto
from pilot.api.auto import stage_out_auto as stage_out_auto
from pilot.api.data import LOG_ACTIVITIES, StageInClient, StageOutClient, Tools
from pilot.api.middleware import Middleware, middleware_of, transfer_inside
from pilot.api.tools import EVENT_ACTIVITIES
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.common.lifecycle import Event, StagedIn, StagedOut, StageInFailed
from pilot.common.orders import UTILITY_WITH_STAGEIN
from pilot.control import arc, inputs, updates
from pilot.control.context import Context
from pilot.control.indata import get_input_file_dictionary as get_input_file_dictionary
from pilot.control.indata import get_rse as get_rse
from pilot.control.indata import skip_special_files as skip_special_files
from pilot.control.indata import update_indata as update_indata
from pilot.control.indata import write_output as write_output
from pilot.control.indata import write_pool_file_catalogue
from pilot.control.indata import write_utility_output as write_utility_output
from pilot.control.jobrun import JobRun
from pilot.control.outputs import output_names, settle_outputs
from pilot.control.payloads.files import SECRETS
from pilot.control.payloads.generic import Executor
from pilot.control.payloads.proxy import PAYLOAD_PROXY
from pilot.control.payloads.utilities import Utilities
from pilot.control.traces import create_trace_report, get_trace_report_variables
from pilot.info.filespec import REMOTE_IO, FileSpec
from pilot.util.blot import is_signed
from pilot.util.config import RucioSettings
from pilot.util.credentials import bucket_variables, ca_directory
from pilot.util.filehandling import directory_size, get_guid
from pilot.util.memoryfiles import OUTPUT, SUMMARY
from pilot.util.plugins import texts
from pilot.util.tarball import LEFT_OUT, Bounds, Content, tar_directory

__all__ = ["DataController", "create_trace_report", "get_trace_report_variables"]

# Name of the directory inside a log tarball: tarball_PandaJob_<PandaID>_<queue>, which log browsers of the field look
# for.
_LOG_ROOT = "tarball_PandaJob_{jobid}_{queue}"
# What has no place in a name that is unpacked elsewhere: the queue's description comes from outside.
_UNSAFE = re.compile(r"[^A-Za-z0-9_.@+-]")
# Name of the pilot's log in a tarball.
_PILOTLOG = "pilotlog.txt"
# At most so much of the pilot's log goes into one job's tarball (bytes).
_PILOTLOG_LIMIT = 10 * 1024 * 1024


class DataController:
    """handle: brings an event to the workflow. Takes jobs from its queues; a None ends the thread that reads it."""

    def __init__(self, context: Context, handle: Callable[[JobRun, Event], None]) -> None:
        self._context = context
        self._handle = handle
        self.stagein: SimpleQueue[JobRun | None] = SimpleQueue()
        self.stageout: SimpleQueue[tuple[JobRun, bool] | None] = SimpleQueue()

    def run_stagein(self) -> None:
        """Body of the stage-in thread."""
        for run in iter(self.stagein.get, None):
            started = time.monotonic()
            try:
                self._stage_in(run)
            except PilotException as exc:
                # A cancelled stage-in reports nothing of its own: the reason for the end is known already.
                failed = StageInFailed(None if run.cancel_stagein.is_set() else exc)
                run.measure("stage-in", started)
                self._handle(run, failed)
            else:
                run.measure("stage-in", started)
                self._handle(run, StagedIn())

    def run_stageout(self) -> None:
        """Body of the stage-out thread. With a job comes whether its outputs are wanted, or the log alone."""
        for run, with_outputs in iter(self.stageout.get, None):
            started = time.monotonic()
            error = self._stage_out(run, with_outputs)
            run.measure("stage-out", started)
            self._context.plugins.hook("common", "update_server")(run.data)
            self._handle(run, StagedOut(error))

    def _stage_in(self, run: JobRun) -> None:
        args, settings = self._context.args, self._context.settings.file
        skip_special_files(run.data, self._context.plugins)
        update_indata(run.data)
        if not run.data.indata:
            return
        wanted, folder = run.data.indata, run.workdir
        if args.input_destination_dir:
            folder = self._context.rundir / args.input_destination_dir
            inputs.make_folder(folder)
            wanted = inputs.still_to_fetch(wanted, folder, run.cancel_stagein.is_set)
        client = StageInClient(
            run.infosys,
            logger=self._context.log,
            trace_report=create_trace_report(run, "stage-in", self._context.environ),
            settings=settings,
            catalogue=self._rucio(),
            workdir=folder,
            tools=self._tools(),
            cancel=run.cancel_stagein,
        )
        utilities = Utilities(self._context, run, Executor(self._context, run))
        try:
            with utilities.during(UTILITY_WITH_STAGEIN):
                middleware = self._middleware(run)
                if middleware is None:
                    client.transfer(wanted, input_dir=args.input_dir, use_vp=run.data.use_vp)
                else:
                    transfer_inside(
                        middleware, client, wanted, client.activities, scratch=self._context.workdir,
                        folder=args.input_dir, use_vp=run.data.use_vp,
                    )  # fmt: skip
        finally:
            run.transfers += client.attempts
        if folder != run.workdir:
            inputs.link([spec for spec in run.data.indata if spec.status != REMOTE_IO], folder, run.workdir)
        if settings.pool_file_catalog:
            path = run.workdir / settings.pool_file_catalog
            write_pool_file_catalogue(path, run.data.indata, self._context.environ)

    def _stage_out(self, run: JobRun, with_outputs: bool) -> PilotException | None:
        """Outputs, then the log; the log goes out whatever became of the outputs. Returns the first failure."""
        error = None
        run.workdir_size = directory_size(run.workdir)
        if run.events is not None:
            try:
                run.events.finish(run.give_up_outputs)
            except PilotException as exc:
                error = self._told(run, exc)
        if with_outputs:
            try:
                wanted = self._context.plugins.hook("common", "outputs_from_report")(run.data)
                settle_outputs(run, self._context.settings.file, self._own_names(run), from_report=bool(wanted))
                self._move(run, run.data.outdata, StageOutClient.activities, run.give_up_outputs)
            except PilotException as exc:
                if not run.give_up_outputs.is_set():
                    error = error or self._told(run, exc)
        try:
            self.save_log(run)
        except PilotException as exc:
            error = error or self._told(run, exc)
        if arc.uploads(run.infosys.queuedata):
            try:
                arc.describe([*run.data.outdata, *run.data.logdata], self._context.rundir)
            except PilotException as exc:
                error = error or self._told(run, exc)
        return error

    def save_events(self, run: JobRun, files: list[FileSpec], cancel: threading.Event) -> None:
        """Take outputs of event ranges to storage, while the payload may still run. Raises PilotException."""
        self._move(run, files, EVENT_ACTIVITIES, cancel)

    def save_log(self, run: JobRun) -> None:
        """The log alone, for a workflow whose thread for stage-out is not to be had. Raises PilotException."""
        self._make_log(run)
        # Nobody gives up a log: it tells why.
        self._move(run, run.data.logdata, LOG_ACTIVITIES, None)

    def _move(
        self, run: JobRun, files: list[FileSpec], activities: tuple[str, ...], cancel: threading.Event | None
    ) -> None:
        args, settings = self._context.args, self._context.settings.file
        if not files:
            return
        for spec in files:
            spec.guid = spec.guid or get_guid()
        to_arc = arc.uploads(run.infosys.queuedata)
        client = StageOutClient(
            run.infosys,
            logger=self._context.log,
            trace_report=create_trace_report(run, "stage-out", self._context.environ),
            settings=settings,
            catalogue=self._rucio(),
            workdir=run.workdir,
            tools=self._tools(),
            cancel=cancel,
            # Where the pilot was started there are files that are none of an earlier attempt.
            may_replace=run.data.attemptnr > 1 and not to_arc,
        )
        places = arc.destinations(client, files, activities) if to_arc else {}
        output_dir = str(self._context.rundir) if to_arc else args.output_dir
        try:
            middleware = None if to_arc else self._middleware(run)
            if middleware is None:
                client.transfer(files, activities, output_dir=output_dir, attempts=args.stageout_attempts)
            else:
                transfer_inside(
                    middleware, client, files, activities, scratch=self._context.workdir, folder=output_dir,
                    attempts=args.stageout_attempts,
                )  # fmt: skip
            if to_arc:
                arc.hand_over(files, places, self._context.rundir, run.infosys)
        finally:
            run.transfers += client.attempts

    def _middleware(self, run: JobRun) -> Middleware | None:
        """The container in which the queue wants transfers to run, if it does. Raises PilotException."""
        context = self._context
        return middleware_of(run.infosys.queuedata, context.settings.container, context.environ, context.runtime)

    def _tools(self) -> Tools:
        context, capath = self._context, self._context.args.capath
        environ = context.keeper.tool_environment(ca_directory(context.environ, capath))
        # Many files have one pair of keys.
        key_pair = lru_cache(maxsize=None)(self._key_pair) if context.key_pair else None
        return Tools(
            context.launcher, {**environ, **bucket_variables(context.environ)}, capath, key_pair, context.secrets
        )

    def _key_pair(self, public_name: str, private_name: str) -> tuple[str, str]:
        """The keys of an object store, known to be secret before anybody has them. Raises RequestFailed."""
        assert self._context.key_pair is not None
        keys = self._context.key_pair(public_name, private_name)
        self._context.secrets.add(*keys)
        return keys

    def _rucio(self) -> RucioSettings:
        """How Rucio is used: as the settings say, and the command line over them."""
        args, settings = self._context.args, self._context.settings.rucio
        return replace(
            settings,
            host=args.rucio_host or settings.host,
            traces=settings.traces and args.use_rucio_traces,
            trace_file=str(self._context.rundir / settings.trace_file) if settings.trace_file else "",
        )

    def _told(self, run: JobRun, error: PilotException) -> PilotException:
        """Log an error with its blame and advice at once: the tarball that is packed next must tell it too."""
        self._context.log.error("job %s: %s", run.jobid, updates.error_line(error))
        return error

    def _make_log(self, run: JobRun) -> None:
        """Pack the job's directory without inputs, outputs and links; the pilot's log of this job goes with it."""
        if not run.data.logdata:
            return
        log = run.data.logdata[0]
        if not run.workdir.is_dir():
            # A job that was refused may have none; its log still tells why.
            try:
                run.workdir.mkdir(parents=True)
            except OSError as exc:
                text = f"no directory for the log of job {run.jobid}: {exc.strerror}"
                raise PilotException(text, code=ErrorCodes.LOGFILECREATIONFAILURE) from exc
        outputs = output_names(run, self._own_names(run))
        self._context.plugins.hook("common", "remove_redundant_files")(
            str(run.workdir),
            sorted(outputs),
            run.error is not None and run.error.code == ErrorCodes.LOOPINGJOB,
            run.debug,
        )
        skip = [log.lfn, _PILOTLOG, *(spec.lfn for spec in run.data.indata), *outputs, *self._redundants()]
        if run.events is not None:
            skip += run.events.unstored()
        if any(is_signed(spec.turl) for spec in run.data.indata):
            # The payload needs the whole address, and nobody else may have it.
            skip.append(self._context.settings.file.pool_file_catalog)
        with suppress(OSError):
            # A payload may have locked its own directory.
            run.workdir.chmod(run.workdir.stat().st_mode | 0o700)
        payload, files = self._context.settings.payload, self._context.settings.file
        content = Content(
            run.workdir,
            skip=skip,
            first=(payload.stdout, payload.stderr, payload.job_report, OUTPUT, SUMMARY),
            extra=[(_PILOTLOG, self.pilotlog_of(run, _PILOTLOG_LIMIT))],
            whole=run.cores,
            secrets=self._context.secrets,
        )
        bounds = Bounds(files.log_compression, files.log_file_limit, files.log_size_limit, files.log_files)
        root = _LOG_ROOT.format(jobid=run.jobid, queue=_UNSAFE.sub("_", run.infosys.queuedata.name))
        left_out = tar_directory(content, run.workdir / log.lfn, root, bounds)
        if left_out:
            text = "job %s: %d file(s) are cut or left out of the log (%s in it names them), the first: %s"
            self._context.log.info(text, run.jobid, len(left_out), LEFT_OUT, left_out[0])

    def _redundants(self) -> list[str]:
        """What is neither for the log nor an output: what the plugin names, and the payload's secrets."""
        names = self._context.plugins.hook("common", "get_redundants")()
        return [PAYLOAD_PROXY, SECRETS, *texts(names)]

    def _own_names(self, run: JobRun) -> set[str]:
        """What no pattern in the list of outputs means: what was there before the payload, reports, log and secrets."""
        logs = (spec.lfn for spec in run.data.logdata)
        return {*run.brought, *logs, *self._redundants(), self._context.settings.payload.job_report}

    def pilotlog_of(self, run: JobRun, limit: int) -> bytes:
        """What the pilot logged since the job began, at most the last `limit` bytes."""
        try:
            with self._context.pilotlog.open("rb") as stream:
                stream.seek(0, 2)
                stream.seek(max(run.log_offset, stream.tell() - limit))
                return stream.read(limit)
        except OSError:
            return b""
