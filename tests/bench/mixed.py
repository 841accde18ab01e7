"""A load like ATLAS's on PostgreSQL: hundreds of thousands of jobs that run and report, and new ones all the time.

Each of the running jobs reports every half hour, at random moments. Meanwhile jobs are submitted, taken, started, run,
finished and looked at by the adder. Nothing may be lost or wrong: whatever is fails the benchmark. It must leave the
machine time for others, and memory must not grow.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import func, select

from server.db.database import Database
from server.db.tables import jobs as job_table
from tests.asking import post
from tests.bench.dispatcher import ASKED, LHC, Bench, cpu_of, heartbeat, memory_of_workers
from tests.bench.stock import Stock
from tests.bench.stores import PostgreSQL, running_store
from tests.bench.table import Row, cpu_seconds
from tests.servers import RunningServer, running_server
from tests.site import add_site

#: s between two reports of a running job, and new jobs a second: all of ATLAS's.
PERIOD = 1800
BORN = 25
#: s that a pilot takes to ask for a job that is there, and that a payload runs, at most.
_STARTING, _RUNNING = 5.0, 10.0
#: s until the last jobs are finished when no more are submitted.
_PATIENCE = 120.0
#: How often memory is looked at.
_LOOKS = 10


def rows(folder: Path, seconds: float) -> list[Row]:
    """What the load costs. folder: for the server's data; seconds: how long it lasts."""
    with running_store() as store, running_server(folder, environment=store.environment) as server:
        site = add_site(server.url, folder)
        site.call("queue/add", {"queues": {name: {"state": "ACTIVE", "status": "online"} for name in LHC.names}})
        database = store.open()
        try:
            bench = Bench(store, LHC, server, site, database, Stock(database))
            bench.begin()
            load = _Load(server, bench.running, seconds)
            with _watched(server, store) as watched:
                asyncio.run(load.run(watched))
            _compare(database, load)
        finally:
            database.close()
    return _table(load, watched, seconds)


@dataclass
class _Watched:
    """What the load cost: CPU in s by whose it is, and RSS in MB of the web workers over time."""

    server: RunningServer
    cpu: dict[str, float] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)
    took: float = 0.0
    machine: float = 0.0

    def look(self) -> None:
        """Note the memory."""
        self.memory.append(memory_of_workers(self.server))


@contextmanager
def _watched(server: RunningServer, store: PostgreSQL) -> Iterator[_Watched]:
    """Count the CPU of a block; processes that end meanwhile (PostgreSQL's own work) are counted as the machine's."""

    def now() -> dict[str, float]:
        return {"dispatcher": cpu_of(server), "PostgreSQL": store.cpu(), "load": cpu_seconds(psutil.Process())}

    watched = _Watched(server)
    before, begun = now(), time.perf_counter()
    psutil.cpu_percent()
    yield watched
    watched.machine = psutil.cpu_percent()
    watched.took = time.perf_counter() - begun
    watched.cpu = {name: used - before[name] for name, used in now().items()}


