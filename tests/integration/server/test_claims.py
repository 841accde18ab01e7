"""One live claim a job (D1), a lost answer can be asked for again (D2), nothing acknowledged is lost (D6).

On both databases.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.integration.server.clients import QUEUE, Client, run_together, wait_until
from tests.postgres import require_postgres, running_postgres
from tests.servers import RunningServer, running_server

#: Claims between two strikes, and jobs in all.
_BETWEEN = 15
_STRIKES = 3
_JOBS = 150


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    """A client of the module's server, with a queue that has no jobs left in it."""
    with Client(server.url) as made:
        made.add_queue()
        while made.get_job()["StatusCode"] == 0:
            pass
        yield made


def test_a_claim_is_answered_once_for_a_request_id(client: Client) -> None:
    client.submit({}, {})
    first = client.get_job(X_Pilotkit_Request="r-1")
    assert client.get_job(X_Pilotkit_Request="r-1") == first
    body = {"siteName": QUEUE, "prodSourceLabel": "user", "request_id": "r-1"}
    assert client.panda("getJob", body)["PandaID"] == first["PandaID"]
    in_v1 = {"site_name": QUEUE, "prod_source_label": "user", "request_id": "r-1"}
    assert client.data("pilot/acquire_jobs", in_v1)["jobs"][0]["claim_id"] == first["claim_id"]
    assert client.get_job(X_Pilotkit_Request="r-2")["PandaID"] != first["PandaID"]


def test_a_request_sent_twice_at_once_claims_one_job(server: RunningServer, client: Client) -> None:
    client.submit(*[{}] * 20)
    answers: list[dict[str, Any]] = []

    def ask(request: str) -> None:
        with Client(server.url) as own:
            answers.append(own.get_job(X_Pilotkit_Request=request))

    for request in ("a", "b", "c"):
        run_together([lambda request=request: ask(request)] * 6)  # type: ignore[misc]
    assert len({answer["PandaID"] for answer in answers}) == 3
    assert len({answer["claim_id"] for answer in answers}) == 3


def test_many_clients_never_get_the_same_job_and_never_miss_one(server: RunningServer, client: Client) -> None:
    wanted = client.submit(*[{"memory": 10 * (n % 7), "priority": n % 5} for n in range(600)])
    taken: list[int] = []

    def work() -> None:
        with Client(server.url) as own:
            while True:
                answer = own.get_job()
                if answer["StatusCode"] == 0:
                    taken.append(answer["PandaID"])
                elif answer["reason"] != "busy":
                    assert answer["reason"] == "nothing_queued"  # never "none" while a matching one is free
                    return

    run_together([work] * 200)
    assert Counter(taken) == Counter(wanted)


def test_jobs_taken_in_groups_are_taken_once_too(server: RunningServer, client: Client) -> None:
    wanted = client.submit(*[{}] * 200)
    taken: list[int] = []

    def work() -> None:
        with Client(server.url) as own:
            while True:
                body = {"siteName": QUEUE, "prodSourceLabel": "user", "nJobs": random.randint(1, 9)}
                answer = own.panda("getJob", body, X_Pilotkit_Request=uuid.uuid4().hex)
                if answer["StatusCode"] == 20:
                    return
                taken.extend(job["PandaID"] for job in answer["jobs"])

    run_together([work] * 6)
    assert Counter(taken) == Counter(wanted)


def test_servers_that_share_a_database_give_each_job_out_once_and_see_each_others_work(tmp_path: Path) -> None:
    """Two machines: each with web workers, daemon and data directory of its own."""
    require_postgres()
    with running_postgres() as postgres:
        shared = {"PILOTKIT_DATABASE": postgres.create("shared")}
        with (
            running_server(tmp_path / "one", environment=shared) as one,
            running_server(tmp_path / "two", environment=shared) as two,
            Client(one.url) as here,
            Client(two.url) as there,
        ):
            here.add_queue()
            wanted = here.submit(*[{"outputs": ["a"]} for _ in range(100)])
            taken: list[int] = []

            def work(url: str) -> None:
                with Client(url) as own:
                    while (answer := own.get_job()).get("reason") != "nothing_queued":
                        if answer["StatusCode"] == 0:
                            taken.append(answer["PandaID"])

            run_together([lambda url=url: work(url) for url in (one.url, two.url) * 4])  # type: ignore[misc]
            assert Counter(taken) == Counter(wanted)
            waiting, maker = here.submit({"inputs": ["later"], "scope": "s"}, {"outputs": ["later"], "scope": "s"})
            assert (there.status(waiting), there.status(maker)) == ("assigned", "activated")
            there.finish(there.get_job())
            here.wait_for(waiting, "activated")


