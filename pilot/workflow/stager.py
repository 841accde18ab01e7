"""The stager workflow: a payload that keeps running for as long as the server renews its lease.

Stage-in, payload and stage-out are generic's. The payload's lease (`--leasetime`) begins when it starts, and again with
every heartbeat that the server has answered. When it is over the payload is ended softly, those of its outputs that are
there are stored, and the job fails with 1375: its work is for another pilot to go on with.
"""

from __future__ import annotations

import time

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.common.lifecycle import Action, State
from pilot.control.dispatcher import UpdateAnswer
from pilot.control.jobrun import JobRun
from pilot.workflow import generic

# So many heartbeats are sent in one lease: one may be lost, and the next still renews it in time.
_HEARTBEATS = 3


class Workflow(generic.Workflow):
    """As generic's, with a lease for the payload."""

    _renewed: float | None = None

    def _take(self, run: JobRun) -> None:
        self._renewed = None
        self._shorten(run)
        super()._take(run)

    def _shorten(self, run: JobRun) -> None:
        run.interval = min(run.interval, self._context.args.leasetime / _HEARTBEATS)

    def _perform(self, run: JobRun, action: Action) -> None:
        super()._perform(run, action)
        if action is Action.SEND_RUNNING:
            self._renewed = time.monotonic()
            self._inbox.put(generic.Look())

    def _answered(self, run: JobRun, answer: UpdateAnswer) -> None:
        super()._answered(run, answer)
        self._shorten(run)
        if self._renewed is not None:
            self._renewed = time.monotonic()

    def _left_of_lease(self) -> float:
        """Seconds; endless without a payload that runs, and when it is to end anyway."""
        run = self._current
        if (
            run is None
            or self._renewed is None
            or self._stop_reason is not None
            or run.lifecycle.state is not State.PAYLOAD
        ):
            return float("inf")
        return self._renewed + self._context.args.leasetime - time.monotonic()

    def _time_to_wait(self) -> float:
        return max(0.0, min(super()._time_to_wait(), self._left_of_lease()))

    def _look_at_slot(self) -> None:
        super()._look_at_slot()
        run = self._current
        if run is None or self._left_of_lease() > 0:
            return
        lease = self._context.args.leasetime
        error = PilotException(f"no heartbeat was answered for {lease} s (--leasetime)", code=ErrorCodes.LEASETIME)
        self._abort(run, error, self._context.settings.pilot.grace_planned)
