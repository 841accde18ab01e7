"""The thread that tells the server. Updates go out in order; one that cannot be sent is on disk before all else.

A final update is written to the spool before it is tried for the first time, so that even a pilot that is killed
between the two loses nothing: the next pilot in the same place delivers it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pilot.control.dispatcher import UpdateAnswer
from pilot.control.jobrun import JobRun
from pilot.control.updates import Body
from pilot.util.filehandling import write_json
from pilot.util.https import RequestFailed, RetryPolicy, wait_before_retry
from pilot.util.parallel import Aside
from pilot.util.spool import Spool, SpooledUpdate

# Longest wait before a heartbeat that failed is tried again (s). A final update comes sooner (setting retry_delay_max);
# a hundred thousand pilots must not hammer a server that is just starting up.
_HEARTBEAT_DELAY_MAX = 60.0
# s between two looks at whether the pilot has to leave, while a server is silent.
_LOOK = 0.2
# HTTP codes with which a server turns away whoever sends: better credentials may help.
_TURNED_AWAY = (401, 403)
# A final update is tried at least so often, whatever the patience: a server that refuses ten times is not gone.
_FINAL_ATTEMPTS = 12


class Sink(Protocol):
    """Where updates go: a dispatcher, or a file."""

    url: str

    def update_job(self, update: Body, claim: str) -> UpdateAnswer:
        """Deliver one update. Raises RequestFailed."""
        ...


class FileSink:
    """Takes the place of a server's updateJob: the last update of each job is in a file (`-z`, `--job`)."""

    def __init__(self, path: Path) -> None:
        self.url = f"file://{path}"
        self._path = path

    def update_job(self, update: Body, claim: str) -> UpdateAnswer:
        """Write one update. Raises FileHandlingFailure."""
        write_json(str(self._path), update)
        return UpdateAnswer()


@dataclass
class _Pending:
    """One update on its way, with its place in the spool, its file there if it has one, and the failures it had."""

    run: JobRun
    body: Body
    is_final: bool
    number: int
    path: Path | None = None
    failures: int = 0
    since: float = 0.0


