"""How many heartbeats and getJob the dispatcher answers, with as many jobs queued as are told, on each database.

Server, load and database share the machine, as the goals have it. The floor of each figure is what the database does
without a server (tests.bench.stores), before and after.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from server.db import shares
from server.db.database import Database
from tests.bench.load import Load, Measured
from tests.bench.stock import Stock, queued_jobs
from tests.bench.stores import Sqlite, Store, running_store
from tests.bench.table import Row, cpu_of_those_left
from tests.pilots import wait_until
from tests.servers import RunningServer, running_server
from tests.site import QUEUE, Site, add_site

CLIENTS = 16
SECONDS = 5.0
KEPT, MANY, MOST = 1_000, 100_000, 1_000_000
#: s between two looks at a queue that is kept at its length.
FEEDING = 0.05
#: s that filling the queue with MOST jobs may take; where it would take longer, that row is left out.
FILLING = 240.0
#: s until the daemon, which looks every 20 s, has given the few queued jobs the shares of a new tree.
_TAGGING = 90.0
#: Heartbeats made before the load begins, about as many running jobs, chosen at random: more than are sent.
_PREPARED = 30_000


@dataclass(frozen=True)
class Scale:
    """How large a dispatcher's world is, and what is expected of it.

    Attributes:
        running: jobs that heartbeats are about.
        queues: queues that pilots ask for.
        kinds: kinds of jobs in each queue, that getJob has to choose from.
        shares: whether each kind has a global share of its own.
        goals: updateJob with connections kept alive, with new ones, getJob.
        prefix: what the queues' names begin with.
    """

    running: int
    queues: int
    kinds: int
    goals: tuple[str, str, str] = ("", "", "")
    prefix: str = QUEUE
    shares: bool = False

    @property
    def names(self) -> list[str]:
        """The queues' names."""
        return [f"{self.prefix}_{number}" for number in range(self.queues)]


SMALL_SITE = Scale(10_000, 10, 4, ("1500/s", "1500/s", "300/s"))
LHC = Scale(600_000, 100, 50, ("2500/s, p99 ≤ 30 ms", "1800/s", "800/s"), shares=True)


def rows(folder: Path) -> list[Row]:
    """The dispatcher's rates on both databases. folder: for its data; a million jobs are about 1 GB."""
    found = _measure(Sqlite(folder / "sqlite"), folder / "sqlite", SMALL_SITE)
    with running_store() as store:
        return found + _measure(store, folder / "postgresql", LHC)


def _measure(store: Store, folder: Path, scale: Scale) -> list[Row]:
    """One database's rates."""
    with running_server(folder, environment=store.environment) as server:
        site = add_site(server.url, folder)
        site.call("queue/add", {"queues": {name: {"state": "ACTIVE", "status": "online"} for name in scale.names}})
        database = store.open()
        try:
            bench = Bench(store, scale, server, site, database, Stock(database))
            bench.begin()
            found = bench.heartbeats()
            before = memory(server)
            found += bench.dispatch()
            after = memory(server)
        finally:
            database.close()
    what = f"{store.name}: memory of web workers, their master and the daemon"
    text = f"after the heartbeats; {after:.0f} MB after getJob with the longest queue"
    return [*found, Row(what, f"{before:.0f} MB PSS", text, "flat")]


