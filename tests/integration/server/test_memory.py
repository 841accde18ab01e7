"""A web worker that has answered a hundred thousand requests is as large as before."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from tests.bench.dispatcher import ASKED, heartbeat, memory_of_workers, request
from tests.bench.load import Load
from tests.integration.server.clients import QUEUE, Client
from tests.postgres import require_postgres, running_postgres
from tests.servers import RunningServer, running_server

#: Requests that fill caches and pools, and those that must not add to them.
_WARMING, _MANY = 20_000, 100_000
#: MB that the web workers may grow by: a leak of 100 bytes a request would be 10.
_ROOM = 8.0
#: s of each load.
_PIECE = 5.0


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_memory_is_flat_over_a_hundred_thousand_requests(tmp_path: Path, database: str) -> None:
    if database == "sqlite":
        with running_server(tmp_path) as server:
            _grows_by_little(server)
        return
    require_postgres()
    with (
        running_postgres() as postgres,
        running_server(tmp_path, environment={"PILOTKIT_DATABASE": postgres.create("memory")}) as server,
    ):
        _grows_by_little(server)


def _grows_by_little(server: RunningServer) -> None:
    with Client(server.url) as client:
        client.add_queue()
        (job,) = client.submit({})
        client.get_job()
        client.update(job, "running")
    beats = [request(server, "updateJob", heartbeat(job), kept_alive=False)] * 9
    nothing = request(server, "getJob", {**ASKED, "siteName": QUEUE}, kept_alive=False)
    _ask(server, [*beats, nothing], _WARMING)
    before = memory_of_workers(server)
    _ask(server, [*beats, nothing], _MANY)
    assert memory_of_workers(server) - before < _ROOM


def _ask(server: RunningServer, requests: list[bytes], number: int) -> None:
    """Make at least so many requests, with a new connection each."""

    def check(body: bytes) -> None:
        assert json.loads(body)["StatusCode"] in (0, 20), body

    following = itertools.cycle(requests)
    while number > 0:
        number -= Load(server.port, 16, kept_alive=False).run(_PIECE, following.__next__, check).answers