def test_what_was_acknowledged_survives_kill_9_of_the_server(
    make_database: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    """Clients take and finish jobs while the server is killed again and again; every answer it gave must hold."""

    def strike(server: RunningServer) -> RunningServer:
        server.kill()
        return server.restart()

    _survives(strike, tmp_path, make_database("killed_server"))


def test_what_was_acknowledged_survives_kill_9_of_web_workers(
    make_database: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    def strike(server: RunningServer) -> RunningServer:
        children = psutil.Process(server.pid).children()
        workers = [child for child in children if "server.daemon" not in child.cmdline()]
        assert workers
        random.choice(workers).kill()
        return server

    _survives(strike, tmp_path, make_database("killed_worker"))


def test_what_was_acknowledged_survives_kill_9_of_postgresqls_processes(tmp_path: Path) -> None:
    """PostgreSQL ends every connection then, and recovers from its log."""
    require_postgres()
    with running_postgres() as postgres:

        def strike(server: RunningServer) -> RunningServer:
            os.kill(postgres.backends("killed")[0], signal.SIGKILL)
            return server

        _survives(strike, tmp_path, {"PILOTKIT_DATABASE": postgres.create("killed")})


def _survives(strike: Callable[[RunningServer], RunningServer], data: Path, environment: dict[str, str]) -> None:
    """Let clients take and finish jobs through several strikes, each of which answers with the server that is there."""
    claimed: dict[int, str] = {}
    finished: set[int] = set()
    stop = threading.Event()
    with running_server(data, environment=environment) as server:
        with Client(server.url) as client:
            client.add_queue()
            client.submit(*[{"outputs": ["a"]} for _ in range(_JOBS)])
        running = server
        workers = [threading.Thread(target=_work, args=(server.url, claimed, finished, stop)) for _ in range(4)]
        for worker in workers:
            worker.start()
        try:
            for number in range(_STRIKES):
                wait_until(lambda number=number: len(claimed) >= _BETWEEN * (number + 1), "claims")  # type: ignore[misc]
                running = strike(running)
            wait_until(lambda: len(claimed) >= _BETWEEN * (_STRIKES + 1), "claims after the last strike")
            stop.set()
            for worker in workers:
                worker.join()
            with Client(running.url) as client:
                _compare(client, claimed, finished)
        finally:
            stop.set()
            for worker in workers:
                worker.join()
            running.stop()


def _work(url: str, claimed: dict[int, str], finished: set[int], stop: threading.Event) -> None:
    """Take a job, run it, finish it; every request is repeated until it is answered, as our pilot does."""

    def insist(request: Any) -> Any:
        while not stop.is_set():
            try:
                with Client(url) as client:
                    return request(client)
            except requests.RequestException:
                stop.wait(0.05)
        return None

    while not stop.is_set():
        number = uuid.uuid4().hex
        job = insist(lambda client, number=number: client.get_job(X_Pilotkit_Request=number))
        if job is None or job["StatusCode"] != 0:
            return
        assert claimed.setdefault(job["PandaID"], job["claim_id"]) == job["claim_id"]
        if insist(lambda client, job=job: client.update(job["PandaID"], "running", claim_id=job["claim_id"])) is None:
            return
        answer = insist(lambda client, job=job: client.finish(job))
        if answer is not None:
            assert answer["command"] in ("NULL", "alreadydone")
            finished.add(job["PandaID"])


def _compare(client: Client, claimed: dict[int, str], finished: set[int]) -> None:
    assert len(claimed) >= _BETWEEN * (_STRIKES + 1)
    for job in finished:
        client.wait_for(job, "finished")
    states = Counter(job["jobStatus"] for job in client.data("job/list", limit=1000))
    assert sum(states.values()) == _JOBS
    assert states["finished"] >= len(finished)
    for job in claimed.keys() - finished:
        assert client.status(job) in ("sent", "running", "holding", "finished")
    free = set(range(1, _JOBS + 1)) - claimed.keys()
    given = [client.get_job() for _ in range(_JOBS)]
    again = {job["PandaID"] for job in given if job["StatusCode"] == 0}
    assert again <= free
