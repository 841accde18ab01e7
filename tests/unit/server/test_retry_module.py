"""The retry module: rules by error decide on the next attempt (chapter 20), and jobs of tasks get a new PandaID."""

from __future__ import annotations

import json

import pytest

from server.db.retries import Rule
from server.logic import queues, retryrules
from server.logic.context import ANYBODY
from server.logic.errors import BadField, NotFound
from server.logic.retries import Failure, Needs, changed_needs, choose, may_retry
from tests.unit.server.dispatcher import QUEUE, Dispatcher, good_file


def rule(**given: object) -> Rule:
    usual: dict[str, object] = {
        "ruleID": 1, "action": "no_retry", "errorSource": "pilot", "errorCode": 1305, "errorDiag": "", "active": True,
        "parameters": {}, "architecture": "", "release": "", "workQueue": "", "VO": "", "description": None,
        "creator": "x", "modificationTime": 0.0,
    }  # fmt: skip
    return Rule(**{**usual, **given})  # type: ignore[arg-type]


FAILURE = Failure({"pilot": (1305, "it broke:\nno such dataset"), "exe": (7, "x")}, "x86", "23.0.1", "user", "atlas")


@pytest.mark.parametrize(
    ("given", "applies"),
    [
        ({}, True),
        ({"errorCode": 1306}, False),
        ({"errorSource": "exe"}, False),
        ({"errorSource": "exe", "errorCode": 7}, True),
        ({"errorSource": "ddm", "errorCode": 0}, False),
        ({"errorDiag": "it broke"}, True),
        ({"errorDiag": "broke"}, False),  # anchored at the beginning
        ({"errorDiag": ".*dataset"}, True),  # the dot takes newlines
        ({"errorDiag": "it broke$"}, False),
        ({"architecture": "x86"}, True),
        ({"architecture": "arm"}, False),
        ({"release": "23.0.1"}, True),
        ({"release": "24"}, False),
        ({"workQueue": "managed"}, False),
        ({"VO": "atlas"}, True),
        ({"VO": "cms"}, False),
    ],
)
def test_a_rule_applies_to_its_source_code_text_and_scope(given: dict[str, object], applies: bool) -> None:
    found, passive = choose([rule(**given)], FAILURE)
    assert ((found is not None), passive) == (applies, [])


def test_a_pilots_negative_code_is_the_same_error() -> None:
    assert choose([rule()], Failure({"pilot": (-1305, "")}))[0] is not None


def test_the_narrowest_rule_wins_then_the_most_drastic_then_the_smallest_limit() -> None:
    limits = [
        rule(ruleID=number, action="limit_retry", parameters={"maxAttempt": most})
        for number, most in ((1, 5), (2, 3), (3, 4))
    ]
    wide, narrow = rule(ruleID=4), rule(ruleID=5, action="increase_memory", VO="atlas")
    passive = rule(ruleID=6, VO="atlas", release="23.0.1", active=False)
    assert choose(limits, FAILURE)[0] == limits[1]
    assert choose([*limits, wide], FAILURE)[0] == wide
    assert choose([*limits, wide, narrow, passive], FAILURE) == (narrow, [passive])


def test_what_rules_allow_and_change() -> None:
    limit = rule(action="limit_retry", parameters={"maxAttempt": 2})
    assert [may_retry(limit, failed) for failed in (1, 2)] == [True, False]
    assert may_retry(None, 40)
    needs, most = Needs(4, 8000, 3600), Needs(0, 0, 0)

    def after(action: str, most: Needs = most, peak: int = 0, **parameters: float) -> Needs:
        one = rule(action=action, parameters=parameters)
        return changed_needs(one, needs, peak_memory=peak, duration=7200, most=most)

    assert after("increase_memory").memory == 12_000
    assert after("increase_memory", step=500).memory == 10_000
    assert after("increase_memory", peak=9000, step=500).memory == 11_000
    assert after("increase_memory_xtimes", factor=2).memory == 16_000
    assert after("increase_memory_xtimes", Needs(0, 10_000, 0), factor=2).memory == 10_000
    assert after("increase_memory_xtimes", Needs(0, 4000, 0), factor=2) == needs
    assert after("increase_cputime").walltime == 10_800
    assert after("increase_cputime", Needs(0, 0, 9000)).walltime == 9000
    assert after("reduce_input_per_job") == after("no_retry") == needs


# ---- through the dispatcher


def add(dispatcher: Dispatcher, action: str, source: str = "pilot", code: int = 1305, **given: object) -> int:
    wanted = {"action": action, "errorSource": source, "errorCode": code, **given}
    return int(str(retryrules.add_rule(dispatcher.context, wanted, ANYBODY)["ruleID"]))


def said(dispatcher: Dispatcher, job: int) -> list[str]:
    history = dispatcher.job(job)["history"]
    assert isinstance(history, list)
    return [change["reason"] for change in history if change["actor"] == "retry module"]


