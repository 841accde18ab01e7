"""Handing out jobs: order, claims, request ids, and the reason when there is nothing."""

from __future__ import annotations

import datetime

import pytest
from sqlalchemy import Select, literal

from server.db import dispatch as classes
from server.db.tables import jobs
from server.logic import dispatch, queues
from server.logic.context import Identity, Role
from server.logic.dispatch import LATER, SOON
from server.logic.matching import JobRequest
from tests.unit.server.dispatcher import QUEUE, START, Dispatcher

#: Keys an existing pilot may rely on (wire.md section 4).
ALWAYS = [
    "StatusCode",
    "PandaID",
    "prodSourceLabel",
    "swRelease",
    "homepackage",
    "transformation",
    "jobName",
    "jobDefinitionID",
    "cloud",
    "inFiles",
    "dispatchDblock",
    "dispatchDBlockToken",
    "dispatchDBlockTokenForOut",
    "outFiles",
    "destinationDblock",
    "destinationDBlockToken",
    "prodDBlocks",
    "prodDBlockToken",
    "realDatasets",
    "realDatasetsIn",
    "fileDestinationSE",
    "logFile",
    "logGUID",
    "jobPars",
    "attemptNr",
    "GUID",
    "checksum",
    "fsize",
    "scopeIn",
    "scopeOut",
    "scopeLog",
    "ddmEndPointIn",
    "ddmEndPointOut",
    "destinationSE",
    "prodUserID",
    "maxCpuCount",
    "minRamCount",
    "maxDiskCount",
    "cmtConfig",
    "processingType",
    "transferType",
    "sourceSite",
    "currentPriority",
    "taskID",
    "coreCount",
    "jobsetID",
    "reqID",
    "nucleus",
    "maxWalltime",
    "resource_type",
    "ioIntensity",
    "ioIntensityUnit",
    "nSent",
]


def test_each_job_comes_with_its_own_definition(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"command": "echo one"}, {"command": "echo two"})
    parameters = [str(dispatcher.get_job()["jobPars"]) for _ in range(2)]
    assert ["one" in parameters[0], "two" in parameters[1]] == [True, True]


def test_a_definition_has_every_key_pilots_know_and_no_value_is_missing(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"outputs": ["a", "b"]})
    job = dispatcher.get_job()
    assert not set(ALWAYS) - job.keys()
    assert None not in job.values()
    assert isinstance(job["PandaID"], int)
    assert isinstance(job["attemptNr"], int)
    assert (job["StatusCode"], job["coreCount"]) == (0, 1)


def test_lists_of_outputs_include_the_log_except_for_its_scope(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"outputs": ["a", "b"]})
    job = dispatcher.get_job()
    for key in ("outFiles", "realDatasets", "ddmEndPointOut", "destinationDblock", "destinationDBlockToken"):
        assert str(job[key]).count(",") == 2, key
    assert job["scopeOut"] == "user.user,user.user"
    assert job["ddmEndPointOut"] == "DISK,DISK,DISK"


def test_priority_comes_first_then_age(dispatcher: Dispatcher) -> None:
    low, high, also = dispatcher.submit({"priority": 1}, {"priority": 500, "memory": 5}, {"priority": 500})
    assert [dispatcher.get_job()["PandaID"] for _ in range(3)] == [high, also, low]


def test_the_best_job_that_fits_is_found_behind_better_ones_that_do_not(dispatcher: Dispatcher) -> None:
    dispatcher.submit(*[{"priority": 1000 + i, "memory": 8000 + i} for i in range(50)])
    (small,) = dispatcher.submit({"priority": 1, "memory": 1000})
    assert dispatcher.get_job(memory=2000)["PandaID"] == small


def test_a_claim_says_what_happens_next(dispatcher: Dispatcher) -> None:
    dispatcher.submit({})
    job = dispatcher.get_job()
    assert job["next_heartbeat"] == 1800
    assert datetime.datetime.fromisoformat(str(job["lease_end"])).timestamp() == START + 7200
    assert len(str(job["claim_id"])) == 32
    assert dispatcher.states(int(str(job["PandaID"])))[-1] == (1, "sent")


def test_a_request_id_gets_the_same_jobs_again_as_long_as_they_are_claimed(dispatcher: Dispatcher) -> None:
    dispatcher.submit({}, {}, {})
    first = dispatcher.ask(request_id="r1", number=2)
    assert dispatcher.ask(request_id="r1", number=2) == first
    assert dispatcher.get_job(request_id="r2")["PandaID"] == 3
    dispatcher.report(1, "running")
    assert [job["PandaID"] for job in dispatcher.ask(request_id="r1")] == [1, 2]  # type: ignore[union-attr]


def test_a_request_id_whose_job_is_over_asks_anew(dispatcher: Dispatcher) -> None:
    dispatcher.submit({}, {})
    assert dispatcher.get_job(request_id="r1")["PandaID"] == 1
    dispatcher.finish(1)
    assert dispatcher.get_job(request_id="r1")["PandaID"] == 2


