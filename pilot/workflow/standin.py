"""When a controller's thread has died: what it would still have told of its job, so that the job ends as others do."""

from __future__ import annotations

import logging
from contextlib import suppress

from pilot.common.exception import PilotException
from pilot.common.lifecycle import Event, PayloadEnded, StagedOut, StageInFailed, State
from pilot.control.data import DataController
from pilot.control.jobrun import JobRun


def stand_in(
    name: str, run: JobRun, failure: PilotException, data: DataController, log: logging.Logger
) -> Event | None:
    """The event that a dead thread owes a job that has been aborted; None when it owes none.

    name: of the thread. The payload is ended first, and in the place of stage-out the log is saved here: it is what
    tells why.
    """
    state = run.lifecycle.state
    if name == "stage-in" and state is State.STOPPING:
        return StageInFailed(failure)
    if name == "payload" and state is State.STOPPING:
        running = [*run.commands, *run.utilities]
        for guarded in running:
            guarded.kill()
        for guarded in running:
            # The dead thread may have waited for it, and not have noted it.
            with suppress(OSError, ValueError):
                guarded.wait()
        return PayloadEnded(failure)
    if name == "stage-out" and state is State.STAGEOUT:
        try:
            data.save_log(run)
        except Exception:
            # Whatever the thread has died of may happen here, too.
            log.exception("job %s: its log cannot be saved", run.jobid)
        return StagedOut(failure)
    return None