class _Load:
    """The requests of all pilots and of who submits their jobs, and what was answered."""

    def __init__(self, server: RunningServer, running: range, seconds: float) -> None:
        self.seconds = seconds
        self.running = running
        self.submitted: list[int] = []
        self.beats: dict[int, float] = {}
        self.latencies: dict[str, list[float]] = defaultdict(list)
        self.failures: list[BaseException] = []
        self._server = server
        self._taken: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, watched: _Watched) -> None:
        """Load the server for its time, and wait until every pilot is done."""
        self._begin(self._beat())
        self._begin(self._submit())
        for _ in range(_LOOKS):
            await asyncio.sleep(self.seconds / _LOOKS)
            watched.look()
        while self._tasks:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    def _begin(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if (failure := task.exception()) is not None:
            self.failures.append(failure)

    async def _at_rate(self, rate: float) -> Any:
        """Moments at a rate, however long what happens at them takes."""
        begun = time.perf_counter()
        for number in itertools.count(1):
            if (left := begun + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            if time.perf_counter() - begun > self.seconds:
                return
            yield

    async def _beat(self) -> None:
        async for _ in self._at_rate(len(self.running) / PERIOD):
            self._begin(self._heartbeat(random.choice(self.running)))

    async def _heartbeat(self, job: int) -> None:
        begun = time.time()
        answer = await self._ask("heartbeat", "/server/panda/updateJob", heartbeat(job))
        assert answer["StatusCode"] == 0 and answer["command"] == "NULL", answer
        self.beats[job] = begun

    async def _submit(self) -> None:
        """Once a second, as a task system does."""
        async for _ in self._at_rate(1.0):
            self._begin(self._submission(random.choices(LHC.names, k=BORN)))

    async def _submission(self, queues: list[str]) -> None:
        """Submit a job for each queue; for each there is a pilot soon."""
        jobs = [{"queue": queue, "command": "true", "outputs": ["a"], "memory": 2000} for queue in queues]
        answer = await self._ask("submission", "/api/v1/job/submit_jobs", {"jobs": jobs})
        assert answer["success"], answer
        self.submitted += [job["PandaID"] for job in answer["data"]]
        for queue in queues:
            self._begin(self._pilot(queue))

    async def _pilot(self, queue: str) -> None:
        await asyncio.sleep(random.uniform(0, _STARTING))
        job = await self._ask("getJob", "/server/panda/getJob", {**ASKED, "siteName": queue})
        assert job["StatusCode"] == 0, f"there is a job for each pilot in {queue}: {job}"
        assert job["PandaID"] not in self._taken, job
        self._taken.add(job["PandaID"])
        for state in ("starting", "running"):
            await self._report(job, state)
        await asyncio.sleep(random.uniform(0, _RUNNING))
        names = job["outFiles"].split(",")
        outputs = {name: {"guid": str(uuid.uuid4()), "fsize": 1, "adler32": "00000001"} for name in names}
        await self._report(job, "finished", xml=json.dumps(outputs))

    async def _report(self, job: dict[str, Any], state: str, **more: object) -> None:
        values = {**heartbeat(job["PandaID"]), "state": state, **more}
        answer = await self._ask("change of state", "/server/panda/updateJob", values)
        assert answer["StatusCode"] == 0 and answer["command"] == "NULL", answer

    async def _ask(self, what: str, path: str, values: dict[str, object]) -> dict[str, Any]:
        body = gzip.compress(json.dumps(values).encode(), 1)
        begun = time.perf_counter()
        status, content = await post(self._server.port, path, body)
        self.latencies[what].append(time.perf_counter() - begun)
        assert status == 200, content
        answer: dict[str, Any] = json.loads(content)
        return answer


def _compare(database: Database, load: _Load) -> None:
    """Whether all that was answered is there: every job finished at its first attempt, every heartbeat kept."""
    for failure in load.failures:
        raise failure
    number = len(load.submitted)
    assert number >= BORN * (load.seconds - 2), f"{number} jobs were submitted"
    in_time = job_table.c.PandaID.between(min(load.submitted), max(load.submitted))
    finished = (job_table.c.jobStatus == "finished") & (job_table.c.attemptNr == 1)
    until = time.monotonic() + _PATIENCE
    while True:
        with database.looking() as connection:
            done = connection.execute(select(func.count()).where(in_time, finished)).scalar()
        if done == number:
            break
        assert time.monotonic() < until, f"{done} of {number} jobs are finished"
        time.sleep(0.5)
    some = random.sample(sorted(load.beats), min(1000, len(load.beats)))
    kept = select(job_table.c.PandaID, job_table.c.modificationTime).where(job_table.c.PandaID.in_(some))
    with database.looking() as connection:
        for job, modified in connection.execute(kept):
            assert modified >= load.beats[job], f"a heartbeat of job {job} is lost"


def _table(load: _Load, watched: _Watched, seconds: float) -> list[Row]:
    cores = os.cpu_count() or 1
    share = {name: used / watched.took / cores * 100 for name, used in watched.cpu.items()}
    parts = ", ".join(f"{name} {percent:.0f} %" for name, percent in share.items())
    title = f"PostgreSQL: {len(load.running):,} jobs running, {BORN} new ones a second, for {seconds:.0f} s"
    beside = f"{parts}; all that ran on the machine meanwhile: {watched.machine:.0f} %"
    found = [Row(f"{title}: CPU", f"{sum(share.values()):.0f} % of the machine", beside, "≤ 60 %")]
    for what, unsorted in load.latencies.items():
        latencies = sorted(unsorted)
        p50, p99 = (latencies[int(len(latencies) * part)] * 1000 for part in (0.5, 0.99))
        rate = f"{len(latencies) / seconds:.0f}/s"
        found.append(Row(f"the same: {what}", rate, f"p50 {p50:.1f} ms, p99 {p99:.1f} ms", ""))
    lived = f"{len(load.submitted):,} jobs lived and {len(load.latencies['heartbeat']):,} heartbeats were taken"
    found.append(Row("the same: lost or wrong", "0", lived, "0"))
    over_time = ", ".join(f"{mb:.0f}" for mb in watched.memory)
    grown = f"{watched.memory[-1] - watched.memory[1]:+.1f} MB"
    return [*found, Row("the same: growth of the web workers", grown, f"RSS in MB: {over_time}", "flat")]
