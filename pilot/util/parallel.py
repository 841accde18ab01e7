"""Work on several things at once, in threads that live only as long as the work."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Callable, Generic, TypeVar

T = TypeVar("T")

# s between two looks at whether to stop.
_LOOK = 0.2


def in_parallel(items: Sequence[T], work: Callable[[T], None], limit: int, name: str) -> None:
    """Call `work` with each item, at most `limit` at a time; after a failure nothing new is begun.

    Raises what failed first in the order of the items, once all that was begun has ended. One item, or a limit of one,
    needs no thread.
    """
    if len(items) < 2 or limit < 2:
        for item in items:
            work(item)
        return
    failures: dict[int, Exception] = {}
    waiting = iter(enumerate(items))
    lock = threading.Lock()

    def body() -> None:
        while True:
            with lock:
                number, item = next(waiting, (-1, None)) if not failures else (-1, None)
            if item is None:
                return
            try:
                work(item)
            except Exception as exc:  # the top of a thread: handed to the caller, who raises it
                failures[number] = exc

    # Daemons: one that hangs must not keep the pilot's process from ending.
    threads = [threading.Thread(target=body, name=f"{name}-{n}", daemon=True) for n in range(min(limit, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[min(failures)]


class Aside(Generic[T]):
    """Calls `body` in a thread that may be left there.

    For what can hang where nothing reaches it: a name server, a connect, a dead disk. A thread that is left ends by
    itself, or with the process.
    """

    def __init__(self, body: Callable[[], T], name: str) -> None:
        self._results: list[T] = []
        self.error: Exception | None = None
        self._ended = threading.Event()

        def run() -> None:
            try:
                self._results.append(body())
            except Exception as exc:  # the top of a thread: raised by whoever asks for the result
                self.error = exc
            self._ended.set()

        self._thread = threading.Thread(target=run, name=name, daemon=True)
        self._thread.start()

    def has_ended(self, timeout: float) -> bool:
        """Whether it has, waiting up to `timeout` seconds for it."""
        return self._ended.wait(timeout)

    def result(self) -> T:
        """What `body` has returned, once it has ended. Raises what `body` has raised."""
        self._thread.join()
        if self.error is not None:
            raise self.error
        return self._results[0]


class Left(Exception):
    """What was waited for had not ended when it was told to stop."""


def leave_when(stop: threading.Event, body: Callable[[], T], name: str) -> T:
    """Call `body` aside and return what it returns, or leave it there as soon as `stop` is set.

    Raises Left, and what `body` raises.
    """
    aside = Aside(body, name)
    # Two events cannot be waited for at once; an order to stop is obeyed this fast.
    while not aside.has_ended(_LOOK):
        if stop.is_set():
            raise Left(name)
    return aside.result()
