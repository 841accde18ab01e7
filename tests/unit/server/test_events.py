"""Event ranges: given out once, updated by whoever has them, and free again when that attempt ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from flask.testing import FlaskClient

from server.logic import events
from server.logic.context import ANYBODY, Identity, Role
from server.logic.errors import BadField, BadJob
from server.logic.events import RangeReport
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE, Dispatcher
from tests.unit.server.test_routes import client_of, submit

TEN = {"number": 10, "per_range": 3}


def taken(dispatcher: Dispatcher, job: dict[str, object], number: int = 100, **how: object) -> list[dict[str, object]]:
    claim = str(how.get("claim", job["claim_id"]))
    identity = how.get("identity", ANYBODY)
    assert isinstance(identity, Identity)
    return events.acquire_ranges(dispatcher.context, int(str(job["PandaID"])), number, claim, identity)


def told(
    dispatcher: Dispatcher, job: dict[str, object], status: str, *ranges: dict[str, object], claim: str = ""
) -> list[bool | None]:
    reports = [RangeReport(str(one["eventRangeID"]), status) for one in ranges]
    answers = events.update_ranges(dispatcher.context, reports, claim or str(job["claim_id"]), ANYBODY)
    return answers.taken


def counts(dispatcher: Dispatcher, job: dict[str, object]) -> dict[str, int]:
    return events.count_ranges(dispatcher.context, int(str(job["PandaID"])))


def running(dispatcher: Dispatcher, **job: object) -> dict[str, object]:
    """A job with ten events that a pilot runs."""
    dispatcher.submit({"events": TEN, **job})
    got = dispatcher.get_job()
    dispatcher.report(int(str(got["PandaID"])), "running")
    return got


def test_a_job_brings_its_ranges_and_they_are_given_out_once(dispatcher: Dispatcher) -> None:
    job = running(dispatcher)
    assert job["eventService"] == "True"
    first, rest = taken(dispatcher, job, 1), taken(dispatcher, job)
    cuts = [(one["startEvent"], one["lastEvent"]) for one in first + rest]
    assert cuts == [(1, 3), (4, 6), (7, 9), (10, 10)]
    assert taken(dispatcher, job) == []
    assert first[0]["eventRangeID"] == f"0-{job['PandaID']}-0-1-1"


def test_each_input_has_its_ranges_with_its_name(dispatcher: Dispatcher) -> None:
    replica = {
        "surl": "file:///a",
        "guid": "0f9c2a3e-7c1b-4d55-9a51-6a0f4f6f2b10",
        "fsize": 5,
        "checksum": "ad:00000001",
    }
    dispatcher.submit({"inputs": [{"lfn": name, **replica} for name in ("a.root", "b.root")], "events": {"number": 2}})
    ranges = taken(dispatcher, dispatcher.get_job())
    assert [(one["LFN"], one["startEvent"]) for one in ranges] == [
        ("a.root", 1), ("a.root", 2), ("b.root", 1), ("b.root", 2),
    ]  # fmt: skip
    assert ranges[0]["GUID"] == "0f9c2a3e-7c1b-4d55-9a51-6a0f4f6f2b10"
    assert len({one["eventRangeID"] for one in ranges}) == 4


def test_updates_may_be_repeated_and_the_first_word_counts(dispatcher: Dispatcher) -> None:
    job = running(dispatcher)
    a, b, c, d = taken(dispatcher, job)
    assert told(dispatcher, job, "running", a, b) == [None, None]
    assert told(dispatcher, job, "transferring", a) == [None]
    assert told(dispatcher, job, "finished", a, c) == [True, True]
    assert told(dispatcher, job, "finished", a, c) == [True, True]
    assert told(dispatcher, job, "failed", a) == [False]
    assert told(dispatcher, job, "failed", b) == [True]
    assert told(dispatcher, job, "fatal", d) == [True]
    assert told(dispatcher, job, "running", d) == [None]
    assert told(dispatcher, job, "merged", d) == [False]
    assert counts(dispatcher, job) == {"finished": 2, "failed": 1, "fatal": 1}


@pytest.mark.parametrize("range_id", ["", "1-2-3", "0-1-0-99-1", "0-77-0-1-1", "x", "0-1-0-1-2", "9" * 400])
def test_a_range_that_is_not_the_jobs_is_not_touched(dispatcher: Dispatcher, range_id: str) -> None:
    job = running(dispatcher)
    taken(dispatcher, job)
    assert told(dispatcher, job, "finished", {"eventRangeID": range_id}) == [False]
    assert counts(dispatcher, job) == {"sent": 4}


def test_ranges_are_for_the_one_who_has_the_job(dispatcher: Dispatcher) -> None:
    job = running(dispatcher)
    stranger = Identity("site-b", frozenset({Role.PILOT}))
    assert taken(dispatcher, job, claim="another") == []
    (one,) = taken(dispatcher, job, 1)
    assert told(dispatcher, job, "finished", one, claim="another") == [False]
    assert taken(dispatcher, job, 1, claim="", identity=stranger), "nobody has claimed it by a name"
    waiting = dispatcher.submit({"events": TEN})[0]
    assert events.acquire_ranges(dispatcher.context, waiting, 5, "", ANYBODY) == []


def test_the_ranges_of_a_failed_attempt_go_to_the_next_one(dispatcher: Dispatcher) -> None:
    job = running(dispatcher, max_attempts=3)
    a, b, c, d = taken(dispatcher, job)
    told(dispatcher, job, "finished", a)
    told(dispatcher, job, "failed", d)
    told(dispatcher, job, "running", b, c)
    dispatcher.fail(int(str(job["PandaID"])))
    assert counts(dispatcher, job) == {"done": 1, "ready": 3}
    assert told(dispatcher, job, "finished", c) == [False], "the attempt is over"
    again = dispatcher.get_job()
    ranges = taken(dispatcher, again)
    assert [str(one["eventRangeID"]).split("-")[3:] for one in ranges] == [["2", "2"], ["3", "2"], ["4", "2"]]
    told(dispatcher, again, "finished", *ranges)
    dispatcher.finish(int(str(job["PandaID"])))
    assert counts(dispatcher, job) == {"done": 4}


def test_a_range_that_fails_is_tried_again_in_halves_until_its_bad_event_stands_alone(dispatcher: Dispatcher) -> None:
    job = running(dispatcher, events={"number": 8, "per_range": 8, "max_attempts": 4}, max_attempts=9)
    number = int(str(job["PandaID"]))
    for cuts in ([(1, 8)], [(1, 4), (5, 8)], [(5, 6), (7, 8)], [(5, 5), (6, 6)]):
        ranges = taken(dispatcher, job)
        assert sorted((one["startEvent"], one["lastEvent"]) for one in ranges) == cuts
        for one in ranges:
            has_bad_event = int(str(one["startEvent"])) <= 6 <= int(str(one["lastEvent"]))
            assert told(dispatcher, job, "failed" if has_bad_event else "finished", one) == [True]
        dispatcher.fail(number)
        job = dispatcher.get_job()
    assert counts(dispatcher, job) == {"done": 3, "fatal": 1}, "1-4, 7-8 and 5 are done, 6 never will be"


def test_a_range_that_fails_for_nobodys_fault_stays_whole(dispatcher: Dispatcher) -> None:
    job = running(dispatcher, max_attempts=9)
    told(dispatcher, job, "failed", *taken(dispatcher, job))
    dispatcher.fail(int(str(job["PandaID"])), 1201)
    assert counts(dispatcher, job) == {"ready": 4}


def stored(dispatcher: Dispatcher, job: dict[str, object], archive: str, *ranges: dict[str, object]) -> None:
    """Ranges are done, and their output is in an archive."""
    facts = {"zipFile": {"lfn": archive}}
    reports = [RangeReport(str(one["eventRangeID"]), "finished", facts) for one in ranges]
    assert events.update_ranges(dispatcher.context, reports, str(job["claim_id"]), ANYBODY).taken == [True] * len(
        ranges
    )


def merging(dispatcher: Dispatcher, *archives: str, **job: object) -> int:
    """A merge job of these archives, in a pilot's hands."""
    there = {"surl": "file:///a", "guid": "0f9c2a3e-7c1b-4d55-9a51-6a0f4f6f2b10", "fsize": 5, "checksum": "ad:00000001"}
    inputs = [{"lfn": name, **there} for name in archives]
    dispatcher.submit({"eventServiceMerge": True, "inputs": inputs, **job})
    number = int(str(dispatcher.get_job()["PandaID"]))
    dispatcher.report(number, "running")
    return number


