"""Orders that look into a running job: debug mode and commands, by its owner or an operator."""

from __future__ import annotations

import pytest

from server.logic import orders
from server.logic.context import ANYBODY, Identity, Role
from server.logic.errors import BadField, Conflict, NotAllowed, NotFound
from tests.unit.server.dispatcher import Dispatcher

BOB = Identity("bob", frozenset({Role.USER}))


@pytest.fixture
def job(dispatcher: Dispatcher) -> int:
    """A job in a pilot's hands."""
    dispatcher.submit({"outputs": ["a.txt"]})
    return int(str(dispatcher.get_job()["PandaID"]))


def test_a_command_goes_with_every_answer_until_another_comes(dispatcher: Dispatcher, job: int) -> None:
    said = orders.set_command(dispatcher.context, job, " tail payload.stdout ", ANYBODY)
    assert said == f"job {job}: its pilot is told at its next update"
    assert [dispatcher.report(job, "running").command for _ in range(2)] == ["debug,tail payload.stdout"] * 2
    orders.set_command(dispatcher.context, job, "ls -l", ANYBODY)
    assert dispatcher.report(job, "running").command == "debug,ls -l"


def test_debug_mode_is_left_when_it_is_switched_off(dispatcher: Dispatcher, job: int) -> None:
    orders.set_command(dispatcher.context, job, "ps", ANYBODY)
    orders.set_debug_mode(dispatcher.context, job, True, ANYBODY)
    assert dispatcher.report(job, "running").command == "debug"
    orders.set_debug_mode(dispatcher.context, job, False, ANYBODY)
    assert dispatcher.report(job, "running").command == "debugoff"


def test_a_job_that_waits_starts_in_debug_mode_and_takes_no_command(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({})
    assert "from its start" in orders.set_debug_mode(dispatcher.context, job, True, ANYBODY)
    with pytest.raises(Conflict, match="no pilot has it, it is activated"):
        orders.set_command(dispatcher.context, job, "ls", ANYBODY)
    assert dispatcher.get_job()["debug"] == "True"


def test_an_order_to_end_a_job_is_not_taken_back_by_another(dispatcher: Dispatcher, job: int) -> None:
    dispatcher.kill(job)
    with pytest.raises(Conflict, match="has been told to end it"):
        orders.set_command(dispatcher.context, job, "ls", ANYBODY)
    orders.set_debug_mode(dispatcher.context, job, False, ANYBODY)
    assert dispatcher.report(job, "running").command == "tobekilled"


@pytest.mark.parametrize("command", ["", "  ", "x" * 251, "ls\n-l", "ls,tobekilled", "tobekilled", "debugoff"])
def test_what_is_no_command_is_refused(dispatcher: Dispatcher, job: int, command: str) -> None:
    with pytest.raises(BadField, match="command"):
        orders.set_command(dispatcher.context, job, command, ANYBODY)
    assert dispatcher.report(job, "running").command == ""


def test_a_strangers_and_a_finished_job_take_no_orders(dispatcher: Dispatcher, job: int) -> None:
    for order in (
        lambda: orders.set_command(dispatcher.context, job, "ls", BOB),
        lambda: orders.set_debug_mode(dispatcher.context, job, True, BOB),
    ):
        with pytest.raises(NotAllowed):
            order()
    with pytest.raises(NotFound):
        orders.set_debug_mode(dispatcher.context, job + 1, True, ANYBODY)
    dispatcher.finish(job)
    with pytest.raises(Conflict, match="it is over, it is finished"):
        orders.set_debug_mode(dispatcher.context, job, True, ANYBODY)
