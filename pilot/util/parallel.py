"""Work on several things at once, in threads that live only as long as the work."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Callable, TypeVar

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


class Left(Exception):
    """What was waited for had not ended when it was told to stop; its thread ends by itself, or with the process."""


def leave_when(stop: threading.Event, body: Callable[[], T], name: str) -> T:
    """Call `body` in a thread and return what it returns, or leave it there as soon as `stop` is set.

    For what can hang where nothing reaches it: a name server, a connect, a dead disk. Raises Left, and what `body`
    raises.
    """
    results: list[T] = []
    errors: list[Exception] = []
    ended = threading.Event()

    def run() -> None:
        try:
            results.append(body())
        except Exception as exc:  # the top of a thread: raised by the one that waits for it
            errors.append(exc)
        ended.set()

    threading.Thread(target=run, name=name, daemon=True).start()
    # Two events cannot be waited for at once; an order to stop is obeyed this fast.
    while not ended.wait(_LOOK):
        if stop.is_set():
            raise Left(name)
    if errors:
        raise errors[0]
    return results[0]
