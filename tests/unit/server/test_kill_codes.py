"""Kills with a reason, kills by force and soft ones, on both APIs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from server.logic import events, kills, orders
from server.logic.context import ANYBODY, Identity, Role
from server.logic.errors import BadField, Conflict, NotAllowed
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE, Dispatcher
from tests.unit.server.test_routes import client_of

ALICE = Identity("alice", frozenset({Role.USER}))
BOB = Identity("bob", frozenset({Role.USER}))
OPERATOR = Identity("root", frozenset({Role.OPERATOR}))
RANGES = {"number": 10, "per_range": 5}


@pytest.fixture
def client(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[FlaskClient]:
    """An open server with one queue."""
    for made in client_of(tmp_path, empty_database):
        made.post("/api/v1/queue/add", json={"queues": {QUEUE: {}}})
        yield made


def kill(
    dispatcher: Dispatcher, job: int, code: int, identity: Identity = OPERATOR, word: str = ""
) -> kills.KillResult:
    (result,) = kills.kill_jobs(dispatcher.context, [job], identity, code, word)
    return result


@pytest.mark.parametrize("code", kills.CODES)
def test_each_code_ends_a_job_that_waits_and_says_why(dispatcher: Dispatcher, code: int) -> None:
    (job,) = dispatcher.submit({})
    assert kill(dispatcher, job, code, word="toreassign").killed
    found = dispatcher.job(job)
    assert found["jobStatus"] == ("closed" if code in (2, 4, 7, 8, 10, 51, 55, 60) else "cancelled")
    why = kills.CODES[code].why
    assert (
        str(found["taskBufferErrorDiag"])
        == f"{found['jobStatus']} by root before it started{f' ({why})' if why else ''}"
    )
    assert found["jobSubStatus"] == "toreassign"


def test_the_codes_of_programs_are_not_for_users(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({}, identity=ALICE)
    assert "only operators may give that reason" in kill(dispatcher, job, 51, ALICE).text
    assert "belongs to alice" in kill(dispatcher, job, 9, BOB).text
    with pytest.raises(BadField, match="must be one of 0, 2, 3"):
        kill(dispatcher, job, 1)
    assert dispatcher.status(job) == "activated"
    assert kill(dispatcher, job, 3, ALICE).killed


def test_a_kill_by_force_does_not_wait_for_the_pilot(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"events": RANGES, "max_attempts": 3})
    job = int(str(dispatcher.get_job()["PandaID"]))
    dispatcher.report(job, "running")
    events.acquire_ranges(dispatcher.context, job, 1, "", ANYBODY)
    assert kill(dispatcher, job, 9).text == f"job {job}: cancelled, its pilot is told at its next update"
    assert dispatcher.status(job) == "cancelled"
    assert dispatcher.report(job, "running").command == "tobekilled"
    assert dispatcher.report(job, "finished").command == "tobekilled"
    assert dispatcher.status(job) == "cancelled"
    assert events.count_ranges(dispatcher.context, job) == {"cancelled": 1, "ready": 1}


def test_a_soft_kill_lets_a_job_do_the_ranges_it_has(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"events": RANGES})
    job = int(str(dispatcher.get_job()["PandaID"]))
    with pytest.raises(NotAllowed):
        orders.soft_kill(dispatcher.context, job, BOB)
    (one,) = events.acquire_ranges(dispatcher.context, job, 1, "", ANYBODY)
    assert "it gets no more event ranges" in orders.soft_kill(dispatcher.context, job, ANYBODY)
    orders.set_debug_mode(dispatcher.context, job, False, ANYBODY)
    with pytest.raises(Conflict, match="has been told to end"):
        orders.set_command(dispatcher.context, job, "ls", ANYBODY)
    assert dispatcher.report(job, "running").command == "", "pilots would end it at once"
    assert events.acquire_ranges(dispatcher.context, job, 1, "", ANYBODY) == []
    done = events.update_ranges(
        dispatcher.context, [events.RangeReport(str(one["eventRangeID"]), "finished")], "", ANYBODY
    )
    assert (done.taken, done.commands) == ([True], {job: "softkill"})
    dispatcher.kill(job)
    assert dispatcher.report(job, "running").command == "tobekilled"
    with pytest.raises(Conflict, match="told to end it"):
        orders.soft_kill(dispatcher.context, job, ANYBODY)


def test_only_a_job_of_the_event_service_in_a_pilots_hands_ends_softly(dispatcher: Dispatcher) -> None:
    plain, waiting = dispatcher.submit({}, {"events": RANGES})
    for job, says in ((plain, "no job of the event service"), (waiting, "no pilot has it, it is activated")):
        with pytest.raises(Conflict, match=says):
            orders.soft_kill(dispatcher.context, job, ANYBODY)


def test_the_legacy_names_order_about_jobs(client: FlaskClient) -> None:
    jobs = [{"queue": QUEUE, "command": "true", "label": "user"}] * 2
    made = client.post("/api/v1/job/submit_jobs", json={"jobs": jobs}).json["data"]
    first, second = (one["PandaID"] for one in made)
    got = client.post("/server/panda/getJob", data={"siteName": QUEUE, "prodSourceLabel": "user"})
    assert f"PandaID={first}" in got.text

    def call(name: str, **values: object) -> object:
        answer = client.post(f"/server/panda/{name}", data=values, headers={"Accept": "application/json"})
        return answer.json if answer.is_json else (answer.status_code, answer.text)

    assert call("set_debug_mode", job_id=first, mode="True")["StatusCode"] == 0  # type: ignore[index]
    assert call("setDebugMode", pandaID=first, modeOn="false") == (
        200, f"job {first}: debug mode off, its pilot is told at its next update",
    )  # fmt: skip
    assert call("set_command", job_id=first, command="ls -l") == {
        "StatusCode": 0, "message": f"job {first}: its pilot is told at its next update",
    }  # fmt: skip
    update = call("updateJob", jobId=first, state="running")
    assert update["command"] == "debug,ls -l"  # type: ignore[index]
    status, text = call("set_command", job_id=second, command="ls")  # type: ignore[misc]
    assert (status, text) == (400, f"ERROR : job {second}: no pilot has it, it is activated")
    assert call("softkill", job_id=first)[0] == 400  # type: ignore[index]
    assert call("killJobs", ids=json.dumps([first, second, 99]), code=3, useMailAsID="False") == [True, True, False]
    assert call("killJobs", ids=first, code=9) == [True]
    for bad in ("[]x", '["x"]', "{}", "[1.5]"):
        assert call("killJobs", ids=bad)[0] == 400  # type: ignore[index]
    options = {"job_ids": [second], "code": 51, "kill_options": ["keepUnmerged", "jobSubStatus=es_x"]}
    assert client.post("/api/v1/job/kill", json=options).json["data"] == [False]
    assert client.post("/api/v1/job/softkill", json={"job_id": first}).json["success"] is False