class Reporter:
    """Sends updates in its own thread.

    answered: called with job and answer after each delivery; reported: called when the final update of a job was
    delivered (True) or had to be left in the spool (False). readmit: called when the server has turned the pilot away;
    says whether the pilot has something better to show now. blot: takes the secrets out of an update, before it is on
    disk or on its way.
    """

    def __init__(
        self,
        sink: Sink,
        spool: Spool | None,
        policy: RetryPolicy,
        answered: Callable[[JobRun, UpdateAnswer], None],
        reported: Callable[[JobRun, bool], None],
        log: logging.Logger,
        readmit: Callable[[], bool] = lambda: False,
        blot: Callable[[Body], Body] = lambda body: body,
    ) -> None:
        self._blot = blot
        self._sink = sink
        self._readmit = readmit
        self._spool = spool
        self._policy = policy
        self._answered = answered
        self._reported = reported
        self._log = log
        self._pending: deque[_Pending] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._patience = policy.patience
        self._hurried = 0.0
        self.gave_up = False

    def send(self, run: JobRun, body: Body, *, is_final: bool = False) -> None:
        """Queue an update. A heartbeat that is still waiting is replaced by a newer one of the same state."""
        body = self._blot(body)
        number = self._spool.next_number() if self._spool is not None else 0
        item = _Pending(run, body, is_final, number, since=time.monotonic())
        if is_final:
            self._to_disk(item)
        with self._changed:
            if not is_final and any(waiting.is_final and waiting.run is run for waiting in self._pending):
                return  # the job's end was decided while its heartbeat was made
            if self._replaced(item):
                return
            self._pending.append(item)
            self._changed.notify()

    def write_will(self, run: JobRun, body: Body) -> None:
        """Keep on disk what the next pilot is to report if this one is killed before the job's final update.

        It says in which phase the job was, and is replaced as the job goes on.
        """
        if self._spool is None:
            return
        try:
            self._spool.write_will(SpooledUpdate(self._sink.url, run.claim, self._blot(body)))
        except OSError as exc:
            self._log.warning("job %s: if this pilot is killed, nobody will be told: %s", run.jobid, exc)

    def hurry(self, patience: float) -> None:
        """Give a server that does not answer no more than `patience` seconds: the batch system is about to kill us."""
        with self._changed:
            self._patience = min(self._patience, patience)
            self._hurried = time.monotonic()
            self._changed.notify()

    def close(self) -> None:
        """End the thread when everything queued so far is delivered or given up."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def run(self) -> None:
        """Body of the thread."""
        while True:
            with self._changed:
                while not self._pending and not self._closed:
                    self._changed.wait()
                if not self._pending:
                    return
                item = self._pending[0]
            answer = self._deliver(item)
            with self._changed:
                done = answer is not None or item.failures < 0
                if done:
                    self._pending.popleft()
            if answer is not None:
                self._answered(item.run, answer)
            if done and item.is_final:
                self._reported(item.run, answer is not None)

    def _replaced(self, item: _Pending) -> bool:
        """Put a heartbeat in the place of an older one that waits behind the one under way."""
        if item.is_final or len(self._pending) < 2:
            return False
        last = self._pending[-1]
        if last.is_final or last.run is not item.run or last.body["state"] != item.body["state"]:
            return False
        last.body = item.body
        if last.path is not None:
            self._to_disk(last)
        return True

    def _deliver(self, item: _Pending) -> UpdateAnswer | None:
        """Try one update once; wait before the next try if it failed. `failures` is -1 when it is given up."""
        state = item.body["state"]
        patience = self._patience
        try:
            answer = self._send(item)
        except RequestFailed as exc:
            item.failures += 1
            if not exc.temporary:
                self._log.error("job %s: the server does not take update '%s': %s", item.run.jobid, state, exc.diag)
                # Turned away at the door (an expired token, say), it may be welcome from the next pilot.
                if exc.is_verdict:
                    self._from_disk(item)
                item.failures = -1
                return None
            if item.path is None:
                self._to_disk(item)
            self._wait_or_give_up(item, exc, patience)
            return None
        self._from_disk(item)
        self._log.info("job %s: update '%s' is delivered%s", item.run.jobid, state, _shown(answer))
        return answer

    def _send(self, item: _Pending) -> UpdateAnswer:
        """Send an update. A server that says nothing is not waited for once the pilot is in a hurry.

        Raises RequestFailed.
        """
        begun = time.monotonic()
        sending = Aside(lambda: self._exchange(item), "update")
        while not sending.has_ended(_LOOK):
            if self._hurried and time.monotonic() > max(begun, self._hurried) + self._patience:
                raise RequestFailed("the server is silent, and the pilot has to leave", temporary=True)
        return sending.result()

    def _exchange(self, item: _Pending) -> UpdateAnswer:
        """One that was turned away at the door is sent again with better credentials, if there are any."""
        try:
            return self._sink.update_job(item.body, item.run.claim)
        except RequestFailed as exc:
            if exc.status not in _TURNED_AWAY or not self._readmit():
                raise
            return self._sink.update_job(item.body, item.run.claim)

    def _wait_or_give_up(self, item: _Pending, exc: RequestFailed, patience: float) -> None:
        """patience: what it was when the try began. A hurry that has come since ends the wait, not the tries: an update
        gets one more after it.
        """
        waited, final_waits = self._final_waits()
        policy = RetryPolicy(
            self._policy.attempts, self._policy.delay, self._policy.delay_max if final_waits else _HEARTBEAT_DELAY_MAX
        )
        wait = wait_before_retry(item.failures, policy, exc.retry_after, random.random())
        if final_waits:
            # However long a server wants to be left alone, the slot is only held as long as patience lasts.
            wait = min(wait, max(patience - waited, policy.delay))
        # After one update was given up the server is not worth waiting for: the rest is tried once, in order. Nor does
        # a pilot that leaves wait for a heartbeat that has no final update behind it.
        impatient = self.gave_up or (item.failures >= self._least_tries(patience) and waited + wait > patience)
        give_up = impatient if final_waits else self._closed
        if give_up:
            self._log.error(
                "job %s: update '%s' could not be delivered in %.0f s (%s); it stays in the spool for the next pilot",
                item.run.jobid, item.body["state"], waited, exc.diag,
            )  # fmt: skip
            item.failures = -1
            self.gave_up = True
            return
        self._log.warning(
            "job %s: update '%s' failed (try %d): %s; next try in %.1f s",
            item.run.jobid, item.body["state"], item.failures, exc.diag, wait,
        )  # fmt: skip
        with self._changed:
            # A final update that has come in meanwhile, or a hurry, ends the wait.
            self._changed.wait_for(
                lambda: self._patience != patience or (not final_waits and self._pending[-1].is_final), timeout=wait
            )

    def _least_tries(self, patience: float) -> int:
        """A final update is tried at least so often, unless the pilot is in a hurry."""
        return _FINAL_ATTEMPTS if patience >= self._policy.patience else 1

    def _final_waits(self) -> tuple[float, bool]:
        """Since when (s) the first final update waits, and whether one does. While none waits, patience is endless."""
        with self._changed:
            since = [item.since for item in self._pending if item.is_final]
        return (time.monotonic() - min(since), True) if since else (0.0, False)

    def _to_disk(self, item: _Pending) -> None:
        if self._spool is None:
            return
        try:
            item.path = self._spool.add(SpooledUpdate(self._sink.url, item.run.claim, item.body), item.number)
        except OSError as exc:
            self._log.error("job %s: the update cannot be written to the spool: %s", item.run.jobid, exc)
            return
        if item.is_final:
            self._spool.remove_will(item.run.jobid)

    def _from_disk(self, item: _Pending) -> None:
        if self._spool is None:
            return
        if item.path is not None:
            self._spool.remove(item.path)
            item.path = None
        if item.is_final:
            self._spool.remove_will(item.run.jobid)


def deliver_orphans(spool: Spool, sink: Sink, log: logging.Logger) -> int:
    """Send what dead pilots left in the spool for the same server; return how many updates were delivered.

    Each is tried once: when the server is not there, the spool keeps them for the next pilot.
    """
    delivered = 0
    stuck: set[str] = set()
    for path, update in spool.orphans():
        # What comes after an update that could not be sent must not overtake it.
        if update.server != sink.url or str(update.body.get("jobId")) in stuck:
            continue
        try:
            sink.update_job(dict(update.body), update.claim)
        except RequestFailed as exc:
            if not exc.is_verdict:
                log.warning("update of job %s left by an earlier pilot is kept: %s", update.body.get("jobId"), exc.diag)
                if exc.temporary:
                    return delivered
                stuck.add(str(update.body.get("jobId")))
                continue
            log.warning("update of job %s left by an earlier pilot was refused: %s", update.body.get("jobId"), exc.diag)
        else:
            delivered += 1
            log.info(
                "update '%s' of job %s, left by an earlier pilot, is delivered",
                update.body.get("state"),
                update.body.get("jobId"),
            )
        spool.remove(path)
    return delivered


def _shown(answer: UpdateAnswer) -> str:
    return f", command {','.join(answer.commands)}" if answer.commands else ""