class Bench:
    """A dispatcher that is measured, with its running and queued jobs.

    running: the PandaIDs of those that run.
    """

    def __init__(
        self, store: Store, scale: Scale, server: RunningServer, site: Site, database: Database, stock: Stock
    ) -> None:
        self._store = store
        self._scale = scale
        self._server = server
        self._site = site
        self._database = database
        self._stock = stock
        self.running = range(0)

    def begin(self) -> None:
        """Fill in the jobs that run: one goes the whole way, and is copied."""
        (jobid,) = self._site.submit({"command": "true"})
        self._site.call("pilot/acquire_jobs", {"site_name": QUEUE, "prod_source_label": "user"})
        self._site.call("pilot/update_job", {"job_id": jobid, "job_status": "running"})
        self.running = self._stock.copy(self._stock.add([jobid]), self._scale.running)
        self._store.settle()

    def heartbeats(self) -> list[Row]:
        """updateJob for jobs that run already, with connections kept alive and without."""
        found = []
        for kept_alive, connections, goal in (
            (True, "connections kept alive", self._scale.goals[0]),
            (False, "a new connection each", self._scale.goals[1]),
        ):
            what = f"updateJob (heartbeats), {len(self.running):,} jobs running, {CLIENTS} clients, {connections}"
            measure = partial(self.heartbeat_load, SECONDS, kept_alive=kept_alive)
            found.append(self._row(what, measure, goal, "250/s, p99 113 ms"))
        return found

    def heartbeat_load(self, seconds: float, *, kept_alive: bool) -> Measured:
        """Heartbeats of running jobs chosen at random."""
        jobids = random.sample(self.running, min(_PREPARED, len(self.running)))
        requests = [request(self._server, "updateJob", heartbeat(job), kept_alive=kept_alive) for job in jobids]

        def check(body: bytes) -> None:
            answer = json.loads(body)
            assert answer["StatusCode"] == 0 and answer["command"] == "NULL", answer

        load = Load(self._server.port, CLIENTS, kept_alive=kept_alive)
        return load.run(seconds, itertools.cycle(requests).__next__, check)

    def dispatch(self) -> list[Row]:
        """getJob with ever more jobs queued."""
        originals = self.originals()
        queues = (
            f"{self._scale.queues} queues of {self._scale.kinds} {'shares' if self._scale.shares else 'kinds of jobs'}"
        )
        what, goal = f"getJob, {CLIENTS} clients, {queues}", self._scale.goals[2]
        measure = partial(self.dispatch_load, SECONDS)
        with self._fed(originals):
            found = [self._row(f"{what}, {KEPT:,} jobs queued and as many kept", measure, goal, "72/s")]
        begun = time.perf_counter()
        self.fill(originals, MANY)
        each = (time.perf_counter() - begun) / MANY
        found.append(self._row(f"{what}, {MANY:,} queued", measure, goal, "15/s"))
        if each * MOST < FILLING:
            self.fill(originals, MOST)
            found.append(self._row(f"{what}, {MOST:,} queued", measure, goal, ""))
        return found

    def originals(self) -> range:
        """A job of each kind for each queue, in the stock: all queues of a kind in a row, then those of the next."""
        site, names = self._site, self._scale.names
        if self._scale.shares:
            site.call("share/set", {"shares": _share_tree(self._scale.kinds)})
            wait_until(self._all_have_shares, "the daemon has given all queued jobs their shares", _TAGGING)
        kinds = range(self._scale.kinds)
        return self._stock.add(
            [jobid for kind in kinds for jobid in site.submit(*({"queue": name, **_job(kind)} for name in names))]
        )

    def _all_have_shares(self) -> bool:
        """Whether the daemon is through with queued jobs after a change of shares; it takes CPU meanwhile."""
        with self._database.reading() as connection:
            return shares.retag_from(connection) is None

    def fill(self, originals: range, number: int) -> None:
        """Copy jobs, and see them written."""
        self._stock.copy(originals, number)
        self._store.settle()

    def dispatch_load(self, seconds: float) -> Measured:
        """Take jobs of all queues by turns; none twice, and never none."""
        asked = [{**ASKED, "siteName": name} for name in self._scale.names]
        requests = itertools.cycle([request(self._server, "getJob", values, kept_alive=True) for values in asked])
        taken: set[int] = set()

        def check(body: bytes) -> None:
            answer = json.loads(body)
            assert answer["StatusCode"] == 0, answer
            assert answer["PandaID"] not in taken, answer
            taken.add(answer["PandaID"])

        return Load(self._server.port, CLIENTS, kept_alive=True).run(seconds, requests.__next__, check)

    @contextmanager
    def _fed(self, originals: range) -> Iterator[None]:
        """Keep the queue at its length for the time of a block, each of its jobs of the next kind."""
        over = threading.Event()
        step = self._scale.queues
        kinds = itertools.cycle(originals[begin : begin + step] for begin in range(0, len(originals), step))
        for _ in range(KEPT // step):
            self._stock.copy(next(kinds), step)

        def feed() -> None:
            while not over.wait(FEEDING):
                with self._database.reading() as connection:
                    missing = KEPT - queued_jobs(connection)
                for _ in range(missing // step):
                    self._stock.copy(next(kinds), step)

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            yield
        finally:
            over.set()
            feeder.join()

    def _row(self, what: str, measure: Callable[[], Measured], goal: str, existing: str) -> Row:
        """A load beside the floor: commits a second without a server, before and after."""
        before = self._store.commits(self.running)
        measured = measure()
        floor = (before + self._store.commits(self.running)) / 2
        p50, p99 = (measured.percentile(share) * 1000 for share in (0.5, 0.99))
        beside = (
            f"{measured.rate / floor * 100:.0f} % of {self._store.floor} ({floor:.0f}/s); "
            f"the load took {measured.own * 100:.0f} % of a core"
        )
        text = f"{measured.rate:.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        return Row(f"{self._store.name}: {what}", text, beside, goal, existing)


def _job(kind: int) -> dict[str, object]:
    """A job of one of the kinds of a queue."""
    return {"command": "true", "memory": 1000 + 20 * kind, "cores": 1 + kind % 2, "workingGroup": f"group_{kind}"}


#: Shares have this many siblings above them, none of which has jobs itself.
_PARENTS = 5


def _share_tree(kinds: int) -> dict[str, object]:
    """A share for each kind of job, in two levels."""
    return {
        f"parent_{parent}": {
            "value": 100 / _PARENTS,
            "children": {f"share_{k}": {"value": 1 + k, "workingGroup": f"group_{k}"} for k in kinds_of_it},
        }
        for parent in range(_PARENTS)
        if (kinds_of_it := range(parent, kinds, _PARENTS))
    }


#: What an existing pilot asks with, beside the queue (tests/golden/existing_pilot.json).
ASKED = {
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


def heartbeat(jobid: int) -> dict[str, object]:
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


def request(server: RunningServer, method: str, arguments: dict[str, object], *, kept_alive: bool) -> bytes:
    """A request the way an existing pilot makes it: gzip that no header tells of."""
    body = gzip.compress(json.dumps(arguments).encode())
    headers = (
        f"POST /server/panda/{method} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        "User-Agent: pilot/3.11.5.1 (Python 3.11.7; Linux x86_64)\r\nContent-Type: application/json\r\n"
        f"Connection: {'keep-alive' if kept_alive else 'close'}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return headers.encode() + body


def cpu_of(server: RunningServer) -> float:
    """CPU of the server's processes so far, in s."""
    first = psutil.Process(server.pid)
    return cpu_of_those_left(first, *first.children(recursive=True))


def memory(server: RunningServer) -> float:
    """PSS of the server's processes, in MB."""
    first = psutil.Process(server.pid)
    pss = [process.memory_full_info().pss for process in (first, *first.children(recursive=True))]
    return float(sum(pss)) / 2**20


def memory_of_workers(server: RunningServer) -> float:
    """RSS of the web workers, in MB; the daemon starts and ends processes as it likes."""
    children = psutil.Process(server.pid).children()
    return float(sum(p.memory_info().rss for p in children if "server.daemon" not in p.cmdline())) / 2**20
