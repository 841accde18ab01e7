"""The job controller: asks for jobs, translates and checks their definitions, and hands them to the workflow."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pilot.common.errorcodes import Blame, ErrorCodes
from pilot.common.exception import ConversionFailure, MKDirFailure, PilotException
from pilot.common.lifecycle import Accepted, Event, Refused
from pilot.control.context import Context
from pilot.control.dispatcher import JobAnswer, number
from pilot.control.jobrun import JobRun
from pilot.info.jobdata import JobData, job_identity
from pilot.util.blot import signatures
from pilot.util.https import RETRY_AFTER_LIMIT, Json, RequestFailed, parse_json
from pilot.util.lazynames import lazily
from pilot.util.workernode import local_space

if TYPE_CHECKING:
    from pilot.arguments import Arguments
    from pilot.control.jobtools import *  # noqa: F403
else:
    __getattr__ = lazily(__name__, "pilot.control.jobtools")

# What the pilot offers the dispatcher when the queue sets no limit for the work directory (MB): the local disk decides.
_NO_LIMIT = 2**31
# What a definition says as taskID when its job belongs to no task.
_NO_TASK = ("", "0")
# A definition of this key arrives with the seconds between heartbeats that our server wishes.
_NEXT_HEARTBEAT = "next_heartbeat"


# Whose fault makes a node one that only eats jobs. Not storage's: the same job would fail elsewhere too.
_SICK = frozenset({Blame.SITE, Blame.PILOT})


class JobSource(Protocol):
    """Where jobs come from: a dispatcher, or a file."""

    def get_job(self, request: dict[str, Json]) -> JobAnswer:
        """One job, or why there is none. Raises RequestFailed."""
        ...


@dataclass(frozen=True)
class Tally:
    """How the pilot has fared so far: jobs taken, empty answers and failures since the last job.

    sick: jobs in a row that failed fast by the fault of this node or site; ailment: the last one's error.
    """

    jobs: int = 0
    empty: int = 0
    failures: int = 0
    sick: int = 0
    ailment: PilotException | None = None


@dataclass(frozen=True)
class Limits:
    """Seconds, except requests, failures and sick (counts) and space (bytes).

    lifetime: from the pilot's start to the end of its slot. A job that failed within sick_time counts for sick.
    """

    lifetime: float
    reserve: float
    timefloor: float
    requests: int
    failures: int
    space: int
    sick: int
    sick_time: float


def may_fetch(tally: Tally, elapsed: float, free: int, limits: Limits) -> PilotException | None:
    """Why the pilot must not ask for a(nother) job, or None when it may.

    elapsed: seconds since the pilot's start; free: bytes on the work disk. These are failures; the ends that are not
    are those of is_done.
    """
    if tally.failures >= limits.failures:
        text = f"{tally.failures} request(s) in a row failed"
        return PilotException(text, code=ErrorCodes.COMMUNICATIONFAILURE)
    if tally.ailment is not None and tally.sick >= limits.sick:
        text = (
            f"{tally.sick} jobs in a row failed within {limits.sick_time:.0f} s each, and not by their own fault: this "
            f"node only eats jobs. The last one: {tally.ailment.diag}"
        )
        return PilotException(text, code=tally.ailment.code)
    if tally.jobs == 0 and tally.empty >= limits.requests:
        return PilotException(f"{tally.empty} empty answer(s) in a row", code=ErrorCodes.NOJOBSINPANDA)
    if elapsed + limits.reserve >= limits.lifetime and tally.jobs == 0:
        text = f"no time for a job: {elapsed:.0f} s of {limits.lifetime:.0f} s have passed"
        return PilotException(text, code=ErrorCodes.REACHEDMAXTIME)
    if free < limits.space:
        text = f"{free} bytes are free on the work disk, {limits.space} are needed to start a job"
        return PilotException(text, code=ErrorCodes.NOLOCALSPACE)
    return None


def after_job(tally: Tally, error: PilotException | None, seconds: float, limits: Limits) -> Tally:
    """The tally after one more job, which ended with an error or without one, so many seconds after it was taken."""
    jobs = tally.jobs + 1
    if error is None or error.blame not in _SICK or seconds > limits.sick_time:
        return Tally(jobs)
    return Tally(jobs, sick=tally.sick + 1, ailment=error)


def credentials_verdict(context: Context) -> PilotException | None:
    """Why the pilot's proxy and token do not do for a job, or None. What can be renewed is renewed before."""
    context.keeper.refresh(eager=True)
    verify = context.plugins.hook("proxy", "verify_proxy")

    def ask(hours: float, path: str) -> tuple[int, str]:
        answer = verify(limit=hours, x509=path)
        code, text = answer if isinstance(answer, tuple) else (0, "")
        return int(code), str(text)

    return context.keeper.verdict(ask, context.infosys.queuedata.catchall_value("needs_proxy"))


