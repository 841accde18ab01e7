"""The live log: what a payload writes reaches a sink while it runs.

One thread reads the payload's files where they lie and sends what is new, at most so much and so often. A sink that is
down or slow costs the payload nothing: what waits for it is on disk, and what is too much is left out and counted.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from pilot.common.lifecycle import Event, PayloadEnded, PayloadStarted
from pilot.control.companion import Companion
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.util.blot import Secrets
from pilot.util.follow import Follower, Piece
from pilot.util.https import RequestFailed, RetryPolicy, wait_before_retry

# A pilot that ends gives a sink so long in all (s) to take the rest: one interval of our server, and one request.
_LAST_WORDS = 4.0
# What neither JSON nor a terminal should see; ends of lines and tabs stay.
_CONTROL = dict.fromkeys((*range(9), *range(11, 32), 127), "?")


@dataclass(frozen=True)
class Record:
    """A piece of text.

    name: of its file in the job's directory; offset: in the file, dropped: left out before it (bytes).
    """

    name: str
    offset: int
    text: str
    dropped: int = 0


class LiveSink(Protocol):
    """Where a live log goes. interval: least time between two calls (s)."""

    interval: float

    def send(self, run: JobRun, records: Sequence[Record], limit: float) -> str:
        """Send records within `limit` seconds; returns why no more of this job is wanted, or nothing.

        Raises RequestFailed; if another try may help, the same records come again.
        """
        ...

    def close(self) -> None:
        """End what is open."""
        ...


@dataclass
class _Followed:
    """One job. batch: what is on its way; over: the payload has ended; due: when to send next (monotonic s)."""

    run: JobRun
    files: list[Follower]
    batch: list[Record] = field(default_factory=list)
    over: bool = False
    due: float = 0.0

    def unsent(self) -> int:
        """Bytes that nobody has been sent."""
        waiting = sum(len(record.text.encode()) + record.dropped for record in self.batch)
        return waiting + sum(file.unread() for file in self.files)

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()


class LiveLog(Companion):
    """Follows the payloads of the jobs under way. what: the sink, in words for the log."""

    name = "live-log"

    def __init__(self, context: Context, sink: LiveSink, what: str) -> None:
        self._context = context
        self._settings = context.settings.realtime
        self._sink = sink
        self._what = what
        self._pace = max(self._settings.interval, sink.interval)
        self._log = context.log
        self._jobs: list[_Followed] = []
        self._changed = threading.Condition()
        self._woken = False
        self._deadline: float | None = None
        self._failures = 0

    def notice(self, run: JobRun, event: Event) -> None:
        """Follow a payload from its start, and look at once when it has ended."""
        if isinstance(event, PayloadStarted) and all(followed.run is not run for followed in self._jobs):
            followed = _Followed(run, self._files_of(run))
            # A payload may be over, and its directory gone, before the thread comes to it.
            for file in followed.files:
                file.open()
            with self._changed:
                self._jobs.append(followed)
        elif isinstance(event, PayloadEnded):
            with self._changed:
                for followed in self._jobs:
                    if followed.run is run:
                        followed.over = True
                        followed.due -= self._pace - self._sink.interval
                self._woken = True
                self._changed.notify()

    def close(self) -> None:
        """Send what is left, for a few seconds at most, and end the thread."""
        with self._changed:
            self._deadline = time.monotonic() + _LAST_WORDS
            self._changed.notify()

    def run(self) -> None:
        """Body of the thread."""
        wait = self._pace
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._woken or self._deadline is not None, timeout=wait)
                    self._woken = False
                    jobs, last = list(self._jobs), self._deadline
                wait = self._look(jobs)
                if last is not None and (not self._jobs or not self._pause(wait, last)):
                    return
        finally:
            for followed in self._jobs:
                self._give_up(followed, "the pilot ends")
            self._sink.close()

    def _pause(self, wait: float, deadline: float) -> bool:
        """Before the pilot's end: wait for another try, unless there is no time for one."""
        if time.monotonic() + wait >= deadline:
            return False
        with self._changed:
            self._changed.wait(timeout=wait)
        return True

    def _files_of(self, run: JobRun) -> list[Follower]:
        settings = self._context.settings
        named = [name.strip() for name in settings.realtime.files.split(",") if name.strip()]
        found = []
        for name in dict.fromkeys((settings.payload.stdout, settings.payload.stderr, *named)):
            try:
                found.append(Follower(run.workdir, name))
            except ValueError as exc:
                self._log.warning("job %s: the live log leaves out a file: %s", run.jobid, exc)
        return found

    def _look(self, jobs: list[_Followed]) -> float:
        """Send what is new of each job; return the seconds to the next look."""
        try:
            for followed in jobs:
                if followed.due <= time.monotonic():
                    self._follow(followed)
        except RequestFailed as exc:
            return self._failed(jobs, exc)
        if self._failures:
            self._log.info("the live log goes on after %d failures", self._failures)
            self._failures = 0
        due = [followed.due - time.monotonic() for followed in self._jobs]
        return max(0.0, min(due, default=self._pace))

    def _failed(self, jobs: list[_Followed], exc: RequestFailed) -> float:
        """The sink has not taken something; return the seconds to the next try."""
        self._failures += 1
        if not exc.temporary:
            for followed in jobs:
                self._give_up(followed, exc.diag)
            return self._pace
        policy = RetryPolicy(0, self._pace, self._settings.retry_delay_max)
        wait = wait_before_retry(self._failures, policy, exc.retry_after, random.random())
        if self._failures == 1:
            self._log.warning("the live log waits, %s does not take it: %s", self._what, exc.diag)
        return wait

    def _follow(self, followed: _Followed) -> None:
        """Send what a job has written since, at most one batch. Raises RequestFailed."""
        over = followed.over
        followed.batch = followed.batch or self._collect(followed, final=over)
        if followed.batch:
            refusal = self._sink.send(followed.run, followed.batch, self._time_left())
            if refusal:
                self._give_up(followed, refusal)
                return
            followed.batch = []
        if over and not followed.unsent():
            followed.close()
            self._forget(followed)
        # At the end of a payload nobody waits longer than the sink wishes.
        followed.due = time.monotonic() + (self._sink.interval if over else self._pace)

    def _time_left(self) -> float:
        """How long one request may take (s)."""
        limit = self._settings.timeout
        return limit if self._deadline is None else max(0.1, min(limit, self._deadline - time.monotonic()))

    def _collect(self, followed: _Followed, *, final: bool) -> list[Record]:
        settings = self._settings
        room = settings.piece
        records = []
        for file in followed.files:
            with suppress(OSError):  # a disk that does not answer has its own alarm
                piece = file.read(room, settings.backlog, final=final)
                if piece is not None:
                    records.append(_record(piece, self._context.secrets))
                    room -= len(piece.data)
            if room <= 0:
                break
        return records

    def _give_up(self, followed: _Followed, why: str) -> None:
        unsent = followed.unsent()
        lost = f"; {unsent} bytes of its output were not sent" if unsent else ""
        self._log.warning("job %s: its live log ends here: %s%s", followed.run.jobid, why, lost)
        followed.close()
        self._forget(followed)

    def _forget(self, followed: _Followed) -> None:
        with self._changed:
            self._jobs = [one for one in self._jobs if one is not followed]


def _record(piece: Piece, secrets: Secrets) -> Record:
    """A piece as text that may go anywhere."""
    text = secrets.blot(piece.data.decode("utf-8", "replace")).translate(_CONTROL)
    return Record(piece.name, piece.offset, text, piece.dropped)