def fail_once(dispatcher: Dispatcher, job: int, **values: object) -> None:
    assert dispatcher.get_job(label="unified")["PandaID"] == job
    dispatcher.report(job, "running")
    dispatcher.clock.now += 100
    dispatcher.fail(job, **{"pilotErrorDiag": "no such dataset", **values})  # type: ignore[arg-type]


def test_a_hopeless_error_is_not_tried_again_and_the_history_says_why(dispatcher: Dispatcher) -> None:
    number = add(dispatcher, "no_retry", errorDiag="no such")
    job, other = dispatcher.submit({"max_attempts": 5}, {"max_attempts": 5, "priority": 1})
    fail_once(dispatcher, job)
    assert dispatcher.status(job) == "failed"
    assert said(dispatcher, job) == [f"rule {number} (no_retry) applies: the job is not tried again"]
    fail_once(dispatcher, other, pilotErrorDiag="another")
    assert (dispatcher.status(other), said(dispatcher, other)) == ("activated", [])


def test_a_limit_counts_the_attempts_that_failed(dispatcher: Dispatcher) -> None:
    add(dispatcher, "limit_retry", parameters={"maxAttempt": 2})
    (job,) = dispatcher.submit({"max_attempts": 5})
    fail_once(dispatcher, job)
    assert dispatcher.status(job) == "activated"
    fail_once(dispatcher, job)
    assert dispatcher.status(job) == "failed"


def test_the_next_attempt_gets_more_memory_up_to_what_the_queue_has(dispatcher: Dispatcher) -> None:
    queues.change_queue(dispatcher.context, QUEUE, {"maxrss": 4500})
    add(dispatcher, "increase_memory", source="pilot", code=1235, parameters={"step": 1500})
    (job,) = dispatcher.submit({"max_attempts": 5, "memory": 1000})
    memory, kinds = [], []
    for _ in range(4):
        fail_once(dispatcher, job, code=1235, maxPSS=1_600_000 if not memory else 1000)
        memory.append(dispatcher.job(job)["minRamCount"])
        kinds.append(dispatcher.job(job)["resource_type"])
    assert memory == [3062, 4500, 4500, 4500]
    assert kinds == ["SCORE_HIMEM"] * 4
    assert "asks for 3062 MB of memory instead of 1000" in said(dispatcher, job)[0]
    assert "nothing, since the queue has no more" in said(dispatcher, job)[2]
    assert dispatcher.no_job(memory=4000).reason == "memory"
    assert dispatcher.get_job(memory=4500)["PandaID"] == job


def test_the_next_attempt_gets_more_time(dispatcher: Dispatcher) -> None:
    add(dispatcher, "increase_cputime", code=1201, parameters={"factor": 3})
    (job,) = dispatcher.submit({"max_attempts": 3, "walltime": 60})
    fail_once(dispatcher, job, code=1201)
    assert dispatcher.job(job)["maxWalltime"] == 300


def test_a_passive_rule_only_says_what_it_would_do_until_it_is_activated(dispatcher: Dispatcher) -> None:
    number = add(dispatcher, "no_retry", source="trans", code=5, active=False)
    (job,) = dispatcher.submit({"max_attempts": 5})
    fail_once(dispatcher, job, transExitCode=5)
    assert dispatcher.status(job) == "activated"
    assert said(dispatcher, job) == [f"rule {number} (no_retry) is passive and would apply: the job is not tried again"]
    retryrules.set_active(dispatcher.context, number, True)
    fail_once(dispatcher, job, transExitCode=5)
    assert dispatcher.status(job) == "failed"


def test_what_the_dispatcher_itself_decided_is_an_error_too(dispatcher: Dispatcher) -> None:
    add(dispatcher, "no_retry", source="jobDispatcher", code=100)
    (job,) = dispatcher.submit({"max_attempts": 5})
    dispatcher.get_job()
    dispatcher.report(job, "running")
    dispatcher.clock.now += 7201
    dispatcher.watch()
    assert dispatcher.status(job) == "failed"