def test_several_jobs_are_given_when_asked_for_but_not_more_than_there_are(dispatcher: Dispatcher) -> None:
    dispatcher.submit({}, {"memory": 1}, {})
    found = dispatcher.ask(number=10)
    assert [job["PandaID"] for job in found] == [1, 2, 3]  # type: ignore[union-attr]
    assert len({job["claim_id"] for job in found}) == 3  # type: ignore[union-attr]


def test_a_pilot_may_ask_for_one_task_or_one_user(dispatcher: Dispatcher) -> None:
    a, b, c = dispatcher.submit({"user": "a"}, {"taskID": 7}, {"user": "b", "taskID": 7})
    assert dispatcher.no_job(task_id=8).reason == "task"
    assert dispatcher.no_job(user="c").reason == "user"
    assert dispatcher.get_job(user="b", task_id=7)["PandaID"] == c
    assert dispatcher.get_job(task_id=7)["PandaID"] == b
    assert dispatcher.get_job(user="a")["PandaID"] == a


@pytest.mark.parametrize(
    ("job", "request_", "reason"),
    [
        ({"memory": 4000}, {"memory": 2000}, "memory"),
        ({"disk": 4000}, {"disk": 2000}, "disk"),
        ({"walltime": 4000}, {"remaining_time": 2000}, "time"),
        ({"cores": 8}, {"cores": 4}, "cores"),
        ({"label": "managed"}, {}, "label"),
        ({"cores": 8}, {"resource_type": "SCORE"}, "resource_type"),
    ],
)
def test_an_empty_answer_says_why_and_when_to_come_back(
    dispatcher: Dispatcher, job: dict[str, object], request_: dict[str, object], reason: str
) -> None:
    dispatcher.submit(job)
    answer = dispatcher.no_job(**request_)
    assert (answer.reason, answer.retry_after) == (reason, 60)
    assert answer.sentence


def test_an_empty_queue_says_so(dispatcher: Dispatcher) -> None:
    assert dispatcher.no_job().reason == "nothing_queued"


def test_jobs_that_wait_for_inputs_are_worth_asking_again_soon(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"inputs": ["not.yet"]})
    answer = dispatcher.no_job()
    assert (answer.reason, answer.retry_after) == ("waiting_for_inputs", SOON)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "offline"}, "queue_offline"),
        ({"status": "paused"}, "queue_paused"),
        ({"state": "DISABLED"}, "queue_inactive"),
    ],
)
def test_a_closed_queue_gives_nothing_and_says_so(
    dispatcher: Dispatcher, changes: dict[str, object], reason: str
) -> None:
    dispatcher.submit({})
    queues.change_queue(dispatcher.context, QUEUE, changes)
    answer = dispatcher.no_job()
    assert (answer.reason, answer.retry_after) == (reason, LATER)
    queues.change_queue(dispatcher.context, QUEUE, {"status": "brokeroff", "state": "ACTIVE"})
    assert dispatcher.get_job()["PandaID"] == 1


def test_a_queue_in_test_gives_tests_only(dispatcher: Dispatcher) -> None:
    user, test = dispatcher.submit({}, {"label": "test"})
    queues.change_queue(dispatcher.context, QUEUE, {"status": "test"})
    assert dispatcher.get_job()["PandaID"] == test
    assert dispatcher.no_job().reason == "label"
    assert dispatcher.status(user) == "activated"


def test_an_unknown_queue_is_named(dispatcher: Dispatcher) -> None:
    answer = dispatcher.no_job(queue="NOWHERE")
    assert answer.reason == "queue_unknown"
    assert "NOWHERE" in answer.sentence


def test_a_queue_may_have_its_own_heartbeat_and_lease(dispatcher: Dispatcher) -> None:
    queues.change_queue(dispatcher.context, QUEUE, {"heartbeat": 60, "lost_heartbeat": 300})
    dispatcher.submit({})
    job = dispatcher.get_job()
    assert job["next_heartbeat"] == 60
    assert datetime.datetime.fromisoformat(str(job["lease_end"])).timestamp() == START + 300


def test_the_configuration_table_may_set_the_lease_of_a_workflow_in_hours(dispatcher: Dispatcher) -> None:
    queues.change_queue(dispatcher.context, QUEUE, {"workflow": "slow"})
    with dispatcher.context.database.durable() as connection:
        connection.exec_driver_sql(
            "INSERT INTO config (application, component, key, vo, value, type) "
            "VALUES ('pandaserver', 'watcher', 'HEARTBEAT_TIMEOUT_slow', '', '10', 'int')"
        )
    dispatcher.submit({})
    lease_end = str(dispatcher.get_job()["lease_end"])
    assert datetime.datetime.fromisoformat(lease_end).timestamp() == START + 36000


