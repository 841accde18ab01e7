"""Whatever dies, however often: no job has two claims (D1), no request two jobs (D2), no kill order ends before its job
(D4), and nothing that was acknowledged is lost (D6).

200 clients in a few processes work while those processes, web workers, the daemon, the whole server and PostgreSQL are
killed with -9, one after the other, at random. What each client was told is compared with what is there at the end.
"""

from __future__ import annotations

import json
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import requests

from tests.components import ROOT
from tests.integration.server.clients import QUEUE, Client, wait_until
from tests.postgres import Postgres, require_postgres, running_postgres
from tests.servers import RunningServer, start_server

#: 200 clients in all.
_PROCESSES, _CLIENTS = 4, 50
#: s between two strikes, at most.
_QUIET = 1.0
#: s of silence after which a killed client's job is another's; living clients report about five times a second.
_LOST = 5
#: Jobs in a submission, and how many queued jobs are too few: clients should always find some.
_BATCH, _FEW = 40, 120
#: Answers in a row that do not arrive (promise D4).
_LOST_ANSWERS = 5
#: s until all jobs are over after the last strike: silence, the watcher's period, and another attempt, several times.
_SETTLING = 90


@pytest.mark.timeout(300)
def test_nobody_loses_anything_when_everything_dies_on_sqlite(tmp_path: Path) -> None:
    _chaos(tmp_path, {}, None, seconds=6)


@pytest.mark.timeout(300)
def test_nobody_loses_anything_when_everything_dies_on_postgresql(tmp_path: Path) -> None:
    require_postgres()
    with running_postgres() as postgres:
        _chaos(tmp_path, {"PILOTKIT_DATABASE": postgres.create("chaos")}, postgres, seconds=6)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_nobody_loses_anything_in_ten_minutes_of_chaos(tmp_path: Path, database: str) -> None:
    if database == "sqlite":
        _chaos(tmp_path, {}, None, seconds=600)
        return
    require_postgres()
    with running_postgres() as postgres:
        _chaos(tmp_path, {"PILOTKIT_DATABASE": postgres.create("chaos")}, postgres, seconds=600)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_kill_order_is_repeated_however_many_answers_are_lost_and_whatever_dies(
    tmp_path: Path, database: str
) -> None:
    with ExitStack() as stack:
        environment = {}
        postgres: Postgres | None = None
        if database == "postgresql":
            require_postgres()
            postgres = stack.enter_context(running_postgres())
            environment["PILOTKIT_DATABASE"] = postgres.create("orders")
        server = start_server(tmp_path / "server", environment=environment)
        try:
            with Client(server.url) as client:
                client.add_queue()
                (job,) = client.submit({})
                claim = client.get_job()["claim_id"]
                client.update(job, "running", claim_id=claim)
                client.data("job/kill", {"job_ids": [job]})
            for _ in range(_LOST_ANSWERS):
                _report_and_go(server.port, job, claim)
            server.kill()
            if postgres is not None:
                postgres.crash()
            server = server.restart()
            with Client(server.url) as client:
                for _ in range(3):
                    assert client.update(job, "running", claim_id=claim)["command"] == "tobekilled"
                client.update(job, "failed", claim_id=claim, pilotErrorCode=1144)
                assert client.wait_for(job, "failed", "cancelled")["killedBy"]
                assert [c["status"] for c in client.job(job)["history"]].count("running") == 1
        finally:
            server.stop()


def _report_and_go(port: int, job: int, claim: str) -> None:
    """A heartbeat whose answer nobody reads: the server has it, and then the pilot is gone."""
    body = json.dumps({"jobId": str(job), "state": "running", "claim_id": claim}).encode()
    head = f"POST /server/panda/updateJob HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert select.select([connection], [], [], 30)[0], "no answer came"


