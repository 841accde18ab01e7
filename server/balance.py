"""Web workers alike busy: new connections go to the one that has the fewest, and each worker stays on a CPU of its own.

The kernel gives a new connection to whichever worker asks first. With clients that keep theirs, a proxy's among them,
one worker so ends up with nearly all of them, most times, and the others have nothing to do: half the rate on two
CPUs. (A socket for each worker, SO_REUSEPORT, would not do: what waits in it is lost with its worker.)

The threads of a worker take turns, as Python has it, and each turn on another CPU begins with cold caches: a request
costs up to a third more. On one CPU they need an order of their own (`server.turns`), and that one is at work at a time
costs nothing only where the database is near: a distant one is waited for by many requests at once.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Mapping

from sqlalchemy import URL, make_url

from server.settings import Settings, is_loopback

#: Workers that have a seat; further ones are not counted, and take connections as the kernel gives them.
_SEATS = 64
#: What a worker tells that takes none, and one that starts: so many connections that nobody lets it go first.
_STOPPED = 2**32 - 2
#: So many connections more than another worker has are no reason to let it go first.
_SLACK = 1


class Seats:
    """The seats of a server's web workers: who is there, and how many connections each has.

    The memory is shared by all processes that are forked after it was made. The master alone gives and frees seats; a
    worker writes to its own.
    """

    def __init__(self) -> None:
        """All are free."""
        self._counts = memoryview(mmap.mmap(-1, 4 * _SEATS)).cast("I")  # 0: free; else one more than connections

    def take(self) -> int | None:
        """The number of the first free seat, which is no longer free; None if there is none.

        Nobody lets a worker go first before it has told how many connections it has: it has yet to start.
        """
        for seat, count in enumerate(self._counts):
            if not count:
                self._counts[seat] = _STOPPED + 1
                return seat
        return None

    def leave(self, seat: int | None) -> None:
        """Free the seat of a worker that has gone."""
        if seat is not None:
            self._counts[seat] = 0

    def stop(self, seat: int | None) -> None:
        """Say that the worker in a seat takes no connections, for a while or for good."""
        self.tell(seat, _STOPPED)

    def tell(self, seat: int | None, connections: int) -> None:
        """Say how many connections the worker in a seat has."""
        if seat is not None:
            self._counts[seat] = connections + 1

    def others_first(self, seat: int | None) -> bool:
        """Whether another worker has so few connections that it should get the next one."""
        if seat is None:
            return False
        counts = self._counts.tolist()
        return counts[seat] > min(filter(None, counts), default=0) + _SLACK


def one_cpu_each(settings: Settings) -> bool:
    """Whether each worker is to stay on one CPU.

    It is if the workers fill all CPUs that they may use, evenly, and the database is on this machine; else the kernel
    knows better who should run where.
    """
    if not settings.pin_workers or settings.workers % len(os.sched_getaffinity(0)):
        return False
    return _is_near(make_url(settings.database_url()), os.environ)


def _is_near(url: URL, environment: Mapping[str, str]) -> bool:
    """Whether a database is on this machine; one that a file of libpq's describes may be anywhere."""
    if url.get_backend_name() == "sqlite":
        return True
    if "service" in url.query or environment.get("PGSERVICE"):
        return False
    names = [url.host or "", *(str(url.query.get(key, "")) for key in ("host", "hostaddr"))]
    if not any(names):
        names = [environment.get(key, "") for key in ("PGHOST", "PGHOSTADDR")]
    hosts = [host for name in names for host in name.split(",") if host]
    return all(host.startswith("/") or is_loopback(host) for host in hosts)


def stay_on_one_cpu(seat: int | None) -> None:
    """Keep this process, and the threads it starts from now on, on the CPU of its seat."""
    cpus = sorted(os.sched_getaffinity(0))
    if seat is not None:
        with contextlib.suppress(OSError):  # some sandboxes do not let anybody choose
            os.sched_setaffinity(0, {cpus[seat % len(cpus)]})