def test_fewer_inputs_are_a_matter_of_those_who_make_jobs(dispatcher: Dispatcher) -> None:
    add(dispatcher, "reduce_input_per_job")
    (job,) = dispatcher.submit({"max_attempts": 2})
    fail_once(dispatcher, job)
    assert dispatcher.status(job) == "activated"
    assert "should give them fewer inputs" in said(dispatcher, job)[0]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"action": "pray"}, "action"),
        ({"errorSource": "moon"}, "errorSource"),
        ({"errorCode": 0}, "errorCode"),
        ({"errorCode": 2**31}, "errorCode"),
        ({"errorDiag": "("}, "errorDiag"),
        ({"errorDiag": "x" * 257}, "errorDiag"),
        ({"release": "a\x00"}, "release"),
        ({"parameters": {"maxAttempt": 3}}, "parameters"),
        ({"action": "limit_retry"}, "parameters"),
        ({"action": "limit_retry", "parameters": {"maxAttempt": 0}}, "parameters"),
        ({"action": "limit_retry", "parameters": {"maxAttempt": "3"}}, "parameters"),
        ({"action": "increase_memory", "parameters": {"factor": 2}}, "parameters"),
        ({"parameters": [1]}, "parameters"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(dispatcher: Dispatcher, given: dict[str, object], field: str) -> None:
    usual = {"action": "no_retry", "errorSource": "pilot", "errorCode": 1}
    with pytest.raises(BadField) as caught:
        retryrules.add_rule(dispatcher.context, {**usual, **given}, ANYBODY)
    assert caught.value.field == field
    assert retryrules.list_rules(dispatcher.context) == []


def test_rules_are_listed_and_removed(dispatcher: Dispatcher) -> None:
    number = add(dispatcher, "no_retry", source="payload", code=-7)
    (found,) = retryrules.list_rules(dispatcher.context)
    assert (found["ruleID"], found["errorSource"], found["errorCode"]) == (number, "exe", 7)
    retryrules.remove_rule(dispatcher.context, number)
    assert retryrules.list_rules(dispatcher.context) == []
    for call in (
        lambda: retryrules.remove_rule(dispatcher.context, number),
        lambda: retryrules.set_active(dispatcher.context, number, True),
    ):
        with pytest.raises(NotFound, match=f"no retry rule {number}"):
            call()


# ---- jobs of tasks


def test_the_next_attempt_of_a_tasks_job_is_a_new_job_with_all_it_has_promised(dispatcher: Dispatcher) -> None:
    old, use = dispatcher.submit(
        {"max_attempts": 3, "taskID": 7, "outputs": ["a"], "logFile": "x.log"}, {"inputs": ["a"]}
    )
    first = dispatcher.get_job()
    dispatcher.report(old, "running", claim_id=first["claim_id"])
    dispatcher.clock.now += 7300
    dispatcher.watch()
    found = dispatcher.job(old)
    assert (found["jobStatus"], found["jobDispatcherErrorCode"]) == ("failed", 100)
    assert isinstance(found["children"], list)
    (child,) = found["children"]
    new = child["PandaID"]
    assert child == {"PandaID": new, "kind": "retry"}
    assert dispatcher.job(new)["parents"] == [{"PandaID": old, "kind": "retry"}]
    assert dispatcher.states(new) == [(2, "defined"), (2, "activated")]
    assert (dispatcher.status(use), dispatcher.job(new)["jobDispatcherErrorCode"]) == ("assigned", 0)

    second = dispatcher.get_job()
    assert (second["PandaID"], second["attemptNr"], second["taskID"]) == (new, 2, 7)
    assert second["outFiles"] == "a,x.log.2"
    for key in ("jobPars", "transformation", "inFiles", "scopeOut", "jobName"):
        assert second[key] == first[key]
    assert dispatcher.report(old, "finished", xml="{}").command == "tobekilled"

    dispatcher.report(new, "running")
    dispatcher.report(new, "failed", pilotErrorCode=1305)
    dispatcher.add()
    third = dispatcher.get_job()
    assert (third["attemptNr"], third["outFiles"]) == (3, "a,x.log.3")
    last = int(str(third["PandaID"]))
    dispatcher.report(last, "running")
    dispatcher.report(last, "finished", xml=json.dumps({"a": good_file(), "x.log.3": good_file()}))
    dispatcher.add()
    assert [dispatcher.status(job) for job in (old, new, last, use)] == ["failed", "failed", "finished", "activated"]
    assert [(f["lfn"], f["status"]) for f in dispatcher.files(new)] == [("a", "failed"), ("x.log.2", "failed")]


def test_the_last_attempt_of_a_tasks_job_breaks_its_promises(dispatcher: Dispatcher) -> None:
    old, use = dispatcher.submit({"max_attempts": 2, "taskID": 7, "outputs": ["a"]}, {"inputs": ["a"]})
    fail_once(dispatcher, old)
    new = int(str(dispatcher.get_job()["PandaID"]))
    assert (new != old, dispatcher.status(use)) == (True, "assigned")
    dispatcher.fail(new)
    assert (dispatcher.status(new), dispatcher.status(use)) == ("failed", "failed")
    assert dispatcher.job(new)["children"] == []


def test_events_of_a_tasks_job_go_to_its_next_attempt(dispatcher: Dispatcher) -> None:
    (old,) = dispatcher.submit({"max_attempts": 2, "taskID": 7, "events": {"number": 10, "per_range": 5}})
    fail_once(dispatcher, old)
    (child,) = dispatcher.job(old)["children"]  # type: ignore[misc]
    assert dispatcher.job(child["PandaID"])["events"] == {"ready": 2}
