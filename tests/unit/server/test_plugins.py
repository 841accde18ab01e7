"""Plugins of experiments: jobs that are prepared before they are queued, what is moved or merged after them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from server.db.files import JobFile
from server.logic import activation, finishing, queues, setupper, throttling, transfers
from server.logic.context import ANYBODY
from server.logic.errors import BadField
from server.logic.plugins import GenericAdder, JobRow, Preparation, plugins_of
from server.settings import ConfigurationError, Settings
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import Dispatcher, dispatcher_in, good_file

GUID = good_file()["guid"]


class Careful:
    """A setupper that does what the job's working group says."""

    def prepare(self, job: JobRow, inputs: Sequence[JobFile]) -> Preparation:
        wanted = str(job["workingGroup"] or "")
        if wanted == "crash":
            raise RuntimeError("the plugin is broken")
        if wanted == "move":
            return Preparation(moving=[file.lfn for file in inputs])
        return Preparation(
            wait="not yet" if wanted == "wait" else "", failure=wanted if wanted.startswith("no") else ""
        )


class Knowing(GenericAdder):
    """An adder that has all outputs moved, and knows from their names what becomes of them."""

    def destinations(self, job: JobRow, outputs: Sequence[JobFile]) -> Mapping[str, str]:
        if job["workingGroup"] == "crash":
            raise RuntimeError("the plugin is broken")
        return {file.lfn: "TAPE" for file in outputs}

    def arrived(self, job: JobRow, moving: Sequence[JobFile]) -> Mapping[str, bool]:
        if any(file.lfn == "crash" for file in moving):
            raise RuntimeError("the plugin is broken")
        return {file.lfn: file.lfn != "lost" for file in moving if file.lfn != "slow"}