def test_the_claims_owner_is_the_token_that_took_it(dispatcher: Dispatcher) -> None:
    dispatcher.submit({})
    mine, other = (Identity(name, frozenset({Role.PILOT})) for name in ("site-a", "site-b"))
    dispatch.acquire_jobs(dispatcher.context, JobRequest(queue=QUEUE, label="user"), mine, "http://s")
    assert dispatcher.report(1, "running", identity=other).command == "tobekilled"
    assert dispatcher.report(1, "running", identity=mine).command == ""
    assert dispatcher.report(1, "running", identity=Identity("root", frozenset({Role.OPERATOR}))).command == ""


@pytest.mark.parametrize(
    ("statement", "indexes"),
    [
        (classes._FIND_HEADS[False, False], {"job_classes_once", "jobs_by_class"}),
        (classes._FIND_HEADS[True, False].params(task_id=1), {"job_classes_once", "jobs_by_task"}),
        (classes._FIND_HEADS[False, True].params(user="x"), {"job_classes_once", "jobs_by_user"}),
        (classes._FIND_FIRST_HEADS.params(share0="a", share1="b"), {"job_classes_once", "jobs_by_class"}),
        (classes._best_of_class(literal(1), lock=False).element, {"jobs_by_class"}),
        (classes._best_of_class(literal(1), jobs.c.currentPriority == 7, lock=False).element, {"jobs_by_class"}),
        (classes._LAST_OF_CLASS.params(class_id=1, limit=9), {"jobs_by_class"}),
        (classes._FIND_OLDEST, {"jobs_by_"}),  # PostgreSQL takes that of states, too, where there are no jobs
    ],
)
def test_dispatch_reads_indexes_and_never_sorts_the_queue(
    dispatcher: Dispatcher, statement: Select[tuple[object, ...]], indexes: set[str]
) -> None:
    statement = statement.params(queue=QUEUE)
    with dispatcher.context.database.reading() as connection:
        literal = statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
        if connection.dialect.name == "sqlite":
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {literal}").fetchall()
            text = "\n".join(str(row[3]) for row in rows)
            never = ("SCAN", "TEMP B-TREE")
        else:  # its tables are empty, where reading all of nothing is cheapest: is there a way without that?
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            rows = connection.exec_driver_sql(f"EXPLAIN {literal}").fetchall()
            text = "\n".join(str(row[0]) for row in rows)
            never = ("Seq Scan", "Sort")
    assert not [index for index in indexes if index not in text], text
    assert not [word for word in never if word in text], text


def test_classes_nobody_uses_are_removed_and_made_again_when_needed(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"memory": 1}, {"memory": 2})
    dispatcher.get_job()
    dispatcher.clock.now += 100_000
    with dispatcher.context.database.durable() as connection:
        assert classes.remove_unused_classes(connection, dispatcher.clock.now - 86400) == 1
    dispatcher.submit({"memory": 1})
    assert len(dispatcher.ask(number=5)) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("job", "request_", "reason"),
    [
        ({"countryGroup": "de"}, {"countries": frozenset({"us", "ca"})}, "country_group"),
        ({}, {"countries": frozenset({"us"})}, "country_group"),
        ({"workingGroup": "AP_A"}, {"working_groups": frozenset({"AP_B"})}, "working_group"),
    ],
)
def test_a_pilot_for_a_group_gets_its_jobs_alone(
    dispatcher: Dispatcher, job: dict[str, object], request_: dict[str, object], reason: str
) -> None:
    dispatcher.submit(job)
    answer = dispatcher.no_job(**request_)
    assert (answer.reason, answer.retry_after) == (reason, 60)
    (own,) = dispatcher.submit({"countryGroup": "us", "workingGroup": "AP_B"})
    assert dispatcher.get_job(**request_)["PandaID"] == own
    assert dispatcher.get_job()["PandaID"] == own - 1


def test_with_allow_other_country_a_countrys_jobs_come_first_and_others_follow(dispatcher: Dispatcher) -> None:
    urgent, own = dispatcher.submit({"priority": 9000, "countryGroup": "de"}, {"priority": 1, "countryGroup": "us"})
    pilot = {"countries": frozenset({"us"}), "allow_other_country": True}
    assert dispatcher.get_job(**pilot)["PandaID"] == own
    assert dispatcher.get_job(**pilot)["PandaID"] == urgent


def test_a_pilot_is_kept_on_the_task_or_user_it_prefers_where_nothing_else_is_against_it(
    dispatcher: Dispatcher,
) -> None:
    first, of_task, of_user, urgent = dispatcher.submit({}, {"taskID": 7}, {"user": "jdoe"}, {"priority": 2000})
    pilot = {"prefer_task": 7, "prefer_user": "jdoe"}
    expected = [urgent, of_task, of_user, first]
    assert [dispatcher.get_job(**pilot)["PandaID"] for _ in expected] == expected
    assert dispatcher.no_job(**pilot).reason == "nothing_queued"
