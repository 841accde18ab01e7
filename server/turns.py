"""One request after the other in a web worker, in the order in which they came.

A worker's threads compute one at a time in any case, as Python has it, but not in order: who comes back from the
database goes before those who wait in line, and on one CPU those may then wait for seconds. A request that takes long,
because the database or its client does, loses its turn to the next one and goes on beside it; one that waits for the
disk lets others go on meanwhile (`let_go`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    #: A lock that is held until it is one's turn.
    Turn = threading.Lock


class _Own(threading.local):
    """What a thread has: the line it stands in, and its turn while it has one."""

    line: Turns | None = None
    turn: Turn | None = None


_own = _Own()

#: s after which the next request may begin while one is still at work; nearly all take a tenth of it.
PATIENCE = 0.02


class Turns:
    """Whose turn it is. Threads share it."""

    def __init__(self, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic) -> None:
        """It is nobody's turn.

        Args:
            patience: s.
        """
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[Turn] = deque()
        self._now: Turn | None = None
        self._since = 0.0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have one's turn for the time of a block."""
        _own.line, _own.turn = self, self.take()
        try:
            yield
        finally:
            let_go()
            _own.line = None

    def take(self) -> Turn:
        """Wait for one's turn; what is returned is to be given back."""
        turn = threading.Lock()
        with self._lock:
            if self._now is None:
                self._begin(turn)
                return turn
            turn.acquire()
            self._waiting.append(turn)
        while not turn.acquire(timeout=self._patience):
            with self._lock:
                # It may have been our turn, and not any more, since we gave up waiting: then the lock is free.
                if self._now is not turn and self._waiting and self._waiting[0] is turn and self._is_late():
                    self._begin(self._waiting.popleft())
        return turn

    def give_back(self, turn: Turn) -> None:
        """It is the next one's turn, unless that has begun already."""
        with self._lock:
            if self._now is turn:
                self._now = None
                if self._waiting:
                    self._begin(self._waiting.popleft())

    def _is_late(self) -> bool:
        return self._clock() - self._since >= self._patience

    def _begin(self, turn: Turn) -> None:
        self._now, self._since = turn, self._clock()
        if turn.locked():
            turn.release()


def let_go() -> None:
    """Give this thread's turn to the next one, if it has one: it is going to wait for something."""
    if _own.line is not None and _own.turn is not None:
        turn, _own.turn = _own.turn, None
        _own.line.give_back(turn)


@contextmanager
def come_back() -> Iterator[None]:
    """Have this thread's turn again when the block has ended, if it was let go of in there."""
    had = _own.turn is not None
    try:
        yield
    finally:
        if had and _own.line is not None and _own.turn is None:
            _own.turn = _own.line.take()
