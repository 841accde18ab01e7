"""What users are told of the event ranges of their jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.db.archive import DAY
from server.logic import archiving, events, eventstatus
from server.logic.context import ANYBODY, Identity, Role
from server.logic.events import RangeReport
from server.logic.eventstatus import Place, RangePage, Wanted
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE, Dispatcher
from tests.unit.server.test_routes import client_of, submit

ARCHIVE = {"lfn": "a.tar", "objstoreID": 7, "endpoint": "DISK", "surl": "file:///a.tar", "fsize": 5}


def working(dispatcher: Dispatcher, number: int = 4, **job: object) -> tuple[int, list[str]]:
    """A job in a pilot's hands with its ranges; returns their names."""
    dispatcher.submit({"events": {"number": number}, **job})
    job_id = int(str(dispatcher.get_job()["PandaID"]))
    dispatcher.report(job_id, "running")
    ranges = events.acquire_ranges(dispatcher.context, job_id, 100, "", ANYBODY)
    return job_id, [str(one["eventRangeID"]) for one in ranges]


def tell(dispatcher: Dispatcher, name: str, status: str, **facts: object) -> None:
    events.update_ranges(dispatcher.context, [RangeReport(name, status, facts)], "", ANYBODY)


def listed(dispatcher: Dispatcher, *wanted: Wanted, identity: Identity = ANYBODY, **page: Any) -> RangePage:
    begin = page.pop("begin", Place())
    return eventstatus.list_ranges(dispatcher.context, wanted, identity, begin, **page)


def test_each_range_is_told_with_its_state_its_attempts_and_where_its_output_is(dispatcher: Dispatcher) -> None:
    replica = {"surl": "file:///x", "fsize": 5, "checksum": "ad:00000001"}
    job_id, names = working(dispatcher, inputs=[{"lfn": "x.root", **replica}])
    tell(dispatcher, names[0], "finished", zipFile=ARCHIVE)
    tell(dispatcher, names[1], "failed", errorCode=5, errorDiag="bad event")
    tell(dispatcher, names[2], "fatal")
    told = listed(dispatcher, Wanted(job_id)).ranges[job_id]
    assert [told[name]["status"] for name in names] == ["finished", "failed", "fatal", "sent"]
    assert [told[name]["attempts_left"] for name in names] == [2, 2, 0, 2]
    done, failed = told[names[0]], told[names[1]]
    assert (done["archive"], done["endpoint"], done["objectstore_id"], done["surl"]) == (
        "a.tar", "DISK", 7, "file:///a.tar",
    )  # fmt: skip
    assert (done["start_event"], done["last_event"], done["lfn"]) == (1, 1, "x.root")
    assert (failed["error_code"], failed["error_diag"], failed["archive"]) == (5, "bad event", None)


def test_what_an_archived_job_had_is_told_as_before(dispatcher: Dispatcher) -> None:
    job_id, names = working(dispatcher, inputs=[{"lfn": "x.root", "surl": "file:///x", "fsize": 5}])
    for name in names:
        tell(dispatcher, name, "fatal", zipFile=ARCHIVE)
    dispatcher.fail(job_id)
    before = listed(dispatcher, Wanted(job_id))
    assert len(before.ranges[job_id]) == 4
    dispatcher.clock.now += 4 * DAY
    assert archiving.archive_jobs(dispatcher.context) == 1
    assert listed(dispatcher, Wanted(job_id)) == before
    second = listed(dispatcher, Wanted(job_id), limit=3)
    assert second.following is not None
    assert [*second.ranges[job_id], *listed(dispatcher, Wanted(job_id), begin=second.following).ranges[job_id]] == names


def test_nobody_sees_the_ranges_of_another_user(dispatcher: Dispatcher) -> None:
    job_id, _ = working(dispatcher, user="alice")
    roles = frozenset({Role.USER})
    assert listed(dispatcher, Wanted(job_id), identity=Identity("mallory", roles)).ranges == {}
    assert len(listed(dispatcher, Wanted(job_id), identity=Identity("alice", roles)).ranges) == 1


def test_jobs_of_another_task_and_jobs_that_are_not_there_are_left_out(dispatcher: Dispatcher) -> None:
    job_id, _ = working(dispatcher, taskID=3)
    assert listed(dispatcher, Wanted(job_id, 4), Wanted(job_id + 1)).ranges == {}
    assert list(listed(dispatcher, Wanted(job_id, 3)).ranges) == [job_id]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 8, 9])
def test_pages_have_every_range_once(dispatcher: Dispatcher, limit: int) -> None:
    jobs = [working(dispatcher, 4), working(dispatcher, 4)]
    wanted = [Wanted(job_id) for job_id, _ in jobs]
    seen: list[str] = []
    place: Place | None = Place()
    while place is not None:
        page = listed(dispatcher, *wanted, begin=place, limit=limit)
        told = [name for ranges in page.ranges.values() for name in ranges]
        assert 0 < len(told) <= limit
        seen += told
        place = page.following
    assert seen == [name for _, names in jobs for name in names]


@pytest.fixture
def client(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[FlaskClient]:
    for made in client_of(tmp_path, empty_database):
        made.post("/api/v1/queue/add", json={"queues": {QUEUE: {}}})
        yield made


def asked(client: FlaskClient, question: object, **more: object) -> Any:
    query = {"job_task_ids": question, **more}
    return client.get("/api/v1/event/get_event_range_statuses", query_string=query).json


def test_a_question_may_be_written_in_python_or_json_and_several_ways(client: FlaskClient) -> None:
    number = submit(client, taskID=3, events={"number": 2})
    client.post("/server/panda/getJob", data={"siteName": QUEUE, "prodSourceLabel": "user"})
    body = {"pandaID": number, "jobsetID": 0, "taskID": 3}
    client.post("/server/panda/getEventRanges", data=body)
    pair = {"task_id": 3, "panda_id": number}
    texts = (str(pair), str([pair]), json.dumps([pair]), str({"panda_id": str(number)}), str(number), f"({number},)")
    for question in (*texts, [str(pair), "{'panda_id': 99}"]):
        answer = asked(client, question)
        assert answer["success"], answer
        assert [one["status"] for one in answer["data"][str(number)].values()] == ["sent", "sent"]
    page = asked(client, str(pair), limit=1)
    assert page["next"] in page["message"]
    rest = asked(client, str(pair), after=page["next"])
    assert "next" not in rest
    assert {**page["data"][str(number)], **rest["data"][str(number)]} == answer["data"][str(number)]
    # recorded/client.jsonl: a job that is not there
    assert asked(client, "{'task_id': 40000001, 'panda_id': 101}") == {"success": True, "message": "", "data": {}}


@pytest.mark.parametrize(
    "question", ["", "nonsense", "{1, 2}", "{'task_id': 3}", "__import__('os')", "[-1]", "true", "9" * 30, "{[]: 1}"]
)
def test_a_question_that_names_no_job_is_refused_with_a_sentence(client: FlaskClient, question: str) -> None:
    answer = asked(client, question)
    assert answer["success"] is False
    assert "job_task_ids" in answer["message"]


def test_a_place_that_no_answer_named_and_too_many_jobs_are_refused(client: FlaskClient) -> None:
    assert "`next` of the answer before" in asked(client, "1", after="x")["message"]
    assert "1000 is the most" in asked(client, str(list(range(1001))))["message"]
