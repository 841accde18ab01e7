"""From the command line to a running workflow: everything a pilot needs is made here, in order, and handed on."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import requests

from pilot import __version__
from pilot.arguments import Arguments
from pilot.common.errorcodes import ErrorCodes, shell_exit_code
from pilot.common.exception import MKDirFailure, PilotException
from pilot.control.autopsy import print_autopsy
from pilot.control.companion import Companion
from pilot.control.context import Context
from pilot.control.dispatcher import Dispatcher
from pilot.control.eventsource import EventSource
from pilot.control.job import FileSource, JobSource
from pilot.control.keeper import Keeper
from pilot.control.reporter import FileSink, Sink, deliver_orphans
from pilot.control.slot import find_slot
from pilot.control.updates import Body, Identity, error_line
from pilot.info import infoservice
from pilot.resource.named import check_resource
from pilot.util import config, credentials, hiding, ownership
from pilot.util.blot import Secrets
from pilot.util.cgroups import memory_group
from pilot.util.container import Runtime
from pilot.util.filehandling import remove_tree
from pilot.util.guarded import Launcher, become_subreaper
from pilot.util.https import Credentials, HttpClient, RetryPolicy, is_loopback, with_retries
from pilot.util.logs import establish_logging, stop_logging
from pilot.util.parallel import Aside
from pilot.util.plugins import Plugins, find_plugins, texts
from pilot.util.pod import find_pod, in_pod
from pilot.util.recorder import Recorder
from pilot.util.spool import Spool
from pilot.util.workernode import NodeFacts, collect, get_node_name
from pilot.workflow.capabilities import capabilities, look_at_runtime
from pilot.workflow.deadman import DeadMan
from pilot.workflow.named import find_workflow
from pilot.workflow.place import claim, make_recorder

# Where undelivered updates are kept, when not in the run directory: wrappers that clean up after a pilot set it.
SPOOL_VARIABLE = "PILOTKIT_SPOOL_DIR"
_SPOOL = "pilotkit-spool"
# Exit code for a command line or configuration that cannot be used, as argparse has it.
_USAGE = 2


def _is_wired(args: Arguments) -> bool:
    """Whether anything is connected beside the dispatcher: few pilots need it, and its modules cost memory and time."""
    return args.use_realtime_logging or args.subscribe_to_msgsvc


def _connected(context: Context, source: JobSource, dispatcher: Dispatcher) -> tuple[JobSource, Sequence[Companion]]:
    if not _is_wired(context.args):
        return source, ()
    from pilot.workflow import wires

    return wires.connect(context, source, dispatcher)


def run_pilot(args: Arguments) -> int:
    """Run one pilot; return its exit code for the shell.

    All that is wrong is said in the log, or on stderr before there is one.
    """
    started = time.time()
    if args.autopsy:
        return print_autopsy(Path(args.autopsy))
    try:
        settings = config.read(args.config)
        args = replace(args, queue=args.queue or "LOCAL")
        url = server_url(args, settings.pilot)
        find_workflow(args.workflow)
        check_resource(args.hpc_resource)
        if _is_wired(args):
            from pilot.workflow import wires

            wires.check(args, settings)
    except (config.SettingsError, ValueError) as exc:
        print(f"pilot.py: {exc}", file=sys.stderr)
        return _USAGE
    try:
        rundir = Path(args.workdir or ".").absolute()
        workdir = rundir / f"{ownership.PREFIX}{os.getpid()}-{uuid.uuid4().hex[:6]}"
        workdir.mkdir(parents=True, mode=0o750)
        secrets = credentials.known_secrets(os.environ)
        hiding.hide(credentials.SECRET_VARIABLES)
        pilotlog = None if args.no_pilot_log else workdir / settings.pilot.pilotlog
        log = establish_logging(args.debug, pilotlog, args.redirect_stdout, secrets.blot)
    except OSError as exc:
        where = exc.filename or "the current directory"
        error = MKDirFailure(f"no work directory or log at {where}: {exc.strerror}")
        print(f"pilot.py: {error_line(error)}", file=sys.stderr)
        return shell_exit_code(error.code)
    flight = make_recorder(workdir, log, secrets)
    pilot = _Pilot(args, settings, dict(os.environ), url, rundir, workdir, log, started, flight, secrets)
    lock = claim(rundir, workdir, log, keep=not args.cleanup)
    try:
        return pilot.run()
    except PilotException as exc:
        log.error("%s", error_line(exc))
        return shell_exit_code(exc.code)
    except Exception:
        # The top of the main thread: Python itself would print what it fails on, secrets included.
        fault = PilotException("the pilot has failed outside of any job", code=ErrorCodes.INTERNALPILOTPROBLEM)
        log.critical("%s", error_line(fault), exc_info=True)
        return shell_exit_code(fault.code)
    finally:
        flight.close()
        stop_logging(log)
        if args.cleanup:
            remove_tree(workdir)
        if lock is not None:
            lock.close()


def server_url(args: Arguments, settings: config.PilotSettings) -> str:
    """scheme://host:port of the dispatcher; a port in the address wins over --port.

    Raises ValueError when it is no address, or plain http across a network without the setting that allows it.
    """
    address = args.url or settings.pandaserver
    parts = urlsplit(address if "://" in address else f"https://{address}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"'{address}' is no address of a dispatcher; it looks like https://host:port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    url = f"{parts.scheme}://{host}:{parts.port or args.port}"
    if parts.scheme == "http" and not is_loopback(url) and not settings.insecure_http:
        raise ValueError(
            f"{url} is plain http across a network: tokens and jobs would be readable by all. Use https, or set "
            "insecure_http = True in section [Pilot] of a --config file"
        )
    return url


@dataclass(frozen=True)
class _Pilot:
    """One pilot from its start to its end."""

    args: Arguments
    settings: config.Settings
    environ: Mapping[str, str]
    url: str
    rundir: Path
    workdir: Path
    log: logging.Logger
    started: float
    recorder: Recorder
    secrets: Secrets

    def run(self) -> int:
        """Set up, run the workflow, tear down. Raises PilotException when the set-up fails."""
        args, pilot = self.args, self.settings.pilot
        limit = min(pilot.setup_limit, args.lifetime)
        hang = DeadMan(self.log, "the set-up", limit, lambda: shell_exit_code(ErrorCodes.EXCEEDEDMAXWAITTIME))
        node = collect(self.environ)
        if args.pod:
            node = in_pod(node, find_pod(self.environ))
        self._banner(node)
        # Meanwhile the dispatcher is asked for descriptions.
        looking = Aside(lambda: look_at_runtime(self.settings, self.environ, self.workdir), "runtime")
        plugins = find_plugins(args.pilot_user or self.settings.experiment.name, self.settings.experiment.path)
        stop = threading.Event()
        keeper = self._keeper()
        http = self._http_client(keeper.credentials)
        policy = RetryPolicy(pilot.request_attempts, pilot.retry_delay, pilot.retry_delay_max)
        dispatcher = Dispatcher(http, self.url, policy, stop)
        if not args.job:
            keeper.attach(dispatcher, http.use)
        spool = None
        try:
            source: JobSource = FileSource(Path(args.job)) if args.job else dispatcher
            to_file = bool(args.job) or args.no_serverupdate
            sink: Sink = FileSink(self.rundir / pilot.heartbeat_file) if to_file else dispatcher
            if not to_file:
                spool = self._spool()
                self._worker_status(dispatcher, "started")
                if spool is not None:
                    deliver_orphans(spool, dispatcher, self.log)
            infosys = self._infosys(http, policy, stop)
            runtime, namespaces = looking.result()
            dispatcher.announce(self._capabilities(node, runtime, namespaces=namespaces))
            context = self._context(node, infosys, plugins, stop, http, policy, keeper)
            context = replace(context, key_pair=None if args.job else dispatcher.get_key_pair, runtime=runtime)
            events = None if args.job else EventSource(dispatcher, self.settings.payload.event_call_limit)
            context = replace(context, events=events)
            source, companions = _connected(context, source, dispatcher)
            workflow = find_workflow(args.workflow)(
                context,
                source,
                sink,
                spool,
                legacy=lambda: not to_file and dispatcher.api == "legacy",
                is_own=lambda: to_file or dispatcher.is_pilotkit,
                companions=companions,
            )
            hang.disarm()
            code = workflow.run()
            if not to_file:
                self._worker_status(dispatcher, "finished")
            return code
        finally:
            hang.disarm()
            if spool is not None:
                spool.close()
            http.close()
            keeper.close()

    def _banner(self, node: NodeFacts) -> None:
        args, log = self.args, self.log
        log.info("pilotkit %s, Python %s, %s", __version__, sys.version.split()[0], node.system)
        log.info("queue %s, dispatcher %s, label %s, lifetime %d s", args.queue, self.url, args.joblabel, args.lifetime)
        log.info("work directory %s", self.workdir)
        log.info("node %s: %s, %d cores, %.0f MB of memory", node.name, node.cpu_model, node.cores, node.memory)
        if node.batch_system:
            log.info("batch system %s, job %s", node.batch_system, node.batch_id)
        for line in self.settings.unknown:
            log.warning("setting %s is not known to this pilot and has no effect", line)

    def _capabilities(self, node: NodeFacts, runtime: Runtime | None, *, namespaces: bool) -> str:
        line = capabilities(
            self.settings,
            self.environ,
            cores=node.cores,
            subreaper=become_subreaper(),
            slot=memory_group(os.getpid()),
            runtime=runtime,
            namespaces=namespaces,
        )
        self.log.info("capabilities: %s", line)
        return line

    def _keeper(self) -> Keeper:
        args = self.args
        found, problems = credentials.find(self.environ, os.getuid(), args.cacert, args.capath)
        for problem in problems:
            self.log.warning("%s", problem)
        # --cacert may name a proxy, or the certificates of authorities.
        named = bool(self.environ.get("X509_USER_PROXY")) or found.certificate == args.cacert != ""
        keeper = Keeper(
            found,
            self.environ,
            self.settings.token,
            self.log,
            named=named,
            renew=not args.no_tokenrenewal,
            check=not args.no_proxyverification,
            learn=self.secrets.learn,
        )
        self.log.info("credentials: %s", keeper.shown() or "none")
        return keeper

    def _http_client(self, found: Credentials) -> HttpClient:
        pilot = self.settings.pilot
        agent = f"pilotkit/{__version__} (Python {sys.version.split()[0]}; requests {requests.__version__})"
        return HttpClient(found, pilot.http_connect_timeout, pilot.http_timeout, agent, self.url)

    def _spool(self) -> Spool | None:
        """The spool; without one the pilot still works, and says that an outage may now cost a result."""
        root = Path(self.environ.get(SPOOL_VARIABLE) or self.rundir / _SPOOL)
        try:
            return Spool(root)
        except OSError as exc:
            self.log.error(
                "no spool at %s (%s): an update that the server does not take would be lost", root, exc.strerror
            )
            return None

    def _worker_status(self, dispatcher: Dispatcher, status: str) -> None:
        """Harvester learns from this that its worker's pilot runs; without a worker id there is nobody to tell."""
        worker, harvester = self.environ.get("HARVESTER_WORKER_ID", ""), self.environ.get("HARVESTER_ID", "")
        if not (worker and harvester) or self.args.no_workerstatus:
            return
        body: Body = {
            "workerID": worker,
            "harvesterID": harvester,
            "status": status,
            "site": self.args.queue,
            "node_id": get_node_name(self.environ),
        }
        try:
            dispatcher.update_worker_status(body)
        except PilotException as exc:
            self.log.warning("worker status '%s' could not be sent: %s", status, exc.diag)

    def _infosys(self, http: HttpClient, policy: RetryPolicy, stop: threading.Event) -> infoservice.InfoService:
        args = self.args
        if args.job and not args.queuedata_url:
            return infoservice.local()
        sources = infoservice.Sources(
            settings=self.settings.information,
            server=self.url,
            queue=args.queue,
            queue_address=args.queuedata_url,
            storage_address=args.storagedata_url,
            override=self.environ.get(infoservice.QUEUE_OVERRIDE, ""),
            cache_dir=self.rundir,
            fetch=lambda address: with_retries(lambda: http.get(address), policy, stop).body,
            log=self.log.info,
        )
        return infoservice.load(sources)

    def _context(
        self,
        node: NodeFacts,
        infosys: infoservice.InfoService,
        plugins: Plugins,
        stop: threading.Event,
        http: HttpClient,
        policy: RetryPolicy,
        keeper: Keeper,
    ) -> Context:
        limit = self.settings.payload.transformation_limit
        bases = self.args.baseurls or self.settings.payload.base_urls
        args = self.args
        if args.job and not args.queuedata_url:
            # Without a description of storages, files are read from and written to plain directories.
            args = replace(
                args,
                input_dir=args.input_dir or str(Path.cwd()),
                output_dir=args.output_dir or str(self.rundir / "output"),
            )
        launcher = Launcher()
        slot = find_slot(
            started=self.started,
            lifetime=args.lifetime,
            maxtime=infosys.queuedata.maxtime,
            environ=self.environ,
            node=node,
            launcher=launcher,
            workdir=self.workdir,
            timeout=self.settings.pilot.batch_query_timeout,
            log=self.log,
        )
        return Context(
            args=args,
            settings=self.settings,
            environ=self.environ,
            rundir=self.rundir,
            workdir=self.workdir,
            node=node,
            identity=self._identity(node),
            infosys=infosys,
            plugins=plugins,
            launcher=launcher,
            base_urls=tuple(base.strip() for base in bases.split(",") if base.strip())
            or (*texts(plugins.hook("setup", "get_valid_base_urls")()), f"{self.url}/trf"),
            started=self.started,
            slot=slot,
            stopping=stop,
            fetch=lambda address: (
                with_retries(lambda: http.get(address, limit=limit, redirects=False), policy, stop).body
            ),
            keeper=keeper,
            log=self.log,
            recorder=self.recorder,
            secrets=self.secrets,
        )

    def _identity(self, node: NodeFacts) -> Identity:
        return Identity(
            site=self.args.resource or self.args.queue,
            node=node.name,
            scheduler=self.environ.get("PANDA_JSID", "unknown"),
            gtag=self.environ.get("GTAG", "unknown"),
            versiontag=self.args.versiontag,
            batch_id=node.batch_id,
            cpu_model=node.cpu_model,
        )
