"""The event ranges of one job: fetched ahead, given to the payload, their outputs stored, each end told to the server.

A range counts as finished only when its output is in storage; the server hears of it then. What the payload has not
begun, or not ended, is told to nobody: the server takes it back when the job ends.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import ESFatal, ESNoEvents, ESRecoverable, MessageFailure, PilotException, StageOutFailure
from pilot.control.context import Context
from pilot.control.eventsource import EventHelpers, EventSource, Group
from pilot.control.jobrun import JobRun
from pilot.eventservice.esprocess.eshook import ESHook
from pilot.eventservice.esprocess.esmessage import FATAL, FINISHED, OutMessage
from pilot.info.filespec import FileSpec
from pilot.util.archives import pack, size_of
from pilot.util.filehandling import Cancelled
from pilot.util.https import Json, RequestFailed, RetryPolicy, with_retries
from pilot.util.workernode import local_space

# The range's own words about a failure that are kept (characters).
_WORDS = 200
# Ends in which there is no time for outputs of ranges: the node is about to be taken away, or nobody wants them.
_NO_TIME = frozenset(
    {
        ErrorCodes.SIGTERM, ErrorCodes.SIGQUIT, ErrorCodes.SIGSEGV, ErrorCodes.SIGXCPU, ErrorCodes.SIGUSR1,
        ErrorCodes.SIGBUS, ErrorCodes.SIGINT, ErrorCodes.KILLSIGNAL, ErrorCodes.PREEMPTION, ErrorCodes.PANDAKILL,
        ErrorCodes.KILLPAYLOAD,
    }
)  # fmt: skip
# Reports that the server does not take in the first place are tried until patience ends, however often that is.
_ATTEMPTS = 1000


@dataclass(frozen=True)
class _Done:
    """A range whose output waits to be stored."""

    range_id: str
    paths: Sequence[Path]
    events: int
    facts: dict[str, Json]


@dataclass
class _Counts:
    """Ranges by what became of them. given: to the payload; lost: done, and the server wanted them no more."""

    given: int = 0
    finished: int = 0
    failed: int = 0
    fatal: int = 0
    lost: int = 0
    events: int = 0
    first_words: str = ""
    under_way: dict[str, dict[str, Json]] = field(default_factory=dict)


class EventBook(ESHook):
    """The hook of the pilot's own executor. Its methods may be called from several threads.

    inside: what the payload calls the job's directory, where that is another name than the pilot's.
    """

    def __init__(
        self, context: Context, run: JobRun, source: EventSource, helpers: EventHelpers, inside: str = ""
    ) -> None:
        self._context = context
        self._job = run
        self._source = source
        self._helpers = helpers
        self._inside = inside
        self._lock = threading.Lock()
        self._stock: deque[dict[str, Json]] = deque()
        self._no_more = False
        self._counts = _Counts()
        self._done: list[_Done] = []
        self._news: list[Group] = []
        self._saved = self._told = time.monotonic()
        settings = context.settings.payload
        self._gap = float(run.infosys.queuedata.es_stageout_gap or settings.event_save_gap)

    # ---- what the payload asks for and says

    def get_event_ranges(self, num_ranges: int = 1) -> list[dict[str, Json]]:
        """See ESHook. For one thread at a time."""
        if not self._stock and not self._no_more:
            self._fetch()
        with self._lock:
            ranges = [self._stock.popleft() for _ in range(min(num_ranges, len(self._stock)))]
            for one in ranges:
                self._counts.under_way[str(one["eventRangeID"])] = one
            self._counts.given += len(ranges)
            if ranges:
                self._tell([{"eventRangeID": one["eventRangeID"], "eventStatus": "running"} for one in ranges])
        return ranges

    def _fetch(self) -> None:
        run = self._job
        number = max(run.data.corecount, 1) * self._context.settings.payload.event_ranges_ahead
        try:
            found = self._source.get(run.data, number)
        except RequestFailed as exc:
            if exc.temporary:
                raise ESRecoverable(exc.diag) from exc
            self._no_more = True
            raise
        with self._lock:
            self._no_more = self._no_more or not found
            self._stock.extend(found if not self._no_more else [])
        text = "%d event ranges are here" if found else "%d event ranges are left for it"
        self._context.log.info(f"job %s: {text}", run.jobid, len(found))

    def handle_out_message(self, message: OutMessage) -> None:
        """See ESHook."""
        range_id, status, words = message["id"], message["status"], message["message"]
        with self._lock:
            known = self._counts.under_way.pop(range_id, None)
        if known is None:
            raise MessageFailure(f"the payload speaks of event range {range_id}, which it has not, or not any more")
        paths: list[Path] = []
        if status == FINISHED:
            try:
                paths = [self._output(name) for name in message["output"]]
            except PilotException as exc:
                status, words = "failed", exc.diag
        if status != FINISHED:
            self._note_failure(range_id, status, words)
            return
        facts: dict[str, Json] = {"coreCount": self._job.data.corecount, "cpuConsumptionTime": round(message["cpu"])}
        with self._lock:
            self._done.append(_Done(range_id, paths, _events_of(known), facts))

    def _note_failure(self, range_id: str, status: str, words: str) -> None:
        self._context.log.warning(
            "job %s: event range %s has %s: %s", self._job.jobid, range_id, status, words[:_WORDS]
        )
        with self._lock:
            counts = self._counts
            counts.first_words = counts.first_words or f"range {range_id}: {words[:_WORDS]}"
            if status == FATAL:
                counts.fatal += 1
            else:
                counts.failed += 1
            self._tell([{"eventRangeID": range_id, "eventStatus": status}])

    def _tell(self, ranges: Sequence[dict[str, Json]]) -> None:
        """The lock is held."""
        self._news.append({"eventRanges": list(ranges)})

    def _output(self, name: str) -> Path:
        """A file that the payload names as output. Raises PilotException."""
        workdir = os.path.realpath(self._job.workdir)
        if self._inside and (name == self._inside or name.startswith(f"{self._inside}/")):
            name = os.path.relpath(name, self._inside)
        path = Path(os.path.realpath(os.path.join(workdir, name)))
        if os.path.commonpath([workdir, path]) != workdir or not path.is_file():
            text = f"its output {name[:_WORDS]!r} is no file in the job's directory"
            raise PilotException(text, code=ErrorCodes.MISSINGOUTPUTFILE)
        return path

    # ---- what is done while the payload runs

    def next_look(self) -> float:
        """Seconds until something is to be stored or told."""
        period = self._context.settings.payload.event_update
        return max(0.0, min(self._saved + self._gap, self._told + period) - time.monotonic())

    def look(self) -> None:
        """Store outputs and tell the server, as far as it is time. What fails is tried again at the next look."""
        now, cancel = time.monotonic(), self._job.cancel_payload
        try:
            if now >= self._saved + self._gap:
                self._saved = now
                self._store(cancel)
            if now >= self._told + self._context.settings.payload.event_update:
                self._told = now
                self._send()
        except PilotException as exc:
            self._context.log.warning("job %s: event ranges: %s; tried again", self._job.jobid, exc.diag)

    def finish(self, cancel: threading.Event) -> None:
        """After the payload: store and tell what is left, unless the job ends in a hurry. cancel: gives the outputs up.

        Raises PilotException when outputs could not be stored, or the server could not be told, which will then have
        others do the same again.
        """
        pilot = self._context.settings.pilot
        policy = RetryPolicy(_ATTEMPTS, pilot.retry_delay, pilot.retry_delay_max, pilot.final_update_patience)
        if self._job.error is not None and self._job.error.code in _NO_TIME:
            self._log_end()
            return
        errors: list[PilotException] = []
        try:
            self._store(cancel)
        except PilotException as exc:
            errors.append(exc)
        self._log_end()
        try:
            with_retries(self._send, policy, cancel)
        except PilotException as exc:
            errors.append(exc)
        found = self.verdict()
        # Told already, unless it was found out only now.
        if found is not None and self._job.error is None:
            errors.append(found)
        if errors:
            raise errors[0]

    def unstored(self) -> list[str]:
        """Names in the job's directory of outputs that are in no storage: what made them is done again elsewhere."""
        workdir = os.path.realpath(self._job.workdir)
        with self._lock:
            return [os.path.relpath(path, workdir) for one in self._done for path in one.paths]

    def verdict(self) -> PilotException | None:
        """What the ranges say of the payload, once it has ended and been listened to."""
        counts = self._counts
        left = len(counts.under_way)
        if not counts.given:
            return ESNoEvents("the payload was given no event range")
        if counts.fatal:
            return ESFatal(f"{counts.fatal} of {counts.given} event ranges cannot be processed; {counts.first_words}")
        if counts.failed or left:
            text = f"of {counts.given} event ranges {counts.failed} failed and {left} were not ended"
            return ESRecoverable(f"{text}; {counts.first_words}" if counts.first_words else text)
        return None

    def _log_end(self) -> None:
        counts = self._counts
        if counts.events:
            self._job.figures["nEvents"] = str(counts.events)
        self._context.log.info(
            "job %s: event ranges: %d given, %d finished, %d failed, %d fatal, %d not ended, %d not begun",
            self._job.jobid, counts.given, counts.finished, counts.failed, counts.fatal,
            len(counts.under_way) + len(self._done), len(self._stock),
        )  # fmt: skip

    # ---- outputs

    def _store(self, cancel: threading.Event) -> None:
        """Pack the outputs of ranges that are done and take the archive to storage. Raises PilotException."""
        done = self._still_there()
        if not done:
            return
        archive: dict[str, Json] = {}
        members = _members(done)
        if members:
            spec = self._pack(members, len(done), cancel)
            archive = self._archive(spec, len(done))
        endpoint: dict[str, Json] = {"objstoreID": archive["objstoreID"]} if archive else {}
        ranges: list[Json] = [
            {"eventRangeID": one.range_id, "eventStatus": FINISHED, **one.facts, **endpoint} for one in done
        ]
        with self._lock:
            self._done = self._done[len(done) :]
            self._news.append({"eventRanges": ranges, **({"zipFile": archive} if archive else {})})
            self._counts.finished += len(done)
            self._counts.events += sum(one.events for one in done)
            self._told = 0.0
        for path in members.values():
            with suppress(OSError):
                path.unlink()

    def _still_there(self) -> list[_Done]:
        """The ranges whose output waits to be stored. One that the payload has removed again has failed."""
        with self._lock:
            gone = [one for one in self._done if not all(path.is_file() for path in one.paths)]
            self._done = [one for one in self._done if one not in gone]
            done = list(self._done)
        for one in gone:
            self._note_failure(one.range_id, "failed", "its output is not there any more")
        return done

    def _pack(self, members: dict[str, Path], number: int, cancel: threading.Event) -> FileSpec:
        """An archive that is in storage. Raises PilotException."""
        run = self._job
        # A new database on a storage that is in use begins at 1 again: hence more than the job's number.
        lfn = f"EventService_premerge_{run.jobid}-{run.data.attemptnr}-{uuid.uuid4().hex[:8]}.tar"
        like = (run.data.outdata or run.data.logdata or [FileSpec("")])[0]
        spec = FileSpec(lfn, "output", like.scope, dataset=like.dataset)
        target = run.workdir / lfn
        try:
            needed, free = size_of(members), local_space(run.workdir)
            if needed > free:
                text = f"no space to pack {lfn}: {needed} bytes are needed, {free} are free at {run.workdir}"
                raise PilotException(text, code=ErrorCodes.NOLOCALSPACE)
            pack(target, members, tar=True, cancelled=cancel.is_set)
            self._helpers.save(run, [spec], cancel)
        except Cancelled:
            raise StageOutFailure(f"{lfn} was given up while it was packed") from None
        except OSError as exc:
            raise StageOutFailure(f"{lfn} with outputs of {number} event ranges cannot be packed: {exc}") from exc
        finally:
            with suppress(OSError):
                target.unlink()
        self._context.log.info("job %s: outputs of %d event ranges are stored in %s", run.jobid, number, spec.turl)
        return spec

    def _archive(self, spec: FileSpec, number: int) -> dict[str, Json]:
        """What the server is told of an archive."""
        try:
            storage = self._job.infosys.storage(spec.ddmendpoint).pk
        except PilotException:  # --output-dir: in no storage that has a number
            storage = 0
        told: dict[str, Json] = {
            "lfn": spec.lfn, "objstoreID": storage, "fsize": spec.filesize, "numEvents": number, **spec.checksum
        }  # fmt: skip
        if self._source.knows_places:
            told.update({"guid": spec.guid, "surl": spec.turl or spec.surl, "endpoint": spec.ddmendpoint})
        return told

    # ---- the server

    def _send(self) -> None:
        """Tell the server what it has not been told. Raises RequestFailed; only what it refuses is forgotten then."""
        with self._lock:
            news = list(self._news)
        if not news:
            return
        try:
            answer = self._source.update(self._job.data, news)
        except RequestFailed as exc:
            if exc.is_verdict:
                self._forget(len(news))
            raise
        self._forget(len(news))
        refused = sum(1 for one in answer.taken if one is False)
        if refused:
            self._context.log.warning(
                "job %s: the server does not take %d of %d reports of event ranges: they are not this job's any more",
                self._job.jobid, refused, len(answer.taken),
            )  # fmt: skip
        self._obey(answer.command)

    def _forget(self, number: int) -> None:
        with self._lock:
            self._news = self._news[number:]

    def _obey(self, command: str) -> None:
        """An order that came with the answer."""
        if "softkill" in command:
            # The payload ends by itself when it has done what it has begun.
            self._no_more = True
            with self._lock:
                self._stock.clear()
            self._context.log.warning("job %s: the server ordered a soft end: no more event ranges", self._job.jobid)
        elif "tobekilled" in command:
            error = PilotException("the server ordered it (tobekilled, for its events)", code=ErrorCodes.PANDAKILL)
            self._helpers.abort(self._job, error, self._context.settings.pilot.grace_on_signal)


def _events_of(one: dict[str, Json]) -> int:
    start, last = one.get("startEvent"), one.get("lastEvent")
    return last - start + 1 if isinstance(start, int) and isinstance(last, int) and last >= start else 0


def _members(done: Sequence[_Done]) -> dict[str, Path]:
    """The files of an archive by their names in it: their own, and where two have one, with the range before it.

    Where a range has two of one name, with a number between.
    """
    members: dict[str, Path] = {}
    for one in done:
        for path in one.paths:
            numbered = (f"{one.range_id}.{number}.{path.name}" for number in itertools.count(2))
            names = itertools.chain((path.name, f"{one.range_id}.{path.name}"), numbered)
            members[next(name for name in names if members.get(name, path) == path)] = path
    return members
