"""How many heartbeats and getJob the dispatcher answers, with as many jobs queued as are told, on SQLite.

Server, load and database share the machine, as the goals have it. The floor of each figure is what SQLite does without
a server: one such row updated and committed after the other, by one process in the same file, before and after.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import psutil

from server.db.database import CACHE_SIZE, Database
from tests.bench.load import Load, Measured
from tests.bench.stock import copy_jobs, queued_jobs
from tests.bench.table import Row
from tests.servers import RunningServer, running_server
from tests.site import QUEUE, Site, add_site

CLIENTS = 16
SECONDS = 5.0
FLOOR_SECONDS = 1.0
#: Jobs that heartbeats are about.
RUNNING = 10_000
QUEUES = [f"{QUEUE}_{number}" for number in range(10)]
#: What the jobs of each queue ask for: so many classes of jobs getJob has to choose from.
CLASSES: tuple[dict[str, object], ...] = ({"memory": 1000}, {"memory": 2000}, {"memory": 4000}, {"cores": 8})
KEPT, MANY, MOST = 1_000, 100_000, 1_000_000
#: s between two looks at a queue that is kept at its length.
FEEDING = 0.05
#: s that filling the queue with MOST jobs may take; where it would take longer, that row is left out.
FILLING = 240.0
#: Less than any copy has: originals are handed out when nothing else is left, which does not happen here.
LEAST_PRIORITY = -1000


def rows(folder: Path) -> list[Row]:
    """The dispatcher's rates. folder: for its data; a million jobs are about 1 GB."""
    with running_server(folder / "server") as server:
        site = add_site(server.url, folder)
        site.call("queue/add", {"queues": {name: {"state": "ACTIVE", "status": "online"} for name in QUEUES}})
        database = Database(f"sqlite:///{server.data / 'pilotkit.db'}", connections=2)
        try:
            running = _running_jobs(site, database)
            found = _heartbeats(server, running)
            before = _memory(server)
            found += _dispatch(server, site, database, running)
            after = _memory(server)
        finally:
            database.close()
    text = f"after the heartbeats; {after:.0f} MB after getJob with the longest queue"
    return [*found, Row("memory of web workers, their master and the daemon", f"{before:.0f} MB PSS", text, "flat")]


def _running_jobs(site: Site, database: Database) -> range:
    """Jobs that run: one goes the whole way, and is copied."""
    (jobid,) = site.submit({"command": "true"})
    site.call("pilot/acquire_jobs", {"site_name": QUEUE, "prod_source_label": "user"})
    site.call("pilot/update_job", {"job_id": jobid, "job_status": "running"})
    return copy_jobs(database, [jobid], RUNNING)


def _heartbeats(server: RunningServer, running: Sequence[int]) -> list[Row]:
    """updateJob for jobs that run already, with connections kept alive and without."""
    what = f"updateJob (heartbeats), {CLIENTS} clients"
    found = []
    for kept_alive, connections in ((True, "connections kept alive"), (False, "a new connection each")):
        requests = [_request(server, "updateJob", _heartbeat(jobid), kept_alive=kept_alive) for jobid in running]
        random.shuffle(requests)
        load = Load(server.port, CLIENTS, kept_alive=kept_alive)
        floor, measured = _beside_floor(server, running, load, itertools.cycle(requests), _accepted)
        found.append(_row(f"{what}, {connections}", measured, floor, "1500/s", "250/s, p99 113 ms"))
    return found


def _accepted(body: bytes) -> None:
    answer = json.loads(body)
    assert answer["StatusCode"] == 0 and answer["command"] == "NULL", answer


def _dispatch(server: RunningServer, site: Site, database: Database, running: Sequence[int]) -> list[Row]:
    """getJob with ever more jobs queued."""
    originals = site.submit(
        *(
            {"queue": name, "command": "true", "priority": LEAST_PRIORITY, **wants}
            for name in QUEUES
            for wants in CLASSES
        )
    )
    what = f"getJob, {CLIENTS} clients, connections kept alive, {len(QUEUES)} queues"
    copy_jobs(database, originals, KEPT)
    with _fed(database, originals):
        floor, measured = _get_jobs(server, running)
    found = [_row(f"{what}, {KEPT:,} jobs queued and as many kept", measured, floor, "300/s", "72/s")]
    begun = time.perf_counter()
    _fill(server, database, originals, MANY)
    each = (time.perf_counter() - begun) / MANY
    floor, measured = _get_jobs(server, running)
    found.append(_row(f"{what}, {MANY:,} queued", measured, floor, "300/s", "15/s"))
    if each * MOST < FILLING:
        _fill(server, database, originals, MOST)
        floor, measured = _get_jobs(server, running)
        found.append(_row(f"{what}, {MOST:,} queued", measured, floor, "300/s", ""))
    assert all(site.status(jobid) == "activated" for jobid in originals), "a queue has run empty"
    return found


