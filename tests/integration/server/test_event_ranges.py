"""Event ranges on a real server: many pilots at once, none twice, none lost."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.server.clients import Client
from tests.integration.server.test_login import log_in
from tests.servers import RunningServer

JOBS, RANGES = 4, 120


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.url) as made:
        made.add_queue(astorages={"default": ["DISK"]})
        while made.get_job()["StatusCode"] == 0:
            pass
        yield made


def test_pilots_of_one_jobset_never_get_the_same_range_and_never_miss_one(
    server: RunningServer, client: Client
) -> None:
    pool = {"taskID": 8, "jobsetID": 99}
    client.submit({**pool, "events": {"number": RANGES}}, *[{**pool, "eventService": True} for _ in range(JOBS - 1)])
    taken: list[str] = []

    def work() -> None:
        with Client(server.url) as own:
            job = own.get_job()
            asked = {"pandaID": job["PandaID"], "jobsetID": 99, "taskID": 8, "nRanges": 3, "claim_id": job["claim_id"]}
            own.update(job["PandaID"], "running")
            while ranges := own.panda("getEventRanges", asked)["eventRanges"]:
                ids = [one["eventRangeID"] for one in ranges]
                told = json.dumps([{"eventRangeID": one, "eventStatus": "finished"} for one in ids])
                answer = own.panda("updateEventRanges", {"eventRanges": told, "claim_id": job["claim_id"]})
                assert json.loads(answer["Returns"]) == [True] * len(ids)
                taken.extend(one.split("-")[3] for one in ids)

    threads = [threading.Thread(target=work) for _ in range(JOBS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == RANGES
    assert set(Counter(taken).values()) == {1}


def test_panda_client_is_told_the_states_of_ranges(server: RunningServer, client: Client, tmp_path: Path) -> None:
    client.submit({"taskID": 8, "events": {"number": 2}})
    job = client.get_job()
    asked = {"pandaID": job["PandaID"], "jobsetID": 0, "taskID": 8, "claim_id": job["claim_id"]}
    names = [one["eventRangeID"] for one in client.panda("getEventRanges", asked)["eventRanges"]]
    # A list becomes one argument for each job, in Python's words.
    pairs = [{"task_id": 8, "panda_id": job["PandaID"]}, {"task_id": 8, "panda_id": 10**9}]
    call = f"import json; from pandaclient import Client; print(json.dumps(Client.get_events_status({pairs})))"
    said = log_in(server.url, tmp_path, call=call, token="a.b.c")
    code, ranges = json.loads(said)
    assert (code, list(ranges)) == (0, [str(job["PandaID"])])
    assert {name: one["status"] for name, one in ranges[str(job["PandaID"])].items()} == dict.fromkeys(names, "sent")