@pytest.fixture
def done(dispatcher: Dispatcher) -> dict[str, object]:
    """A job that is over, with two of its ranges in each of two archives."""
    job = running(dispatcher)
    a, b, c, d = taken(dispatcher, job)
    stored(dispatcher, job, "one.tar", a, b)
    stored(dispatcher, job, "two.tar", c, d)
    dispatcher.finish(int(str(job["PandaID"])))
    assert counts(dispatcher, job) == {"done": 4}
    return job


def test_ranges_are_merged_when_their_merge_job_has_finished(dispatcher: Dispatcher, done: dict[str, object]) -> None:
    dispatcher.finish(merging(dispatcher, "one.tar"))
    assert counts(dispatcher, done) == {"merged": 2, "done": 2}


def test_ranges_are_discarded_when_their_merge_job_is_killed(dispatcher: Dispatcher, done: dict[str, object]) -> None:
    merge = merging(dispatcher, "one.tar", "two.tar")
    dispatcher.kill(merge)
    dispatcher.fail(merge, 1144)
    assert counts(dispatcher, done) == {"discarded": 4}


@pytest.mark.parametrize("task", [0, 3])
def test_what_was_in_a_corrupted_archive_is_made_again(
    dispatcher: Dispatcher, done: dict[str, object], task: int
) -> None:
    merge = merging(dispatcher, "one.tar", "two.tar", max_attempts=2, taskID=task)
    dispatcher.fail(merge, corruptedFiles="other.root,two.tar")
    assert counts(dispatcher, done) == {"done": 2, "ready": 2}
    again = dispatcher.get_job()
    assert (again["PandaID"] == merge) is (task == 0)
    dispatcher.finish(int(str(again["PandaID"])))
    assert counts(dispatcher, done) == {"merged": 2, "ready": 2}


