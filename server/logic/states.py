"""The states of a job, and what a pilot's report does to them: a table without clock, database or network.

The rules are those of wire.md, section 5: states only move forward, a repeated or late report is answered and changes
nothing, and the pilot's own verdict (finished or failed) is stored as holding until the adder has checked it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Every state a job can be in (chapter 2.5 of PanDA's documents)."""

    PENDING = "pending"
    DEFINED = "defined"
    ASSIGNED = "assigned"
    THROTTLED = "throttled"
    ACTIVATED = "activated"
    SENT = "sent"
    STARTING = "starting"
    RUNNING = "running"
    HOLDING = "holding"
    MERGING = "merging"
    TRANSFERRING = "transferring"
    FINISHED = "finished"
    FAILED = "failed"
    CLOSED = "closed"
    CANCELLED = "cancelled"


#: Nobody has the job yet: it can be cancelled at once.
NOT_STARTED = frozenset({Status.PENDING, Status.DEFINED, Status.ASSIGNED, Status.THROTTLED, Status.ACTIVATED})
#: A pilot has the job and must go on reporting.
CLAIMED = frozenset({Status.SENT, Status.STARTING, Status.RUNNING, Status.TRANSFERRING})
#: The payload has ended well; what is left to do is this server's, and its adder's and merge job's.
AFTERWARDS = frozenset({Status.MERGING, Status.TRANSFERRING})
#: The job is over; this attempt's state never changes again.
OVER = frozenset({Status.FINISHED, Status.FAILED, Status.CLOSED, Status.CANCELLED})
#: What a pilot may report.
REPORTABLE = frozenset(
    {Status.STARTING, Status.RUNNING, Status.TRANSFERRING, Status.HOLDING, Status.FINISHED, Status.FAILED}
)
#: The pilot's verdicts.
VERDICTS = frozenset({Status.FINISHED, Status.FAILED})

KILL = "tobekilled"
#: To a job of the event service, with the answers about its ranges: it gets no more, and ends by itself.
SOFT_KILL = "softkill"
DONE = "alreadydone"


@dataclass(frozen=True)
class Outcome:
    """What a report does.

    Attributes:
        status: the new state; None leaves it.
        command: what the pilot is told instead of the job's own orders; empty: nothing special.
        alive: the report is a sign of life of the job's holder: its measurements are kept and the lease goes on.
        starts: the payload starts now: the start time is taken.
        ends: the payload has ended: the end time is taken, unless there is one.
        verdict: the report is final: it goes to the adder.
    """

    status: Status | None = None
    command: str = ""
    alive: bool = False
    starts: bool = False
    ends: bool = False
    verdict: bool = False


#: A bare heartbeat.
ALIVE = Outcome(alive=True)
_NOTHING = Outcome()
_STARTING = Outcome(Status.STARTING, alive=True)
_RUNNING = Outcome(Status.RUNNING, alive=True, starts=True)
_TRANSFERRING = Outcome(Status.TRANSFERRING, alive=True, ends=True)
_HOLDING = Outcome(Status.HOLDING, alive=True, ends=True)
_FINAL = Outcome(Status.HOLDING, alive=True, ends=True, verdict=True)
_LATE_FINAL = Outcome(alive=True, ends=True, verdict=True)
_KILL = Outcome(command=KILL)
_DONE = Outcome(command=DONE)

#: Stored state -> (starting, running, transferring, holding, finished or failed), as long as no verdict is known.
_OPEN: dict[Status, tuple[Outcome, Outcome, Outcome, Outcome, Outcome]] = {
    Status.SENT: (_STARTING, _RUNNING, _TRANSFERRING, _HOLDING, _FINAL),
    Status.STARTING: (ALIVE, _RUNNING, _TRANSFERRING, _HOLDING, _FINAL),
    Status.RUNNING: (ALIVE, ALIVE, _TRANSFERRING, _HOLDING, _FINAL),
    Status.TRANSFERRING: (ALIVE, ALIVE, ALIVE, _HOLDING, _FINAL),
    Status.HOLDING: (_NOTHING, _NOTHING, _NOTHING, _NOTHING, _LATE_FINAL),
    Status.MERGING: (_NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING),
    Status.FINISHED: (_DONE, _DONE, _DONE, _DONE, _DONE),
    Status.FAILED: (_DONE, _DONE, _DONE, _DONE, _DONE),
}
#: The same once the pilot's verdict is known; what is not here is as above.
_DECIDED: dict[Status, tuple[Outcome, Outcome, Outcome, Outcome, Outcome]] = {
    Status.HOLDING: (_NOTHING, _NOTHING, _NOTHING, _NOTHING, _DONE),
    Status.MERGING: (_NOTHING, _NOTHING, _NOTHING, _NOTHING, _DONE),
    Status.TRANSFERRING: (_NOTHING, _NOTHING, _NOTHING, _DONE, _DONE),
}
_COLUMN = {
    Status.STARTING: 0,
    Status.RUNNING: 1,
    Status.TRANSFERRING: 2,
    Status.HOLDING: 3,
    Status.FINISHED: 4,
    Status.FAILED: 4,
}


def outcome_of(stored: Status, reported: Status, *, decided: bool = False, given_up: bool = False) -> Outcome:
    """What a report of the job's present attempt does.

    Args:
        stored: the job's state.
        reported: the state reported, one of REPORTABLE.
        decided: a final report of this attempt is already stored.
        given_up: the dispatcher itself has failed this attempt (lost heartbeat and the like).

    Raises:
        KeyError: the reported state is not one a pilot may report.
    """
    column = _COLUMN[reported]
    if given_up:
        return _KILL
    row = _DECIDED.get(stored) if decided else None
    row = row or _OPEN.get(stored)
    # What has no row is not in anybody's hands: not handed out yet, cancelled or closed.
    return row[column] if row else _KILL
