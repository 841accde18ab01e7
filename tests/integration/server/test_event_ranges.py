"""Event ranges on a real server: many pilots at once, none twice, none lost."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.integration.server.clients import Client
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
