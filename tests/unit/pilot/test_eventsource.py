"""The dispatcher's event service over the wire, in both generations, as servers of ours and of others answer."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pilot.control.eventsource import EventSource, RangesAnswer
from pilot.util.https import HttpClient, Json, RequestFailed
from tests.unit.pilot.builders import job_run
from tests.unit.pilot.test_dispatcher import APIS, dispatcher, serve
from tests.unit.pilot.webserver import Answer, Asked, WebServer

GET = {"v1": "/api/v1/event/acquire_event_ranges", "legacy": "/server/panda/getEventRanges"}
UPDATE = {"v1": "/api/v1/event/update_event_ranges", "legacy": "/server/panda/updateEventRanges"}
RANGE: dict[str, Json] = {"eventRangeID": "3-254-1-1-1", "startEvent": 1, "lastEvent": 2, "LFN": "a", "GUID": "g"}
GROUPS: list[dict[str, Json]] = [{"eventRanges": [{"eventRangeID": "3-254-1-1-1", "eventStatus": "finished"}]}]


def answer(api: str, **data: Json) -> Answer:
    values: dict[str, Json] = {"StatusCode": 0, **data}
    return Answer(values if api == "legacy" else {"success": True, "message": "", "data": values})


def sent(asked: Asked) -> dict[str, Json]:
    body = gzip.decompress(asked.body) if asked.body[:2] == b"\x1f\x8b" else asked.body
    found: dict[str, Json] = json.loads(body)
    return found


@APIS
def test_ranges_are_asked_for_under_the_claim(web: WebServer, http: HttpClient, tmp_path: Path, api: str) -> None:
    serve(web, api)
    listed: Json = json.dumps([RANGE, {"no": "id"}]) if api == "legacy" else [RANGE]
    web.route(GET[api], answer(api, eventRanges=listed))
    job = job_run(tmp_path, jobsetID=12, taskID=3, claim_id="c1").data
    assert EventSource(dispatcher(http, web), 5.0).get(job, 5) == [RANGE]
    (asked,) = web.to(GET[api])
    wanted = {
        "legacy": {"pandaID": "254", "jobsetID": "12", "taskID": "3", "nRanges": 5},
        "v1": {"job_id": 254, "jobset_id": 12, "task_id": 3, "n_ranges": 5},
    }
    assert sent(asked) == wanted[api]
    assert asked.headers["x-pilotkit-claim"] == "c1"


@APIS
def test_reports_go_out_in_groups_and_orders_come_back(
    web: WebServer, http: HttpClient, tmp_path: Path, api: str
) -> None:
    serve(web, api)
    command: Json = {"254": "softkill", "7": "tobekilled"}
    as_text = json.dumps(command) if api == "legacy" else command
    web.route(UPDATE[api], answer(api, Returns="[true, null, false]", Command=as_text))
    told = EventSource(dispatcher(http, web), 5.0).update(job_run(tmp_path).data, GROUPS)
    assert told == RangesAnswer([True, None, False], "softkill")
    body = sent(web.to(UPDATE[api])[0])
    text = body["eventRanges" if api == "legacy" else "event_ranges"]
    assert isinstance(text, str) and json.loads(text) == GROUPS
    assert body["version"] == 1


def test_other_servers_of_v1_do_it_and_then_fail_to_say_so(web: WebServer, http: HttpClient, tmp_path: Path) -> None:
    serve(web, "v1")
    web.route(UPDATE["v1"], Answer({"message": "reply is a set"}, 500))
    assert EventSource(dispatcher(http, web), 5.0).update(job_run(tmp_path).data, GROUPS) == RangesAnswer()


def test_ours_means_what_it_says(web: WebServer, http: HttpClient, tmp_path: Path) -> None:
    serve(web, "v1", ours=True)
    web.route(UPDATE["v1"], Answer(b"broken", 500))
    with pytest.raises(RequestFailed) as caught:
        EventSource(dispatcher(http, web), 5.0).update(job_run(tmp_path).data, GROUPS)
    assert caught.value.temporary


@pytest.mark.parametrize(("code", "temporary"), [(30, True), (10, True), (60, False)])
def test_a_refusal_says_whether_to_ask_again(
    web: WebServer, http: HttpClient, tmp_path: Path, code: int, temporary: bool
) -> None:
    serve(web, "legacy")
    web.route(GET["legacy"], Answer({"StatusCode": code, "errorDialog": "because"}))
    with pytest.raises(RequestFailed, match="because") as caught:
        EventSource(dispatcher(http, web), 5.0).get(job_run(tmp_path).data, 1)
    assert caught.value.temporary is temporary


@pytest.mark.parametrize("listed", [None, "no json", {"a": 1}])
def test_an_answer_without_a_list_is_an_error(web: WebServer, http: HttpClient, tmp_path: Path, listed: Json) -> None:
    serve(web, "legacy")
    web.route(GET["legacy"], answer("legacy", eventRanges=listed))
    with pytest.raises(RequestFailed, match="no list of event ranges"):
        EventSource(dispatcher(http, web), 5.0).get(job_run(tmp_path).data, 1)
