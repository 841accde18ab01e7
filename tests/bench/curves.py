"""What a heartbeat and a getJob cost with ever more jobs in history, queues, and shares in each queue.

The cost is the CPU of all processes of dispatcher and PostgreSQL, divided by the answers: it depends less on what else
the machine does than a rate would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from server.db.database import Database
from tests.bench.dispatcher import Bench, Scale, cpu_of
from tests.bench.load import Measured
from tests.bench.stock import Stock
from tests.bench.stores import PostgreSQL, running_store
from tests.bench.table import Row
from tests.servers import RunningServer, running_server
from tests.site import QUEUE, Site, add_site

#: Where a curve begins: one thing grows, the others stay as they are here.
BASE = Scale(running=50_000, queues=100, kinds=10, shares=True)
HISTORY = (0, 100_000, 1_000_000)
QUEUES = (10, 100, 1_000)
SHARES = (1, 10, 50)
#: s of each load, and jobs queued for it: several times what it takes.
SECONDS = 3.0
QUEUED = 30_000


def rows(folder: Path) -> list[Row]:
    """The curves, a row for each point. folder: for the server's data."""
    with running_store() as store, running_server(folder, environment=store.environment) as server:
        database = store.open()
        try:
            curves = _Curves(store, server, add_site(server.url, folder), database, Stock(database))
            return [*curves.over_queues(), *curves.over_shares(), *curves.over_history()]
        finally:
            database.close()


@dataclass(frozen=True)
class _Cost:
    """CPU of an answer in µs."""

    heartbeat: float
    get_job: float


class _Curves:
    """The points of all curves, on one server."""

    def __init__(self, store: PostgreSQL, server: RunningServer, site: Site, database: Database, stock: Stock) -> None:
        self._store = store
        self._server = server
        self._site = site
        self._database = database
        self._stock = stock
        self._running = range(0)
        self._points = 0

    def over_queues(self) -> list[Row]:
        """Ever more queues."""
        return _curve([(f"{number:,} queues", self._point(replace(BASE, queues=number))) for number in QUEUES])

    def over_shares(self) -> list[Row]:
        """Ever more global shares."""
        return _curve([(f"{n:,} shares in each queue", self._point(replace(BASE, kinds=n))) for n in SHARES])

    def over_history(self) -> list[Row]:
        """Ever more jobs that are over."""
        (jobid,) = self._site.submit({"command": "true", "outputs": ["a"]})
        self._site.call("pilot/acquire_jobs", {"site_name": QUEUE, "prod_source_label": "user"})
        self._site.call("pilot/update_job", {"job_id": jobid, "job_status": "failed", "pilot_error_code": 1305})
        self._site.wait_for(jobid, "failed")
        original = self._stock.add([jobid])
        points, there = [], 0
        for number in HISTORY:
            self._stock.copy(original, number - there)
            there = number
            points.append((f"{number:,} jobs in history", self._point(BASE)))
        return _curve(points)

    def _point(self, scale: Scale) -> _Cost:
        """What a heartbeat and a getJob cost, with queues of this point alone."""
        self._points += 1
        scale = replace(scale, prefix=f"{QUEUE}_{self._points}")
        self._site.call(
            "queue/add", {"queues": {name: {"state": "ACTIVE", "status": "online"} for name in scale.names}}
        )
        bench = Bench(self._store, scale, self._server, self._site, self._database, self._stock)
        if not self._running:
            bench.begin()
        self._running = bench.running = bench.running or self._running
        bench.fill(bench.originals(), QUEUED)
        return _Cost(
            self._cost(lambda: bench.heartbeat_load(SECONDS, kept_alive=True)),
            self._cost(lambda: bench.dispatch_load(SECONDS)),
        )

    def _cost(self, measure: Callable[[], Measured]) -> float:
        before = cpu_of(self._server) + self._store.cpu()
        measured = measure()
        return (cpu_of(self._server) + self._store.cpu() - before) / measured.answers * 1e6


def _curve(points: list[tuple[str, _Cost]]) -> list[Row]:
    """A row for each point, beside the first one."""
    first = points[0][1]
    found = []
    for what, cost in points:
        grown = (cost.heartbeat / first.heartbeat - 1, cost.get_job / first.get_job - 1)
        beside = f"{grown[0]:+.0%} and {grown[1]:+.0%} against {points[0][0]}"
        measured = f"heartbeat {cost.heartbeat:.0f} µs, getJob {cost.get_job:.0f} µs of CPU"
        found.append(Row(f"PostgreSQL: {what}", measured, beside, "flat"))
    return found