@pytest.fixture
def planned(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[Dispatcher]:
    """A dispatcher with a setupper for one VO, an adder for another, and for the rest one that compares storages."""
    settings = {
        "setupper_plugins": f"careful:{__name__}:Careful",
        "adder_plugins": f"any:destination, knowing:{__name__}:Knowing",
    }
    with dispatcher_in(tmp_path, empty_database, **settings) as made:
        yield made


def prepare(dispatcher: Dispatcher) -> int:
    return setupper.prepare_jobs(dispatcher.context)


def given(lfn: str) -> dict[str, object]:
    return {"lfn": lfn, "endpoint": "FAR", "guid": GUID, "fsize": 5, "checksum": "ad:084b021f"}


def report(dispatcher: Dispatcher, lfn: str, arrived: bool, **more: str) -> int:
    told = transfers.read_reports([{"scope": "user.user", "lfn": lfn, "arrived": arrived, **more}])
    return transfers.report_transfers(dispatcher.context, told)


def outcome(dispatcher: Dispatcher, job: int) -> tuple[str, object, str]:
    found = dispatcher.job(job)
    return str(found["jobStatus"]), found["ddmErrorCode"], str(found["ddmErrorDiag"])


# ---- before


def test_a_job_is_pending_until_the_setupper_of_its_vo_has_prepared_it(planned: Dispatcher) -> None:
    job, plain = planned.submit({"vo": "careful", "max_attempts": 2}, {"vo": "another", "priority": 1})
    assert (planned.status(job), planned.status(plain)) == ("pending", "activated")
    assert planned.bell.rung == ["setupper"]
    assert planned.get_job()["PandaID"] == plain
    assert planned.no_job().reason == "nothing_queued"
    assert prepare(planned) == 1
    assert planned.states(job) == [(1, s) for s in ("pending", "defined", "assigned", "activated")]
    assert planned.get_job()["PandaID"] == job


def test_inputs_on_their_way_are_waited_for(planned: Dispatcher) -> None:
    wanted = {"vo": "careful", "workingGroup": "move", "inputs": [given("a"), given("b")]}
    (job,) = planned.submit(wanted)
    prepare(planned)
    assert planned.status(job) == "assigned"
    assert activation.settle_overdue(planned.context) == 0
    assert report(planned, "a", True, endpoint="NEAR") == 1
    assert planned.status(job) == "assigned"
    assert report(planned, "a", True) == 0  # repeated
    report(planned, "b", True)
    assert planned.get_job()["ddmEndPointIn"] == "NEAR,FAR"


def test_an_input_that_does_not_come_fails_its_job_and_says_why(planned: Dispatcher) -> None:
    (job,) = planned.submit({"vo": "careful", "workingGroup": "move", "inputs": [given("a")]})
    prepare(planned)
    report(planned, "a", False, reason="the tape is torn")
    status, code, text = outcome(planned, job)
    assert (status, code) == ("failed", 205)
    assert "user.user:a did not reach the storage of TEST_QUEUE: the tape is torn" in text


def test_a_setupper_may_wait_refuse_or_break_and_the_others_go_on(planned: Dispatcher) -> None:
    submitted = [{"vo": "careful", "workingGroup": word} for word in ("wait", "no such dataset", "crash", "")]
    waiting, refused, broken, good = planned.submit(*submitted)
    assert prepare(planned) == 2
    assert [planned.status(job) for job in (waiting, refused, broken, good)] == [
        "defined", "failed", "defined", "activated"
    ]  # fmt: skip
    assert outcome(planned, refused) == ("failed", 203, "no such dataset")
    assert prepare(planned) == 0
    planned.clock.now += 4 * 3600 + 1
    planned.watch()
    assert (planned.status(waiting), planned.status(broken)) == ("closed", "closed")


def test_a_prepared_job_still_waits_for_its_maker_and_a_lost_input_ends_it_before(planned: Dispatcher) -> None:
    make, use = planned.submit({"outputs": ["a"]}, {"vo": "careful", "inputs": ["a"]})
    prepare(planned)
    assert planned.status(use) == "assigned"
    (early,) = planned.submit({"vo": "careful", "inputs": ["a"]})
    planned.kill(make)
    assert (planned.status(use), planned.status(early)) == ("failed", "failed")
    assert prepare(planned) == 0


# ---- afterwards: transferring


def stored_at(endpoint: str, *names: str) -> str:
    return json.dumps({name: {**good_file(), "endpoint": endpoint} for name in names})


def run(dispatcher: Dispatcher, job: int, xml: str) -> None:
    assert dispatcher.get_job()["PandaID"] == job
    dispatcher.report(job, "running")
    dispatcher.report(job, "finished", xml=xml)
    dispatcher.add()


def to(endpoint: str, *names: str) -> list[dict[str, object]]:
    return [{"lfn": name, "endpoint": endpoint} for name in names]


def test_outputs_that_are_elsewhere_than_wanted_are_transferring_until_they_are_there(planned: Dispatcher) -> None:
    job, use = planned.submit({"outputs": to("TAPE", "a", "b")}, {"inputs": ["a"]})
    run(planned, job, stored_at("DISK", "a", "b"))
    assert (planned.status(job), planned.status(use)) == ("transferring", "assigned")
    assert {f["status"] for f in planned.files(job) if f["type"] == "output"} == {"moving"}
    for said in ("running", "transferring"):
        assert planned.report(job, said).command == ""
    for said in ("holding", "finished", "failed"):
        assert planned.report(job, said).command == "alreadydone"
    report(planned, "a", True)
    assert (planned.status(job), planned.status(use)) == ("transferring", "assigned")
    report(planned, "b", True)
    assert (planned.status(job), planned.status(use)) == ("finished", "activated")
    assert [f["endpoint"] for f in planned.files(job) if f["type"] == "output"] == ["TAPE", "TAPE"]
    assert planned.get_job()["ddmEndPointIn"] == "TAPE"
    assert report(planned, "a", False) == 0


def test_outputs_that_are_where_they_belong_are_finished_at_once(planned: Dispatcher) -> None:
    wanted, open_ended = planned.submit({"outputs": to("DISK", "a")}, {"outputs": ["b"], "priority": 1})
    run(planned, wanted, stored_at("DISK", "a"))
    run(planned, open_ended, stored_at("DISK", "b"))
    assert (planned.status(wanted), planned.status(open_ended)) == ("finished", "finished")


def test_an_output_that_does_not_arrive_fails_the_job_which_is_tried_again(planned: Dispatcher) -> None:
    job, use = planned.submit({"outputs": to("TAPE", "a", "b"), "max_attempts": 2}, {"inputs": ["a"]})
    for attempt in (1, 2):
        run(planned, job, stored_at("DISK", "a", "b"))
        report(planned, "a", True)
        report(planned, "b", False, reason="full")
        if attempt == 1:
            assert planned.status(job) == "activated"
            assert {f["status"] for f in planned.files(job) if f["type"] == "output"} == {"defined"}
    assert outcome(planned, job) == ("failed", 204, "output b did not reach TAPE: full")
    assert planned.status(use) == "failed"
    assert {f["status"] for f in planned.files(job) if f["type"] == "output"} == {"failed"}


def test_a_second_attempt_stores_and_moves_its_outputs_like_the_first(planned: Dispatcher) -> None:
    job, use = planned.submit({"outputs": to("TAPE", "a"), "max_attempts": 2}, {"inputs": ["a"]})
    run(planned, job, stored_at("DISK", "a"))
    report(planned, "a", False)
    assert planned.get_job()["ddmEndPointOut"] == "TAPE,DISK"
    planned.report(job, "finished", xml=stored_at("DISK2", "a"))
    planned.add()
    assert planned.status(job) == "transferring"
    report(planned, "a", True)
    assert (planned.status(job), planned.status(use)) == ("finished", "activated")


@pytest.mark.parametrize("task", [0, 7])
def test_outputs_that_never_arrived_are_made_and_moved_again(planned: Dispatcher, task: int) -> None:
    (job,) = planned.submit({"outputs": to("TAPE", "a"), "max_attempts": 2, "taskID": task})
    run(planned, job, stored_at("DISK", "a"))
    planned.clock.now += 4 * 86400 + 1
    planned.watch()
    again = int(str(planned.get_job()["PandaID"]))
    assert (again == job) == (not task)
    planned.report(again, "finished", xml=stored_at("DISK", "a"))
    planned.add()
    assert planned.status(again) == "transferring"
    planned.kill(again)
    assert {f["status"] for f in planned.files(again) if f["type"] == "output"} == {"failed"}


def test_an_adder_may_know_by_itself_what_has_arrived(planned: Dispatcher) -> None:
    names = ("quick", "slow", "lost", "crash")
    made = planned.submit(*({"vo": "knowing", "outputs": [name], "priority": 9 - n} for n, name in enumerate(names)))
    for job, name in zip(made, names, strict=True):
        run(planned, job, stored_at("DISK", name))
    assert finishing.finish_jobs(planned.context) == 4
    assert [planned.status(job) for job in made] == ["finished", "transferring", "failed", "transferring"]
    assert "lost did not reach TAPE" in outcome(planned, made[2])[2]


def test_an_adder_that_breaks_leaves_outputs_where_they_are(planned: Dispatcher) -> None:
    (job,) = planned.submit({"vo": "knowing", "workingGroup": "crash", "outputs": ["a"]})
    run(planned, job, stored_at("DISK", "a"))
    assert planned.status(job) == "finished"


def test_a_job_whose_outputs_are_on_their_way_can_be_cancelled_and_gets_no_orders(planned: Dispatcher) -> None:
    job, use = planned.submit({"outputs": to("TAPE", "a")}, {"inputs": ["a"]})
    run(planned, job, stored_at("DISK", "a"))
    (result,) = planned.kill(job)
    assert result.killed
    assert (planned.status(job), planned.status(use)) == ("cancelled", "failed")
    report(planned, "a", True)
    assert planned.status(job) == "cancelled"


@pytest.mark.parametrize(
    "content",
    [["a"], [{"scope": "s", "lfn": "a"}], [{"scope": "s", "lfn": "../a", "arrived": True}],
     [{"scope": "s", "lfn": "a", "arrived": "yes"}], [{"scope": "s", "lfn": "a", "arrived": True, "reason": "\x00"}]],
)  # fmt: skip
def test_a_report_that_is_none_is_refused(content: list[object]) -> None:
    with pytest.raises(BadField):
        transfers.read_reports(content)


# ---- afterwards: merging


def test_a_job_whose_outputs_are_to_be_merged_is_finished_when_all_of_them_are(dispatcher: Dispatcher) -> None:
    names = ("panda.um.a", "panda.um.b")
    (job,) = dispatcher.submit({"outputs": [*names]})
    run(dispatcher, job, stored_at("DISK", *names))
    assert dispatcher.status(job) == "merging"
    for said in ("running", "finished"):
        dispatcher.report(job, said)
    assert dispatcher.status(job) == "merging"
    reader, first, second = dispatcher.submit(
        {"inputs": [names[0]], "priority": 9},
        {"inputs": [names[0]], "outputs": ["a"], "processingType": "pmerge", "priority": 8},
        {"inputs": [names[1]], "outputs": ["b"], "processingType": "pmerge", "priority": 7, "max_attempts": 2},
    )
    run(dispatcher, reader, "{}")
    run(dispatcher, first, stored_at("DISK", "a"))
    assert dispatcher.status(job) == "merging"
    dispatcher.get_job()
    dispatcher.fail(second)
    assert dispatcher.status(job) == "merging"
    run(dispatcher, second, stored_at("DISK", "b"))
    assert dispatcher.states(job)[-2:] == [(1, "merging"), (1, "finished")]
    history = dispatcher.job(job)["history"]
    assert isinstance(history, list)
    assert f"job {second}" in history[-1]["reason"]


def test_a_merging_job_can_be_cancelled(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"outputs": ["panda.um.a"]})
    run(dispatcher, job, stored_at("DISK", "panda.um.a"))
    assert dispatcher.kill(job)[0].killed
    assert dispatcher.status(job) == "cancelled"


