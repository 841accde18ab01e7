"""The life of a job: what may follow what, and what each event makes the controllers do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, StageInFailure
from pilot.common.lifecycle import (
    Abort,
    Accepted,
    Action,
    Event,
    IllegalTransition,
    Lifecycle,
    PayloadEnded,
    PayloadStarted,
    Refused,
    Reported,
    StagedIn,
    StagedOut,
    StageInFailed,
    State,
)

WHY = PilotException("why", code=ErrorCodes.PANDAKILL)
A, S = Action, State

# Every event, with a name, as it comes without and with an error.
EVENTS: dict[str, Event] = {
    "accepted": Accepted(),
    "refused": Refused(WHY),
    "staged in": StagedIn(),
    "stage-in failed": StageInFailed(WHY),
    "stage-in cancelled": StageInFailed(),
    "payload started": PayloadStarted(),
    "payload ended well": PayloadEnded(),
    "payload ended badly": PayloadEnded(WHY),
    "abort": Abort(WHY),
    "staged out": StagedOut(),
    "stage-out failed": StagedOut(WHY),
    "reported": Reported(),
}

# The way to each state: events that lead there without an error, but for those states that only an error leads to.
WAYS: dict[State, list[Event]] = {
    S.RECEIVED: [],
    S.STAGEIN: [Accepted()],
    S.PAYLOAD: [Accepted(), StagedIn()],
    S.STOPPING: [Accepted(), StagedIn(), Abort(WHY)],
    S.STAGEOUT: [Accepted(), StagedIn(), PayloadEnded()],
    S.REPORTING: [Accepted(), StagedIn(), PayloadEnded(), StagedOut()],
    S.OVER: [Accepted(), StagedIn(), PayloadEnded(), StagedOut(), Reported()],
}

# Every cell that is not illegal: state, event -> new state, actions.
LEGAL: dict[tuple[State, str], tuple[State, tuple[Action, ...]]] = {
    (S.RECEIVED, "accepted"): (S.STAGEIN, (A.SEND_STARTING, A.START_STAGEIN)),
    (S.RECEIVED, "refused"): (S.STAGEOUT, (A.STAGE_OUT_LOG,)),
    (S.RECEIVED, "abort"): (S.STOPPING, ()),
    (S.STAGEIN, "staged in"): (S.PAYLOAD, (A.START_PAYLOAD,)),
    (S.STAGEIN, "stage-in failed"): (S.STAGEOUT, (A.STAGE_OUT_LOG,)),
    (S.STAGEIN, "stage-in cancelled"): (S.STAGEOUT, (A.STAGE_OUT_LOG,)),
    (S.STAGEIN, "abort"): (S.STOPPING, (A.CANCEL_STAGEIN,)),
    (S.PAYLOAD, "payload started"): (S.PAYLOAD, (A.SEND_RUNNING,)),
    (S.PAYLOAD, "payload ended well"): (S.STAGEOUT, (A.STAGE_OUT_ALL,)),
    (S.PAYLOAD, "payload ended badly"): (S.STAGEOUT, (A.STAGE_OUT_LOG,)),
    (S.PAYLOAD, "abort"): (S.STOPPING, (A.STOP_PAYLOAD,)),
    (S.STOPPING, "accepted"): (S.STAGEOUT, (A.STAGE_OUT_LOG,)),
    (S.STOPPING, "refused"): (S.STAGEOUT, (A.STAGE_OUT_LOG,)),
    (S.STOPPING, "staged in"): (S.STAGEOUT, (A.STAGE_OUT_LOG,)),
    (S.STOPPING, "stage-in failed"): (S.STAGEOUT, (A.STAGE_OUT_LOG,)),
    (S.STOPPING, "stage-in cancelled"): (S.STAGEOUT, (A.STAGE_OUT_LOG,)),
    (S.STOPPING, "payload started"): (S.STOPPING, (A.STOP_PAYLOAD,)),
    (S.STOPPING, "payload ended well"): (S.STAGEOUT, (A.STAGE_OUT_LOG,)),
    (S.STOPPING, "payload ended badly"): (S.STAGEOUT, (A.STAGE_OUT_LOG,)),
    (S.STOPPING, "abort"): (S.STOPPING, ()),
    (S.STAGEOUT, "abort"): (S.STAGEOUT, (A.HURRY_STAGEOUT,)),
    (S.STAGEOUT, "staged out"): (S.REPORTING, (A.SEND_FINAL,)),
    (S.STAGEOUT, "stage-out failed"): (S.REPORTING, (A.SEND_FINAL,)),
    (S.REPORTING, "abort"): (S.REPORTING, ()),
    (S.REPORTING, "reported"): (S.OVER, (A.FORGET,)),
    (S.OVER, "abort"): (S.OVER, ()),
}

# Starting any of these would cost time and data for a job whose fate is sealed.
NEW_WORK = {A.SEND_STARTING, A.START_STAGEIN, A.START_PAYLOAD, A.SEND_RUNNING, A.STAGE_OUT_ALL}


def after(*events: Event) -> Lifecycle:
    life = Lifecycle()
    for event in events:
        life.handle(event)
    return life


@pytest.mark.parametrize(("cell", "wanted"), LEGAL.items(), ids=lambda value: str(value)[:60])
def test_a_legal_event_leads_to_its_state_and_actions(
    cell: tuple[State, str], wanted: tuple[State, tuple[Action, ...]]
) -> None:
    state, name = cell
    life = after(*WAYS[state])
    assert life.state is state
    actions = life.handle(EVENTS[name])
    assert (life.state, actions) == wanted


@pytest.mark.parametrize("state", State)
def test_any_other_event_raises_and_changes_nothing(state: State) -> None:
    illegal = [name for name in EVENTS if (state, name) not in LEGAL]
    assert illegal
    for name in illegal:
        life = after(*WAYS[state])
        history, errors = list(life.history), list(life.errors)
        with pytest.raises(IllegalTransition) as raised:
            life.handle(EVENTS[name])
        assert type(EVENTS[name]).__name__ in str(raised.value) and state.value in str(raised.value)
        assert (life.state, life.history, life.errors) == (state, history, errors)


def test_an_illegal_event_tells_the_history_of_the_job() -> None:
    life = after(Accepted(), StagedIn())
    with pytest.raises(
        IllegalTransition, match=r"history: received -Accepted-> stage-in, stage-in -StagedIn-> payload$"
    ):
        life.handle(Reported())


def test_a_job_that_nothing_happened_to_says_so() -> None:
    with pytest.raises(IllegalTransition, match=r"history: nothing yet$"):
        Lifecycle().handle(StagedOut())


def test_a_good_job_does_everything_once_and_in_order() -> None:
    life = Lifecycle()
    done: list[Action] = []
    for event in (Accepted(), StagedIn(), PayloadStarted(), PayloadEnded(), StagedOut(), Reported()):
        done += life.handle(event)
    assert done == [
        A.SEND_STARTING,
        A.START_STAGEIN,
        A.START_PAYLOAD,
        A.SEND_RUNNING,
        A.STAGE_OUT_ALL,
        A.SEND_FINAL,
        A.FORGET,
    ]
    assert life.error is None


def test_the_first_error_is_the_reason_and_later_ones_are_kept() -> None:
    first, second, third = StageInFailure("no route"), PilotException("again"), PilotException("log")
    life = after(Accepted(), StageInFailed(first), Abort(second), StagedOut(third))
    assert life.error is first
    assert life.errors == [first, second, third]


def test_an_abort_after_the_outcome_is_decided_changes_nothing() -> None:
    life = after(Accepted(), StagedIn(), PayloadEnded(), StagedOut(), Abort(WHY), Reported(), Abort(WHY))
    assert (life.error, life.state) == (None, State.OVER)


def test_a_payload_that_starts_while_the_job_is_being_stopped_is_stopped() -> None:
    life = after(Accepted(), StagedIn(), Abort(WHY))
    assert life.handle(PayloadStarted()) == (A.STOP_PAYLOAD,)
    assert life.handle(PayloadEnded()) == (A.STAGE_OUT_LOG,)


def test_a_job_that_is_aborted_while_it_is_being_accepted_ends_with_its_log() -> None:
    life = after(Abort(WHY))
    assert life.handle(Accepted()) == (A.STAGE_OUT_LOG,)
    assert life.error is WHY


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=40))
def test_no_walk_starts_something_new_for_a_job_with_an_error(names: list[str]) -> None:
    life = Lifecycle()
    for name in names:
        try:
            actions = life.handle(EVENTS[name])
        except IllegalTransition:
            continue
        if life.errors:
            assert not NEW_WORK & set(actions)


# What brings a job in a state on, if all that is under way reports back.
HOMEWARD: dict[State, list[Event]] = {
    S.RECEIVED: [Accepted()],
    S.STAGEIN: [StagedIn()],
    S.PAYLOAD: [PayloadEnded()],
    S.STOPPING: [PayloadEnded()],
    S.STAGEOUT: [StagedOut()],
    S.REPORTING: [Reported()],
}


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=40))
def test_every_walk_ends_over_or_can_still_get_there(names: list[str]) -> None:
    life = Lifecycle()
    actions: list[Action] = []

    def bring(event: Event) -> None:
        actions.extend(life.handle(event))

    for name in names:
        before = (life.state, len(life.history))
        try:
            bring(EVENTS[name])
        except IllegalTransition:
            assert (life.state, len(life.history)) == before
    for _ in State:
        if life.state is not State.OVER:
            bring(HOMEWARD[life.state][0])
    assert life.state is State.OVER
    assert [actions.count(once) for once in (A.SEND_FINAL, A.FORGET)] == [1, 1]
    assert sum(actions.count(one) for one in (A.STAGE_OUT_LOG, A.STAGE_OUT_ALL, A.STAGE_OUT_MADE)) == 1
    assert [new for _, _, new in life.history][-1] is State.OVER
    assert life.history[0][0] is State.RECEIVED


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (ErrorCodes.REACHEDMAXTIME, A.STAGE_OUT_MADE),
        (ErrorCodes.LEASETIME, A.STAGE_OUT_MADE),
        (ErrorCodes.SIGTERM, A.STAGE_OUT_LOG),
        (ErrorCodes.PAYLOADEXCEEDMAXMEM, A.STAGE_OUT_LOG),
    ],
)
def test_a_payload_that_the_end_of_its_slot_or_lease_has_stopped_keeps_what_it_has_made(
    code: int, action: Action
) -> None:
    life = Lifecycle()
    for event in (Accepted(), StagedIn(), PayloadStarted(), Abort(PilotException("why", code=code))):
        life.handle(event)
    assert life.handle(PayloadEnded()) == (action,)


def test_an_end_of_the_slot_that_comes_second_changes_nothing() -> None:
    life = Lifecycle()
    for event in (Accepted(), StagedIn(), PayloadStarted(), Abort(PilotException("killed", code=ErrorCodes.PANDAKILL))):
        life.handle(event)
    life.handle(Abort(PilotException("over", code=ErrorCodes.REACHEDMAXTIME)))
    assert life.handle(PayloadEnded()) == (A.STAGE_OUT_LOG,)