def test_a_merge_job_has_its_own_users_ranges_until_it_is_over(dispatcher: Dispatcher, done: dict[str, object]) -> None:
    dispatcher.finish(merging(dispatcher, "one.tar", user="mallory"))
    assert counts(dispatcher, done) == {"done": 4}
    first = merging(dispatcher, "one.tar")
    dispatcher.finish(merging(dispatcher, "one.tar"))
    assert counts(dispatcher, done) == {"done": 4}, "the first one has them, and is not over"
    dispatcher.fail(first)
    assert counts(dispatcher, done) == {"done": 4}
    dispatcher.finish(merging(dispatcher, "one.tar"))
    assert counts(dispatcher, done) == {"done": 2, "merged": 2}


def test_a_lost_pilots_ranges_are_free_again_after_its_lease(dispatcher: Dispatcher) -> None:
    job = running(dispatcher, max_attempts=2)
    taken(dispatcher, job)
    dispatcher.clock.now += 3 * 3600
    dispatcher.watch()
    assert counts(dispatcher, job) == {"ready": 4}


def test_a_range_that_fails_too_often_is_fatal_and_what_is_nobodys_fault_does_not_count(dispatcher: Dispatcher) -> None:
    job = running(dispatcher, events={"number": 2, "max_attempts": 2}, max_attempts=9)
    number = int(str(job["PandaID"]))
    for code, left in ((1201, 2), (1305, 2), (1213, 2), (1305, 1)):
        bad, good = taken(dispatcher, job)[:2]
        told(dispatcher, job, "failed", bad)
        dispatcher.fail(number, code)
        assert counts(dispatcher, job)["ready"] == left, "one that its payload has never seen is as good as new"
        job = dispatcher.get_job()
        assert good["eventRangeID"] != bad["eventRangeID"]
    assert counts(dispatcher, job) == {"fatal": 1, "ready": 1}