# ---- throttled


def test_the_jobs_of_a_task_are_throttled_and_released(dispatcher: Dispatcher) -> None:
    context = dispatcher.context
    make, queued, waiting, other = dispatcher.submit(
        {"taskID": 8, "outputs": ["a"]}, {"taskID": 7}, {"taskID": 7, "inputs": ["a"]}, {"taskID": 9, "priority": 1}
    )
    assert throttling.throttle_task(context, 7, "too many", ANYBODY) == 2
    assert [dispatcher.status(job) for job in (queued, waiting)] == ["throttled", "throttled"]
    assert [dispatcher.get_job()["PandaID"] for _ in range(2)] == [make, other]
    assert dispatcher.no_job().reason == "nothing_queued"
    dispatcher.finish(make)
    assert throttling.release_task(context, 7, ANYBODY) == 2
    assert {dispatcher.get_job()["PandaID"] for _ in range(2)} == {queued, waiting}
    assert dispatcher.states(queued)[1:4] == [(1, "activated"), (1, "throttled"), (1, "assigned")]
    with pytest.raises(BadField):
        throttling.throttle_task(context, 0, "x", ANYBODY)


def test_a_throttled_job_whose_input_is_lost_has_failed(dispatcher: Dispatcher) -> None:
    make, use = dispatcher.submit({"outputs": ["a"]}, {"taskID": 7, "inputs": ["a"]})
    throttling.throttle_task(dispatcher.context, 7, "x", ANYBODY)
    dispatcher.kill(make)
    assert dispatcher.status(use) == "failed"


# ---- settings


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("any", "must be VO:NAME or VO:module:Class"),
        ("any:nothing", "does not exist; there are generic, destination, and module:Class"),
        ("any:no.such.module:X", "cannot be loaded: No module named"),
        ("any:json:NoSuchClass", "cannot be loaded"),
        ("any:json:dumps", "is not a class"),
    ],
)
def test_a_plugin_that_is_not_there_is_named_with_those_that_are(written: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match="PILOTKIT_ADDER_PLUGINS") as caught:
        plugins_of(Settings(adder_plugins=written))
    assert says in str(caught.value)


def test_a_queue_of_another_kind_changes_nothing_for_plain_jobs(dispatcher: Dispatcher) -> None:
    queues.add_queues(dispatcher.context, {"Q": {}})
    (job,) = dispatcher.submit({"queue": "Q"})
    assert (dispatcher.status(job), dispatcher.bell.rung) == ("activated", [])