def _fill(server: RunningServer, database: Database, originals: list[int], number: int) -> None:
    """Queue so many jobs more, and see them written: what is measured next should not pay for it."""
    copy_jobs(database, originals, number)
    with closing(sqlite3.connect(server.data / "pilotkit.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _get_jobs(server: RunningServer, running: Sequence[int]) -> tuple[float, Measured]:
    """Take jobs of all queues by turns; none twice, and never none."""
    requests = itertools.cycle(
        [_request(server, "getJob", {**_ASKED, "siteName": name}, kept_alive=True) for name in QUEUES]
    )
    taken: set[int] = set()

    def check(body: bytes) -> None:
        answer = json.loads(body)
        assert answer["StatusCode"] == 0, answer
        assert answer["PandaID"] not in taken, answer
        taken.add(answer["PandaID"])

    load = Load(server.port, CLIENTS, kept_alive=True)
    return _beside_floor(server, running, load, requests, check)


@contextmanager
def _fed(database: Database, originals: list[int]) -> Iterator[None]:
    """Keep the queue at its length for the time of a block."""
    over = threading.Event()

    def feed() -> None:
        while not over.wait(FEEDING):
            with database.reading() as connection:
                missing = KEPT - queued_jobs(connection)
            if missing >= len(originals):
                copy_jobs(database, originals, missing)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield
    finally:
        over.set()
        feeder.join()


#: What an existing pilot asks with, beside the queue (tests/golden/existing_pilot.json).
_ASKED = {
    "computingElement": QUEUE,
    "prodSourceLabel": "user",
    "diskSpace": 20000,
    "workingGroup": "",
    "cpu": 2400.5,
    "mem": 16000.25,
    "node": "worker1",
    "allowOtherCountry": False,
    "harvester_id": "harvester",
    "worker_id": "42",
}


def _heartbeat(jobid: int) -> dict[str, object]:
    """What an existing pilot reports of a payload that runs (wire.md section 1)."""
    memory = {f"{kind}{what}": 1500000 + jobid for kind in ("max", "avg") for what in ("RSS", "VMEM", "SWAP", "PSS")}
    inout = {
        f"{kind}{what}": 123456 + jobid for kind in ("tot", "rate") for what in ("RCHAR", "WCHAR", "RBYTES", "WBYTES")
    }
    return {
        "jobId": str(jobid),
        "state": "running",
        "timestamp": "2026-01-01T12:00:00+01:00",
        "siteName": QUEUE,
        "node": "worker1",
        "attemptNr": 1,
        "schedulerID": "scheduler",
        "pilotID": "https://ce.example.org/1|PR|3.11.5.1",
        "startTime": 1767265200.0,
        "xml": "",
        "metaData": "",
        "coreCount": 1,
        "meanCoreCount": 0.97,
        "cpuConsumptionTime": 1000 + jobid,
        "cpuConsumptionUnit": "s+AMD EPYC",
        **memory,
        **inout,
    }


def _request(server: RunningServer, method: str, arguments: dict[str, object], *, kept_alive: bool) -> bytes:
    """A request the way an existing pilot makes it: gzip that no header tells of."""
    body = gzip.compress(json.dumps(arguments).encode())
    headers = (
        f"POST /server/panda/{method} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        "User-Agent: pilot/3.11.5.1 (Python 3.11.7; Linux x86_64)\r\nContent-Type: application/json\r\n"
        f"Connection: {'keep-alive' if kept_alive else 'close'}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return headers.encode() + body


def _beside_floor(
    server: RunningServer,
    running: Sequence[int],
    load: Load,
    requests: Iterator[bytes],
    check: Callable[[bytes], None],
) -> tuple[float, Measured]:
    """Commits a second without a server, before and after, and what the load came to in between."""
    before = _commits(server.data / "pilotkit.db", running)
    measured = load.run(SECONDS, requests.__next__, check)
    return (before + _commits(server.data / "pilotkit.db", running)) / 2, measured


def _commits(file: Path, running: Sequence[int]) -> float:
    """Rows of running jobs updated a second, each in a transaction of its own that is on disk."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"cache_size={CACHE_SIZE}", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        begun, number = time.perf_counter(), 0
        while (took := time.perf_counter() - begun) < FLOOR_SECONDS:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                'UPDATE jobs SET "modificationTime" = ?, "cpuConsumptionTime" = ?, "maxRSS" = ?, "maxPSS" = ? '
                'WHERE "PandaID" = ?',
                (time.time(), number, number, number, random.choice(running)),
            )
            connection.execute("COMMIT")
            number += 1
    return number / took


def _row(what: str, measured: Measured, floor: float, goal: str, existing: str) -> Row:
    p50, p99 = (measured.percentile(share) * 1000 for share in (0.5, 0.99))
    beside = (
        f"{measured.rate / floor * 100:.0f} % of updates committed in SQLite without a server ({floor:.0f}/s); "
        f"the load took {measured.own * 100:.0f} % of a core"
    )
    return Row(what, f"{measured.rate:.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms", beside, goal, existing)


def _memory(server: RunningServer) -> float:
    """PSS of the server's processes, in MB."""
    first = psutil.Process(server.pid)
    pss = [process.memory_full_info().pss for process in (first, *first.children(recursive=True))]
    return float(sum(pss)) / 2**20
