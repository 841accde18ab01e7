"""Work on several things at once, in threads that live only as long as the work."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Callable, TypeVar

T = TypeVar("T")


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
