"""One request after the other in a web worker, in the order in which they came.

A worker's threads compute one at a time in any case, as Python has it, but not in order: who comes back from the
database goes before those who wait in line, and on one CPU those may then wait for seconds. A request that takes long,
because the database or its client does, loses its turn to the next one and goes on beside it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    #: A lock that is held until it is one's turn.
    Turn = threading.Lock

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
                if self._now is not turn and self._waiting[0] is turn and self._is_late():
                    self._begin(self._waiting.popleft())
                if self._now is turn:
                    break
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
