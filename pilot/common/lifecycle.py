"""The life of one job, as data: event in, list of actions out.

No I/O, no clock and no thread lives here. The controllers bring events and carry the actions out; what may follow what
is decided by one table. The first error of a job is its reason, all later ones are kept for the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Union

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException


class State(str, Enum):
    """Where a job is. A job is in exactly one state; OVER is the last."""

    RECEIVED = "received"
    STAGEIN = "stage-in"
    PAYLOAD = "payload"
    STOPPING = "stopping"
    STAGEOUT = "stage-out"
    REPORTING = "reporting"
    OVER = "over"


class Action(str, Enum):
    """What the controllers must do next."""

    SEND_STARTING = "send starting"
    START_STAGEIN = "start stage-in"
    CANCEL_STAGEIN = "cancel stage-in"
    START_PAYLOAD = "start payload"
    SEND_RUNNING = "send running"
    STOP_PAYLOAD = "stop payload"
    STAGE_OUT_ALL = "stage out outputs and log"
    STAGE_OUT_LOG = "stage out the log alone"
    STAGE_OUT_MADE = "stage out the outputs that are there, and the log"
    HURRY_STAGEOUT = "give up the outputs, save the log"
    SEND_FINAL = "send the final update"
    FORGET = "forget the job"


@dataclass(frozen=True)
class Accepted:
    """The definition is valid and the job's directory exists."""


@dataclass(frozen=True)
class Refused:
    """The definition is bad, or its directory could not be made."""

    error: PilotException


@dataclass(frozen=True)
class StagedIn:
    """All inputs are in place."""


@dataclass(frozen=True)
class StageInFailed:
    """At least one input could not be had, or the stage-in was cancelled (then the reason is known already)."""

    error: PilotException | None = None


@dataclass(frozen=True)
class PayloadStarted:
    """The payload's process exists."""


@dataclass(frozen=True)
class PayloadEnded:
    """No process of the payload is left. `error` says what was wrong with its end, if anything."""

    error: PilotException | None = None


@dataclass(frozen=True)
class Abort:
    """The job must end: kill order, signal, limit, end of the slot."""

    error: PilotException


@dataclass(frozen=True)
class StagedOut:
    """Outputs and log are where they belong, or will never be."""

    error: PilotException | None = None


@dataclass(frozen=True)
class Reported:
    """The final update was delivered, or is in the spool."""


Event = Union[Accepted, Refused, StagedIn, StageInFailed, PayloadStarted, PayloadEnded, Abort, StagedOut, Reported]

_S, _A = State, Action

# (state, event) -> (next state, actions) for a job without an error so far. A job that has one never starts something
# new: see _AFTER_ERROR.
_TABLE: dict[tuple[State, type], tuple[State, tuple[Action, ...]]] = {
    (_S.RECEIVED, Accepted): (_S.STAGEIN, (_A.SEND_STARTING, _A.START_STAGEIN)),
    (_S.RECEIVED, Refused): (_S.STAGEOUT, (_A.STAGE_OUT_LOG,)),
    (_S.RECEIVED, Abort): (_S.STOPPING, ()),
    (_S.STAGEIN, StagedIn): (_S.PAYLOAD, (_A.START_PAYLOAD,)),
    (_S.STAGEIN, StageInFailed): (_S.STAGEOUT, (_A.STAGE_OUT_LOG,)),
    (_S.STAGEIN, Abort): (_S.STOPPING, (_A.CANCEL_STAGEIN,)),
    (_S.PAYLOAD, PayloadStarted): (_S.PAYLOAD, (_A.SEND_RUNNING,)),
    (_S.PAYLOAD, PayloadEnded): (_S.STAGEOUT, (_A.STAGE_OUT_ALL,)),
    (_S.PAYLOAD, Abort): (_S.STOPPING, (_A.STOP_PAYLOAD,)),
    # What was under way when the abort came still reports back; then the log goes out.
    (_S.STOPPING, Accepted): (_S.STAGEOUT, (_A.STAGE_OUT_LOG,)),
    (_S.STOPPING, Refused): (_S.STAGEOUT, (_A.STAGE_OUT_LOG,)),
    (_S.STOPPING, StagedIn): (_S.STAGEOUT, (_A.STAGE_OUT_LOG,)),
    (_S.STOPPING, StageInFailed): (_S.STAGEOUT, (_A.STAGE_OUT_LOG,)),
    (_S.STOPPING, PayloadStarted): (_S.STOPPING, (_A.STOP_PAYLOAD,)),
    (_S.STOPPING, PayloadEnded): (_S.STAGEOUT, (_A.STAGE_OUT_LOG,)),
    (_S.STOPPING, Abort): (_S.STOPPING, ()),
    (_S.STAGEOUT, Abort): (_S.STAGEOUT, (_A.HURRY_STAGEOUT,)),
    (_S.STAGEOUT, StagedOut): (_S.REPORTING, (_A.SEND_FINAL,)),
    # The outcome is decided and on its way: nothing can change it any more.
    (_S.REPORTING, Abort): (_S.REPORTING, ()),
    (_S.REPORTING, Reported): (_S.OVER, (_A.FORGET,)),
    (_S.OVER, Abort): (_S.OVER, ()),
}

# The same for a job that has an error: its outputs are not wanted, only the log is.
_AFTER_ERROR: dict[tuple[State, type], tuple[State, tuple[Action, ...]]] = {
    (_S.PAYLOAD, PayloadEnded): (_S.STAGEOUT, (_A.STAGE_OUT_LOG,)),
}

# The same for a job whose slot or lease has ended: a payload that was told in time has written what it had (promise
# U5).
_TOLD_IN_TIME = frozenset({ErrorCodes.REACHEDMAXTIME, ErrorCodes.LEASETIME})
_AFTER_SLOT_END: dict[tuple[State, type], tuple[State, tuple[Action, ...]]] = {
    (_S.STOPPING, PayloadEnded): (_S.STAGEOUT, (_A.STAGE_OUT_MADE,)),
}


class IllegalTransition(Exception):
    """An event came that cannot come in this state. The text tells the job's history."""


@dataclass
class Lifecycle:
    """The state of one job with its errors and its history.

    history holds one (state, event name, new state) for each event, oldest first.
    """

    state: State = State.RECEIVED
    errors: list[PilotException] = field(default_factory=list)
    history: list[tuple[State, str, State]] = field(default_factory=list)

    @property
    def error(self) -> PilotException | None:
        """The first error: the reason that is reported."""
        return self.errors[0] if self.errors else None

    def handle(self, event: Event) -> tuple[Action, ...]:
        """Take one event and return what must be done now, in order. Raises IllegalTransition."""
        key = (self.state, type(event))
        if key not in _TABLE:
            story = ", ".join(f"{old.value} -{name}-> {new.value}" for old, name, new in self.history) or "nothing yet"
            raise IllegalTransition(
                f"event {type(event).__name__} cannot come in state {self.state.value}; history: {story}"
            )
        error = getattr(event, "error", None)
        if error is not None and self.state not in (State.REPORTING, State.OVER):
            self.errors.append(error)
        new, actions = _TABLE[key]
        if self.error is not None:
            new, actions = _AFTER_ERROR.get(key, (new, actions))
            if self.error.code in _TOLD_IN_TIME:
                new, actions = _AFTER_SLOT_END.get(key, (new, actions))
        self.history.append((self.state, type(event).__name__, new))
        self.state = new
        return actions