def test_the_ranges_of_a_killed_job_are_cancelled(dispatcher: Dispatcher) -> None:
    job = running(dispatcher)
    number = int(str(job["PandaID"]))
    done, _, failed = taken(dispatcher, job, 3)
    told(dispatcher, job, "finished", done)
    told(dispatcher, job, "failed", failed)
    dispatcher.kill(number)
    assert taken(dispatcher, job) == [], "a job that is to end gets no more"
    reports = [RangeReport(str(done["eventRangeID"]), "finished")]
    assert events.update_ranges(dispatcher.context, reports, "", ANYBODY).commands == {number: "tobekilled"}
    dispatcher.fail(number, 1144)
    assert counts(dispatcher, job) == {"done": 1, "cancelled": 2, "ready": 1}


def test_jobs_of_a_jobset_share_their_ranges(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"taskID": 3, "jobsetID": 12, "events": TEN}, {"taskID": 3, "jobsetID": 12, "eventService": True})
    one, other = dispatcher.get_job(), dispatcher.get_job()
    assert len(taken(dispatcher, one, 3)) == 3
    (last,) = taken(dispatcher, other)
    assert str(last["eventRangeID"]).startswith(f"3-{other['PandaID']}-")


def test_the_ranges_of_a_tasks_job_go_to_the_job_that_comes_after_it(dispatcher: Dispatcher) -> None:
    job = running(dispatcher, taskID=3, max_attempts=3)
    a, *_ = taken(dispatcher, job)
    told(dispatcher, job, "finished", a)
    dispatcher.fail(int(str(job["PandaID"])))
    heir = dispatcher.get_job()
    assert heir["PandaID"] != job["PandaID"]
    assert len(taken(dispatcher, heir)) == 3
    assert counts(dispatcher, heir) == {"done": 1, "sent": 3}
    dispatcher.fail(int(str(heir["PandaID"])))
    assert len(taken(dispatcher, dispatcher.get_job())) == 3


def test_ranges_of_one_user_are_never_given_to_anothers_job(dispatcher: Dispatcher) -> None:
    same = {"taskID": 3, "jobsetID": 12}
    (own,) = dispatcher.submit({**same, "events": TEN, "prodUserName": "alice"})
    (others,) = dispatcher.submit({**same, "eventService": True, "prodUserName": "mallory"})
    jobs = {int(str(job["PandaID"])): job for job in (dispatcher.get_job(), dispatcher.get_job())}
    assert taken(dispatcher, jobs[others]) == []
    assert len(taken(dispatcher, jobs[own])) == 4


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ([], "must be an object"),
        ({}, "needs number"),
        ({"number": 0}, "number must be a whole number between 1"),
        ({"number": 5, "per_range": True}, "per_range must be"),
        ({"number": 10**9}, "makes more than 100000 ranges"),
        ({"number": 5, "size": 1}, "does not know 'size'"),
    ],
)
def test_events_that_make_no_sense_are_refused(dispatcher: Dispatcher, wanted: object, text: str) -> None:
    with pytest.raises(BadJob, match=text):
        dispatcher.submit({"events": wanted})


def test_reports_come_alone_or_in_groups_with_their_archive() -> None:
    item = {"eventRangeID": "1-2-3-4-5", "eventStatus": "finished", "coreCount": 8, "junk": "x"}
    group = {"eventRanges": [item, 7], "zipFile": {"lfn": "a.tar", "fsize": 10, "bad": [], "adler32": "a\x00b"}}
    alone, first, strange = events.read_reports([item, group])
    assert alone == RangeReport("1-2-3-4-5", "finished", {"coreCount": 8})
    assert first.facts == {"coreCount": 8, "zipFile": {"lfn": "a.tar", "fsize": 10}}
    assert strange.status == ""
    with pytest.raises(BadField):
        events.read_reports({})


# ---- over HTTP