@dataclass
class _Told:
    """What clients were told, by job and attempt where it is about an attempt."""

    claims: dict[tuple[int, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    requests: dict[str, set[tuple[int, int]]] = field(default_factory=lambda: defaultdict(set))
    states: dict[tuple[int, int], list[str]] = field(default_factory=lambda: defaultdict(list))
    stopped: set[tuple[int, int]] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def read(self, journal: Path) -> None:
        """Add what is in a journal."""
        for line in journal.read_text().splitlines():
            what, *rest = json.loads(line)
            if what == "claimed":
                job, attempt, claim, request = rest
                self.claims[job, attempt].add(claim)
                self.requests[request].add((job, attempt))
            elif what == "told":
                self.states[rest[0], rest[1]].append(rest[2])
            elif what == "stop":
                self.stopped.add((rest[0], rest[1]))
            else:
                self.wrong.append(rest[0])


def _chaos(data: Path, environment: dict[str, str], postgres: Postgres | None, *, seconds: float) -> None:
    """Strike at random for some seconds, let what was begun come to its end, and compare."""
    settings = {"PILOTKIT_LOST_HEARTBEAT": str(_LOST), **environment}
    field = _Field(start_server(data / "server", environment=settings), postgres, data)
    try:
        with field.clients():
            field.add_queue()
            until = time.monotonic() + seconds
            struck: Counter[str] = Counter()
            while time.monotonic() < until or len(struck) < len(field.strikes):
                field.feed()
                threading.Event().wait(_QUIET * random.random())
                missing = field.strikes.keys() - struck.keys()
                name = random.choice(sorted(missing or field.strikes.keys()))
                field.strikes[name]()
                struck[name] += 1
            field.settle()
        _compare(field)
    finally:
        field.server.stop()


class _Field:
    """The server, its database and its clients, and what may happen to them."""

    def __init__(self, server: RunningServer, postgres: Postgres | None, folder: Path) -> None:
        self.server = server
        self.submitted: set[int] = set()
        self.strikes: dict[str, Callable[[], None]] = {
            "client": self._kill_client, "web worker": self._kill_web_worker, "daemon": self._kill_daemon,
            "server": self._kill_server,
        }  # fmt: skip
        if postgres is not None:
            self.strikes |= {"PostgreSQL": postgres.crash, "backend": lambda: self._kill_backend(postgres)}
        self._folder = folder
        self._clients: list[subprocess.Popen[bytes]] = []
        self._started = 0

    @contextmanager
    def clients(self) -> Iterator[None]:
        """The processes with clients, for the time of a block."""
        try:
            for _ in range(_PROCESSES):
                self._start_client()
            yield
        finally:
            for process in self._clients:
                assert process.stdin is not None
                process.stdin.close()
            for process in self._clients:
                process.wait(30)

    def add_queue(self) -> None:
        """The queue, and jobs in it."""
        with Client(self.server.url) as client:
            client.add_queue()
        self.feed()

    def feed(self) -> None:
        """Submit jobs if only few are queued. They may take many attempts: some clients are killed."""
        jobs = [{"outputs": ["a"], "max_attempts": 50}] * _BATCH
        with suppress(requests.RequestException), Client(self.server.url) as client:
            # PostgreSQL may be recovering, and no job is promised then
            if len(client.data("job/list", status=["activated"], queue=QUEUE, limit=_FEW)) < _FEW:
                self.submitted.update(client.submit(*jobs))

    def settle(self) -> None:
        """Wait until every job is over."""
        wait_until(self._all_over, "all jobs to be over", _SETTLING)

    def told(self) -> _Told:
        """What all clients there ever were have been told."""
        told = _Told()
        for journal in self._folder.glob("*.journal"):
            told.read(journal)
        return told

    def _all_over(self) -> bool:
        states = ["activated", "sent", "starting", "running", "holding"]
        with suppress(requests.RequestException), Client(self.server.url) as client:
            return not client.data("job/list", status=states, queue=QUEUE, limit=1)
        return False

    def _start_client(self) -> None:
        journal = self._folder / f"{self._started}.journal"
        arguments = [str(self.server.port), QUEUE, str(_CLIENTS), str(journal)]
        command = [sys.executable, "-m", "tests.integration.server.swarm", *arguments]
        self._clients.append(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE))
        self._started += 1

    def _kill_client(self) -> None:
        process = self._clients.pop(random.randrange(len(self._clients)))
        assert process.poll() is None, "a process with clients has failed"
        process.kill()
        process.communicate()
        self._start_client()

    def _kill_web_worker(self) -> None:
        with suppress(psutil.NoSuchProcess):
            random.choice(self._children("-c")).send_signal(signal.SIGKILL)

    def _kill_daemon(self) -> None:
        with suppress(psutil.NoSuchProcess):
            random.choice(self._children("server.daemon")).send_signal(signal.SIGKILL)

    def _children(self, word: str) -> list[psutil.Process]:
        """The server's processes with a word in their command: a web worker has that of the server itself."""
        found: list[psutil.Process] = []

        def there() -> bool:
            found[:] = [p for p in psutil.Process(self.server.pid).children() if _has_word(p, word)]
            return bool(found)

        wait_until(there, f"a process with {word}")
        return found

    def _kill_server(self) -> None:
        self.server.kill()
        self.server = self.server.restart()

    @staticmethod
    def _kill_backend(postgres: Postgres) -> None:
        # PostgreSQL may still be recovering from the last strike, and a backend may have gone.
        with suppress(psycopg.OperationalError, psutil.NoSuchProcess):
            if backends := postgres.backends("chaos"):
                psutil.Process(backends[0]).kill()


def _has_word(process: psutil.Process, word: str) -> bool:
    try:
        return word in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def _compare(field: _Field) -> None:
    """What clients were told, and what is there."""
    told = field.told()
    assert told.wrong == []
    assert [claim for claim in told.claims.items() if len(claim[1]) != 1] == [], "an attempt was given to two clients"
    assert [each for each in told.requests.items() if len(each[1]) != 1] == [], "a request has got two jobs"
    finished = {key for key, states in told.states.items() if "finished" in states}
    assert len({job for job, _ in finished}) == len(finished), "a job was finished twice"
    assert len(finished) > _BATCH, "hardly anything was done"
    with Client(field.server.url) as client:
        jobs = {job["PandaID"]: job for job in client.data("job/list", queue=QUEUE, limit=100_000)}
        assert field.submitted <= jobs.keys(), "a submission was lost"
        assert {job["jobStatus"] for job in jobs.values()} == {"finished"}
        for number in jobs:
            _compare_job(client.job(number), told)


def _compare_job(job: dict[str, Any], told: _Told) -> None:
    """The history of a job against what clients were told of it."""
    number, last = job["PandaID"], job["attemptNr"]
    history: dict[int, list[str]] = defaultdict(list)
    for change in job["history"]:
        history[change["attemptNr"]].append(change["status"])
    for attempt in range(1, last + 1):
        states, story = history[attempt], told.states.get((number, attempt), [])
        assert len(states) == len(set(states)), f"job {number} was twice in a state: {job['history']}"
        if (number, attempt) in told.claims:
            assert "sent" in states, f"the claim of job {number}, attempt {attempt}, was lost"
        for state in story:
            stored = "holding" if state == "finished" else state
            assert stored in states, f"job {number}, attempt {attempt}: {state} was accepted and is lost: {states}"
        if "finished" in story:
            assert attempt == last and states[-1] == "finished", f"job {number} was finished: {job['history']}"