def lasting_verdict(walltime: float, left: float) -> PilotException | None:
    """walltime: seconds that a job may take, 0 when nobody knows; left: seconds the credentials last."""
    if walltime <= left or not walltime:
        return None
    text = f"the job may take {walltime:.0f} s, the pilot's proxy or token ends in {left:.0f} s and is not renewed"
    return PilotException(text, code=ErrorCodes.PROXYTOOSHORT)


def is_done(tally: Tally, elapsed: float, limits: Limits) -> str:
    """Why a pilot that has run at least one job leaves content, or nothing when it goes on asking.

    The time floor decides: a pilot asks for more jobs until it is reached; a queue without one gives a pilot one job.
    """
    if tally.jobs == 0:
        return ""
    if elapsed >= limits.timefloor:
        return f"{tally.jobs} job(s) done, and the time floor of {limits.timefloor:.0f} s is reached"
    if elapsed + limits.reserve >= limits.lifetime:
        return f"{tally.jobs} job(s) done, and no time for another"
    if tally.empty >= limits.requests:
        return f"{tally.jobs} job(s) done, and no more at the dispatcher"
    return ""


class JobController:
    """Fetches one job after the other in its own thread.

    take: makes a new job known to the workflow; handle: brings its events there. ended: called with the reason when no
    more jobs are asked for; None when that is as it should be.
    """

    def __init__(
        self,
        context: Context,
        source: JobSource,
        take: Callable[[JobRun], None],
        handle: Callable[[JobRun, Event], None],
        ended: Callable[[PilotException | None], None],
    ) -> None:
        self._context = context
        self._source = source
        self._handle = handle
        self._task = ""
        self._ended = ended
        self._take = take

    def run(self) -> None:
        """Body of the thread."""
        self._ended(self._fetch_jobs())

    def _limits(self) -> Limits:
        """The end of the slot may have been announced since the last job."""
        context = self._context
        lifetime = context.slot.total
        allowed = context.plugins.hook("common", "allow_timefloor")(context.args.harvester_submitmode)
        return Limits(
            lifetime=lifetime,
            reserve=min(context.settings.pilot.shutdown_reserve, lifetime / 4),
            timefloor=context.infosys.queuedata.timefloor if allowed else 0,
            requests=context.args.getjob_requests,
            failures=context.args.getjob_failures,
            space=context.settings.file.space_to_start,
            sick=context.settings.pilot.sick_jobs,
            sick_time=context.settings.pilot.sick_time,
        )

    def _fetch_jobs(self) -> PilotException | None:
        tally = Tally()
        context = self._context
        while not context.stopping.is_set():
            elapsed = time.time() - context.started
            context.slot.refresh()
            limits = self._limits()
            done = is_done(tally, elapsed, limits)
            if done:
                context.log.info("no further job is asked for: %s", done)
                return None
            reason = may_fetch(tally, elapsed, local_space(context.workdir), limits)
            reason = reason or credentials_verdict(context)
            if reason is not None:
                context.log.warning("no further job is asked for: %s", reason.diag)
                return reason
            tally = self._fetch_one(tally)
        return None

    def _fetch_one(self, tally: Tally) -> Tally:
        """Ask once, and see the job through if there is one; wait if there is none."""
        context = self._context
        asked = time.monotonic()
        try:
            answer = self._source.get_job(self._request())
        except PilotException as exc:
            context.log.error("no job: %s", exc.diag)
            # A server that does not let this pilot in will not do so in a minute either.
            shut_out = isinstance(exc, RequestFailed) and exc.status in (401, 403)
            failures = context.args.getjob_failures if shut_out else tally.failures + 1
            if failures < context.args.getjob_failures:
                context.stopping.wait(self._pause(None))
            return replace(tally, failures=failures)
        if answer.definition is None:
            empty = tally.empty + 1
            wait = self._pause(answer.retry_after) if empty < context.args.getjob_requests else 0.0
            again = f"; asking again in {wait:.0f} s" if wait else ""
            context.log.info("no job (%d of %d): %s%s", empty, context.args.getjob_requests, answer.reason, again)
            context.stopping.wait(wait)
            return replace(tally, empty=empty, failures=0)
        run = self._accept(answer.definition, asked)
        if run is None:
            return replace(tally, failures=tally.failures + 1)
        run.over.wait()
        return after_job(tally, run.error, time.monotonic() - asked, self._limits())

    def _pause(self, hint: float | None) -> float:
        """Seconds to the next request: the server's word, else a random time so that pilots do not come in step."""
        pilot = self._context.settings.pilot
        if hint is not None and hint >= 0:
            return min(hint, RETRY_AFTER_LIMIT)
        return random.uniform(pilot.getjob_delay_min, pilot.getjob_delay_max)

    def _request(self) -> dict[str, Json]:
        """The arguments of getJob in legacy names (wire.md, section 4)."""
        context = self._context
        args, queue = context.args, context.infosys.queuedata
        allowance = queue.maxwdir or _NO_LIMIT
        request: dict[str, Json] = {
            "siteName": args.resource or args.queue,
            "computingElement": args.site or args.queue,
            "prodSourceLabel": get_job_label(args),
            "diskSpace": min(local_space(context.workdir) // 2**20, allowance),
            "workingGroup": args.working_group,
            "cpu": context.node.cpu_mhz,
            "mem": context.node.memory,
            "node": context.node.name,
            "allowOtherCountry": args.allow_other_country,
            "remaining_time": int(min(context.slot.left(time.time()), context.keeper.time_left())),
        }
        optional = {
            "harvester_id": context.environ.get("HARVESTER_ID", ""),
            "worker_id": context.environ.get("HARVESTER_WORKER_ID", ""),
            "jobType": args.job_type,
            "countryGroup": args.country_group,
            "resourceType": args.resource_type,
            "taskID": self._task,
        }
        request.update({name: value for name, value in optional.items() if value})
        return request

    def _accept(self, definition: dict[str, Json], asked: float) -> JobRun | None:
        """Translate a definition and start the job's life; None when nobody could be told about it."""
        context = self._context
        try:
            jobid, attempt = job_identity(definition)
        except PilotException as exc:
            context.log.error("the dispatcher sent a job that cannot be run: %s", exc.diag)
            return None
        context.secrets.add(*secrets_of(definition))
        problem: PilotException | None = None
        infosys = context.infosys
        try:
            data = JobData(definition, lfn_limit=context.settings.file.lfn_limit)
            infosys = infosys.for_job(data.overwrite_queuedata, data.overwrite_storagedata)
            if not context.plugins.hook("common", "verify_job")(data):
                raise ConversionFailure(f"the plugin {context.plugins.experiment} does not take this job (verify_job)")
            problem = lasting_verdict(data.maxwalltime, context.keeper.time_left())
        except PilotException as exc:
            problem = exc
            data = JobData.refused(definition, jobid, attempt)
        run = JobRun(
            data, context.workdir / f"PanDA_Pilot-{jobid}", infosys, self._interval(definition), claim=data.claim
        )
        run.log_offset = _size_of(context.pilotlog)
        run.debug = data.debug
        run.measure("getjob", asked)
        context.log.info("job %s (attempt %d, %s) is taken", jobid, data.attemptnr, data.jobname or "without a name")
        context.log.debug("job definition: %s", _shown(definition))
        try:
            if problem is None:
                run.workdir.mkdir(parents=True)
        except OSError as exc:
            problem = MKDirFailure(f"{run.workdir}: {exc.strerror}")
        self._take(run)
        self._remember(jobid)
        if context.args.allow_same_user and data.taskid not in _NO_TASK:
            self._task = data.taskid
        self._handle(run, Accepted() if problem is None else Refused(problem))
        return run

    def _interval(self, definition: dict[str, Json]) -> float:
        pilot = self._context.settings.pilot
        return heartbeat_interval(number(definition.get(_NEXT_HEARTBEAT)), pilot.heartbeat, pilot.heartbeat_min)

    def _remember(self, jobid: str) -> None:
        """Wrappers read from this file which jobs a pilot has run."""
        try:
            path = self._context.rundir / self._context.settings.pilot.pandaids_file
            with path.open("a", encoding="utf-8") as stream:
                stream.write(f"{jobid}\n")
        except OSError as exc:
            self._context.log.warning("job %s could not be noted in %s: %s", jobid, exc.filename, exc.strerror)


def get_job_label(args: Arguments) -> str:
    """The prodSourceLabel to ask for: --joblabel, and rc_test2 for a release candidate (-i RC)."""
    return "rc_test2" if args.versiontag == "RC" else args.joblabel


def heartbeat_interval(wished: float | None, setting: float, least: float) -> float:
    """Seconds between heartbeats: the server's wish, between the least that a node may be asked for and the setting."""
    if wished is None or wished <= 0:
        return setting
    return min(max(wished, least), setting) if setting >= least else setting


class FileSource:
    """One job from a file (`--job FILE`), in the field names of getJob."""

    def __init__(self, path: Path) -> None:
        """Raises PilotException(NOSUCHFILE, CONVERSIONFAILURE) when the file holds no job definition."""
        try:
            definition = parse_json(path.read_bytes())
        except OSError as exc:
            raise PilotException(f"job file {path}: {exc.strerror}", code=ErrorCodes.NOSUCHFILE) from exc
        except ValueError as exc:
            raise PilotException(
                f"job file {path} is not valid JSON: {exc}", code=ErrorCodes.CONVERSIONFAILURE
            ) from exc
        if isinstance(definition, list) and len(definition) == 1:
            definition = definition[0]
        if not isinstance(definition, dict):
            raise PilotException(f"job file {path} does not hold one job definition", code=ErrorCodes.CONVERSIONFAILURE)
        self._definition: dict[str, Json] | None = {"PandaID": 1, "attemptNr": 1, "jobPars": "", **definition}

    def get_job(self, request: dict[str, Json]) -> JobAnswer:
        """The job the first time, nothing after that."""
        answer = JobAnswer(definition=self._definition, reason="the job file has been run", retry_after=0.0)
        self._definition = None
        return answer


def secrets_of(definition: Mapping[str, Json]) -> Iterator[str]:
    """What nobody else is to read of a definition: values of fields with "secret" in their names, which may be JSON
    texts, and what signs the URLs in the others.
    """
    for name, value in definition.items():
        if "secret" in name.lower():
            yield from _texts(value)
        elif isinstance(value, str):
            yield from signatures(value)


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        with suppress(ValueError):
            yield from _texts(parse_json(value)) if value[:1] in ("{", "[") else ()
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _shown(definition: dict[str, Json]) -> str:
    """A definition for the debug log, without what it holds of secrets."""
    return json.dumps({k: v for k, v in definition.items() if "secret" not in k.lower()}, default=str)[:20000]