@pytest.fixture
def client(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[FlaskClient]:
    for made in client_of(tmp_path, empty_database):
        made.post("/api/v1/queue/add", json={"queues": {QUEUE: {}}})
        yield made


def test_the_legacy_calls_have_their_odd_shapes(client: FlaskClient) -> None:
    number = submit(client, events={"number": 2})
    client.post("/server/panda/getJob", data={"siteName": QUEUE, "prodSourceLabel": "user"})
    json_wanted = {"Accept": "application/json"}
    body = {"pandaID": number, "jobsetID": 0, "taskID": 0}
    available = client.post("/server/panda/checkEventsAvailability", data=body).json
    assert available == {"StatusCode": 0, "nEventRanges": 2}
    plain = parse_qs(client.post("/server/panda/getEventRanges", data={**body, "nRanges": 1}).text)
    (first,) = json.loads(plain["eventRanges"][0])
    (second,) = client.post("/server/panda/getEventRanges", data=body, headers=json_wanted).json["eventRanges"]
    reports = json.dumps([{"eventRangeID": first["eventRangeID"], "eventStatus": "finished"}, {"eventStatus": "x"}])
    answer = client.post("/server/panda/updateEventRanges", data={"eventRanges": reports}, headers=json_wanted).json
    assert answer == {"StatusCode": 0, "Returns": "[true, false]", "Command": "{}"}
    single = {"eventRangeID": second["eventRangeID"], "eventStatus": "failed", "coreCount": "1"}
    one = parse_qs(client.post("/server/panda/updateEventRange", data=single, headers=json_wanted).text)
    assert one == {"StatusCode": ["0"], "Command": ["{}"]}
    details = client.get("/api/v1/job/get_details", query_string={"job_id": number}).json["data"]
    assert details["events"] == {"finished": 1, "failed": 1}


def test_v1_gives_and_takes_ranges(client: FlaskClient) -> None:
    number = submit(client, events={"number": 3})
    claim = client.post("/api/v1/pilot/acquire_jobs", json={"site_name": QUEUE, "prod_source_label": "user"}).json
    headers = {"X-Pilotkit-Claim": claim["data"]["jobs"][0]["claim_id"]}
    body = {"job_id": number, "task_id": 0, "jobset_id": 0, "n_ranges": 2}
    stranger = client.post("/api/v1/event/acquire_event_ranges", json=body, headers={"X-Pilotkit-Claim": "x"}).json
    assert stranger["data"]["eventRanges"] == []
    ranges = client.post("/api/v1/event/acquire_event_ranges", json=body, headers=headers).json["data"]["eventRanges"]
    count = client.get("/api/v1/event/get_available_event_range_count", query_string={"job_id": number, "jobset_id": 0})
    assert count.json["data"] == 1
    reports = [{"eventRangeID": one["eventRangeID"], "eventStatus": "finished"} for one in ranges]
    packed = {"event_ranges": json.dumps([{"eventRanges": reports[:1], "zipFile": {"lfn": "a"}}]), "version": 1}
    answer = client.post("/api/v1/event/update_event_ranges", json=packed, headers=headers).json
    assert answer["data"] == {"StatusCode": 0, "Returns": [True], "Command": {}}
    single = {"event_range_id": ranges[1]["eventRangeID"], "event_range_status": "finished"}
    assert client.post("/api/v1/event/update_single_event_range", json=single, headers=headers).json["success"]
    late = {**single, "event_range_status": "failed"}
    refused = client.post("/api/v1/event/update_single_event_range", json=late, headers=headers).json
    assert (refused["success"], refused["message"]) == (
        False,
        "this event range is not the job's, or not in a state to be changed",
    )


def test_what_is_no_list_of_ranges_is_refused_in_both_apis(client: FlaskClient) -> None:
    assert client.post("/server/panda/updateEventRanges", data={"eventRanges": "{}"}).status_code == 400
    assert client.post("/server/panda/updateEventRanges", data={"eventRanges": "nonsense"}).status_code == 400
    assert client.post("/api/v1/event/update_event_ranges", json={"event_ranges": 5}).json["success"] is False
