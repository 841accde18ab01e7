"""Web workers alike busy: a new connection goes to the one that has the fewest.

The kernel gives a new connection to whichever worker asks first. With clients that keep theirs, a proxy's among them,
one worker so ends up with nearly all of them, most times, and the others have nothing to do: half the rate on two
CPUs. (A socket for each worker, SO_REUSEPORT, would not do: what waits in it is lost with its worker.)
"""

from __future__ import annotations

import mmap

#: Workers that have a seat; further ones are not counted, and take connections as the kernel gives them.
_SEATS = 64
#: What a worker that stops tells: so many connections that nobody lets it go first.
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
        """The number of the first free seat, which is no longer free; None if there is none."""
        for seat, count in enumerate(self._counts):
            if not count:
                self._counts[seat] = 1
                return seat
        return None

    def leave(self, seat: int | None) -> None:
        """Free the seat of a worker that has gone."""
        if seat is not None:
            self._counts[seat] = 0

    def stop(self, seat: int | None) -> None:
        """Say that the worker in a seat takes no connections any more."""
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
