"""The state machine of updates against the table of wire.md, section 5."""

from __future__ import annotations

import itertools

import pytest

from server.logic.states import CLAIMED, NOT_STARTED, OVER, REPORTABLE, VERDICTS, Status, outcome_of

S = Status
ORDER = {
    S.SENT: 0,
    S.STARTING: 1,
    S.RUNNING: 2,
    S.TRANSFERRING: 3,
    S.HOLDING: 4,
    S.MERGING: 5,
    S.FINISHED: 6,
    S.FAILED: 6,
}


@pytest.mark.parametrize(
    ("stored", "reported", "becomes", "command"),
    [
        # a first report moves the job
        (S.SENT, S.STARTING, S.STARTING, ""),
        (S.SENT, S.RUNNING, S.RUNNING, ""),
        (S.STARTING, S.RUNNING, S.RUNNING, ""),
        (S.RUNNING, S.TRANSFERRING, S.TRANSFERRING, ""),
        # a repeated or late one does not move it back
        (S.STARTING, S.STARTING, None, ""),
        (S.RUNNING, S.STARTING, None, ""),
        (S.RUNNING, S.RUNNING, None, ""),
        (S.TRANSFERRING, S.RUNNING, None, ""),
        (S.HOLDING, S.RUNNING, None, ""),
        (S.HOLDING, S.STARTING, None, ""),
        (S.HOLDING, S.TRANSFERRING, None, ""),
        (S.HOLDING, S.HOLDING, None, ""),
        # verdicts are stored as holding, from wherever the job is
        (S.SENT, S.FAILED, S.HOLDING, ""),
        (S.STARTING, S.FAILED, S.HOLDING, ""),
        (S.RUNNING, S.FINISHED, S.HOLDING, ""),
        (S.TRANSFERRING, S.FINISHED, S.HOLDING, ""),
        (S.RUNNING, S.HOLDING, S.HOLDING, ""),
        # merging is the server's
        (S.MERGING, S.RUNNING, None, ""),
        (S.MERGING, S.FINISHED, None, ""),
        # over is over
        (S.FAILED, S.RUNNING, None, "alreadydone"),
        (S.FAILED, S.FINISHED, None, "alreadydone"),
        (S.FINISHED, S.FINISHED, None, "alreadydone"),
        (S.CANCELLED, S.RUNNING, None, "tobekilled"),
        (S.CLOSED, S.FINISHED, None, "tobekilled"),
        # nobody has it
        (S.ACTIVATED, S.RUNNING, None, "tobekilled"),
        (S.ASSIGNED, S.FINISHED, None, "tobekilled"),
    ],
)
def test_a_report_does_to_a_job_what_the_protocol_says(
    stored: Status, reported: Status, becomes: Status | None, command: str
) -> None:
    outcome = outcome_of(stored, reported)
    assert (outcome.status, outcome.command) == (becomes, command)


@pytest.mark.parametrize("verdict", sorted(VERDICTS))
def test_a_second_verdict_is_answered_alreadydone_and_changes_nothing(verdict: Status) -> None:
    for stored in (S.HOLDING, S.MERGING, S.TRANSFERRING):
        outcome = outcome_of(stored, verdict, decided=True)
        assert (outcome.status, outcome.verdict, outcome.command) == (None, False, "alreadydone")


def test_a_job_that_a_pilot_left_holding_takes_a_late_verdict_once() -> None:
    assert outcome_of(S.HOLDING, S.FINISHED).verdict
    assert not outcome_of(S.HOLDING, S.FINISHED, decided=True).verdict


def test_transferring_that_the_server_set_answers_holding_with_alreadydone() -> None:
    assert outcome_of(S.TRANSFERRING, S.HOLDING, decided=True).command == "alreadydone"
    assert outcome_of(S.TRANSFERRING, S.HOLDING).status == S.HOLDING


@pytest.mark.parametrize("reported", sorted(REPORTABLE))
def test_a_job_the_dispatcher_gave_up_answers_everything_with_tobekilled(reported: Status) -> None:
    for stored in Status:
        outcome = outcome_of(stored, reported, given_up=True)
        assert (outcome.status, outcome.command, outcome.alive) == (None, "tobekilled", False)


def test_no_report_ever_moves_a_job_backwards_or_out_of_a_final_state() -> None:
    for stored, reported, decided in itertools.product(Status, REPORTABLE, (False, True)):
        outcome = outcome_of(stored, reported, decided=decided)
        if outcome.status is not None:
            assert stored in CLAIMED
            assert ORDER[outcome.status] > ORDER[stored]
            assert outcome.status not in OVER | NOT_STARTED


def test_only_a_report_of_the_living_moves_or_ends_anything() -> None:
    for stored, reported, decided in itertools.product(Status, REPORTABLE, (False, True)):
        outcome = outcome_of(stored, reported, decided=decided)
        if outcome.status is not None or outcome.verdict:
            assert outcome.alive
        if outcome.command:
            assert not outcome.alive


def test_the_start_is_taken_at_running_and_the_end_at_what_follows() -> None:
    assert outcome_of(S.STARTING, S.RUNNING).starts
    assert not outcome_of(S.RUNNING, S.RUNNING).starts
    for reported in (S.TRANSFERRING, S.HOLDING, S.FINISHED, S.FAILED):
        assert outcome_of(S.RUNNING, reported).ends


@pytest.mark.parametrize("word", ["activated", "sent", "merging", "cancelled"])
def test_a_pilot_may_not_report_every_state(word: str) -> None:
    with pytest.raises(KeyError):
        outcome_of(S.RUNNING, Status(word))
