"""What a restored database has to be told before its servers start."""

from __future__ import annotations

from server.db import backup
from server.logic.states import CLAIMED
from tests.unit.server.dispatcher import Dispatcher


def test_a_job_whose_pilot_could_not_report_for_want_of_a_server_is_not_lost(dispatcher: Dispatcher) -> None:
    running, sent = dispatcher.submit({}, {})
    assert dispatcher.get_job()["PandaID"] == running
    dispatcher.report(running, "running")
    assert dispatcher.get_job()["PandaID"] == sent
    dispatcher.clock.now += 86_400
    with dispatcher.context.database.durable() as connection:
        assert backup.forgive_silence(connection, CLAIMED, dispatcher.clock.now) == 2
    dispatcher.watch()
    assert (dispatcher.status(running), dispatcher.status(sent)) == ("running", "sent")
    dispatcher.clock.now += 1801
    dispatcher.watch()
    assert (dispatcher.status(running), dispatcher.status(sent)) == ("running", "failed")
    dispatcher.clock.now += 7201 - 1801
    dispatcher.watch()
    assert dispatcher.status(running) == "failed"


def test_numbers_go_on_behind_those_that_may_have_been_given_out(dispatcher: Dispatcher) -> None:
    (last,) = dispatcher.submit({})
    with dispatcher.context.database.durable() as connection:
        assert backup.skip_numbers(connection, "PandaID", 1000) == last + 1000
    assert dispatcher.submit({}) == [last + 1001]
